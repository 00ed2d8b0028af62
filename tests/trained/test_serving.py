"""The recipe of docs/export.md: a real server answers a real request from an exported file."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lightning_priors
from lightning_priors.export.formats import write_onnx

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def server(runs, tmp_path):
    """The address of a server, and what it serves."""
    classifier = lightning_priors.load(runs("Pretrained")[1], device="cpu")
    write_onnx(classifier, tmp_path / "model.onnx", any_size=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(REPOSITORY / "docs" / "serving"), "app:app"]
    with subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"],
        env={**os.environ, "MODEL": str(tmp_path / "model.onnx")},
    ) as process:
        try:
            wait_for(port, process)
            yield f"http://127.0.0.1:{port}/", classifier
        finally:
            process.terminate()


def wait_for(port: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail("the server did not begin")


def test_a_posted_picture_is_classified(server, tmp_path):
    address, classifier = server
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "bird.png")
    with urllib.request.urlopen(address, (tmp_path / "bird.png").read_bytes(), timeout=30) as response:
        said = json.load(response)
    (expected,) = classifier.predict(pixels)
    assert said["label"] == expected.label
    assert said["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(address, b"no picture", timeout=30)
    assert refused.value.code == 400
    assert json.load(refused.value)["detail"] == "the body is no picture"


def test_the_page_shows_the_program_that_is_tested():
    page = (REPOSITORY / "docs" / "export.md").read_text(encoding="utf-8")
    assert "{literalinclude} serving/app.py" in page
    assert "uvicorn --app-dir docs/serving app:app" in page
