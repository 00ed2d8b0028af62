"""Answers a posted picture with its label and the probabilities of all classes, from an ONNX file alone."""

import io
import json
import os

import numpy as np
import onnxruntime
from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from PIL import Image, UnidentifiedImageError

session = onnxruntime.InferenceSession(os.environ["MODEL"], providers=["CPUExecutionProvider"])
facts = session.get_modelmeta().custom_metadata_map
names, (height, width) = json.loads(facts["class_names"]), json.loads(facts["image_size"])
app = FastAPI()


def classify(body: bytes) -> dict[str, object]:
    picture = Image.open(io.BytesIO(body)).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    image = np.asarray(picture, np.float32).transpose(2, 0, 1)[None] / 255
    (probabilities,) = session.run(["probabilities"], {"image": image})[0]
    return {
        "label": names[probabilities.argmax()],
        "probabilities": dict(zip(names, probabilities.tolist(), strict=True)),
    }


@app.post("/")
async def answer(request: Request) -> dict[str, object]:
    try:
        return await run_in_threadpool(classify, await request.body())
    except (UnidentifiedImageError, OSError) as error:
        raise HTTPException(400, "the body is no picture") from error
