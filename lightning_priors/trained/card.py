"""The model card: what others have to know of a classifier before they trust it."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import docstring_parser
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from lightning_priors.names import in_markdown
from lightning_priors.techniques import PriorModule
from lightning_priors.trained.description import Description

LIBRARY, TASK = "lightning-priors", "image-classification"

NAME_OF_A_RESULT = re.compile(r"[\w%@+=(),-][\w %@+=(),./-]{0,59}")
"""Others, such as absolute paths, are left out of a card."""

METRICS = {
    "acc": "accuracy",
    "f1_macro": "macro F1",
    "ece": "expected calibration error",
    "worst_group_acc": "accuracy in the worst group",
    "epg": "energy pointing game",
    "pointing_game": "pointing game",
    "cam_iou": "IoU of the class activation map",
    "loss": "cross entropy",
}
"""What the library's metrics are called in words."""

CARD = """\
# {title}

{about}

## What it was trained on

{data}

## Priors and options

{options}

## How well it does

{results}

## Limits

- It knows these classes and no other: a picture of anything else gets one of them too.
- It was tested on nothing but what stands above; pictures from elsewhere, of other cameras, places or times, may be
  harder, and a group that is not listed was not looked at.
- Every picture is resized to {height} x {width} pixels without regard to its proportions, so very long or very high
  ones are distorted, and targets of a few pixels vanish.
- The class activation map says which cells of the feature map speak for a class. A cell has seen more of the picture
  than its own place, and a map on the target is no proof that nothing else was looked at.

## How to load it

A checkpoint, a safetensors file, or this folder:

```python
import lightning_priors

classifier = lightning_priors.load("model.safetensors")
said, = classifier.predict("picture.jpg")
print(said.label, said.probabilities)
```

An ONNX file, made by `lightning-priors export RUN --format onnx`, needs no torch. Its input is float32 RGB in [0, 1],
the normalisation is inside:

```python
import json
import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("model.onnx")
facts = session.get_modelmeta().custom_metadata_map
height, width = json.loads(facts["image_size"])
picture = Image.open("picture.jpg").convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
image = np.asarray(picture, np.float32).transpose(2, 0, 1)[None] / 255
logits, cam, probabilities = session.run(["logits", "cam", "probabilities"], {{"image": image}})
print(json.loads(facts["class_names"])[probabilities[0].argmax()])
```

A file of torch.export, made by `--format torch_export`, takes the same input:

```python
import torch
import torchvision  # some classifiers use its operators

answer = torch.export.load("model.pt2").module()(torch.from_numpy(image))
print(answer["probabilities"], answer["cam"].shape)
```
"""


def model_card(description: Description, technique: type[PriorModule], run: Path | None = None) -> ModelCard:
    """Writes a model card, as the Hugging Face Hub reads it. The licence is left to the user.

    Args:
        description: The classifier.
        technique: Its class, whose docstring says what the options mean.
        run: Its run folder; the numbers of JSON files in it, such as those of a test, go into the card.

    Returns:
        The card, without any path.
    """
    facts = description["facts"]
    height, width = facts["image_size"]
    text = CARD.format(
        title=f"{in_markdown(' or '.join(facts['class_names'][:3]))}{' ...' if len(facts['class_names']) > 3 else ''}?",
        about=_about(description, technique),
        data=_data(description),
        options=_options(description["options"], technique),
        results=_results(description["metrics"], {} if run is None else results_of(run)),
        height=height,
        width=width,
    )
    return ModelCard(f"---\n{_front_matter(description).to_yaml()}\n---\n\n{text}")


def results_of(run: Path) -> dict[str, dict[str, float]]:
    """Collects the numbers of the JSON files in a run folder, such as those of a test, by group where they have groups.

    Args:
        run: The folder.

    Returns:
        For each file by its name without ``.json`` the numbers by their names, nested ones with a slash.

    >>> results_of(Path("no_such_run"))
    {}
    """
    found = {}
    for path in sorted(run.glob("*.json")):
        try:
            numbers = dict(_numbers(json.loads(path.read_text(encoding="utf-8"))))
        except ValueError:
            continue  # another program's file
        if numbers:
            found[path.stem] = numbers
    return found


def _numbers(content: object, prefix: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(content, Mapping):
        for name, value in content.items():
            if NAME_OF_A_RESULT.fullmatch(str(name)):
                yield from _numbers(value, f"{prefix}/{name}".lstrip("/"))
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield prefix, float(content)


def _front_matter(description: Description) -> ModelCardData:
    data = description["facts"]["data"] or "unknown"
    measured = {name.removeprefix("val/"): value for name, value in sorted(description["metrics"].items())}
    results = [
        EvalResult(
            task_type=TASK,
            dataset_type=data.lower(),
            dataset_name=data,
            dataset_split="validation",
            metric_type="accuracy" if name == "acc" else name,
            metric_name=METRICS.get(name, name),
            metric_value=round(value, 4),
        )
        for name, value in measured.items()
    ]
    return ModelCardData(
        library_name=LIBRARY,
        pipeline_tag=TASK,
        tags=[LIBRARY, description["technique"], "class-activation-map"],
        metrics=[result.metric_type for result in results] or None,
        eval_results=results or None,
        model_name=description["technique"],
    )


def _about(description: Description, technique: type[PriorModule]) -> str:
    said = docstring_parser.parse(technique.__doc__ or "").short_description or ""
    backbone = description["options"].get("backbone", "")
    network = f" on the backbone `{backbone}`" if backbone else ""
    classes, name = len(description["facts"]["class_names"]), description["technique"]
    made = f"trained with `{name}` of `{LIBRARY}` {in_markdown(description['version'])}{network}"
    return f"A classifier of {classes} classes, {made}. The technique: {' '.join(said.split())}"


def _data(description: Description) -> str:
    facts = description["facts"]
    height, width = facts["image_size"]
    lines = [
        f"- Classes, in the order of the logits: {in_markdown(', '.join(facts['class_names']))}",
        f"- Data: {in_markdown(facts['data'])}" if facts["data"] else "- Data: not known",
        f"- Pictures: RGB, resized to {height} x {width} pixels (height x width), bilinear with antialiasing, "
        f"scaled to [0, 1], minus {facts['mean']}, divided by {facts['std']}",
    ]
    return "\n".join(lines)


def _options(options: Mapping[str, Any], technique: type) -> str:
    """The priors of a technique that takes a list of them, and all options in the words of the class's docstring."""
    lines = []
    for prior in options.get("priors") or []:
        values = in_markdown(", ".join(f"{name} = {value}" for name, value in prior["init_args"].items()))
        lines.append(f"- The prior `{prior['class_path'].rpartition('.')[2]}`: {values or 'without options'}")
    params = docstring_parser.parse(technique.__doc__ or "").params
    said = {each.arg_name: " ".join((each.description or "").split()) for each in params}
    rows = [
        f"| `{name}` | {in_markdown(json.dumps(value))} | {said.get(name, '')} |"
        for name, value in options.items()
        if name != "priors"
    ]
    return "\n".join([*lines, "", "| option | value | meaning |", "|---|---|---|", *rows]).lstrip()


def _results(metrics: Mapping[str, float], further: Mapping[str, Mapping[str, float]]) -> str:
    tables = {"On the validation images, on which the checkpoint was chosen": metrics, **further}
    parts = []
    for title, numbers in tables.items():
        words = {name: METRICS.get(name.rpartition("/")[2], "") for name in numbers}
        rows = [f"| {in_markdown(name)} | {value:.4g} | {words[name]} |" for name, value in numbers.items()]
        if rows:
            parts.append(
                "\n".join([f"{in_markdown(title)}:", "", "| metric | value | meaning |", "|---|---|---|", *rows])
            )
    return "\n\n".join(parts) or "Nothing was measured."
