"""The three formats: writing a classifier, and having the file answer."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from lightning_priors.errors import PriorError
from lightning_priors.export.program import OUTPUTS, FromPixels, graph_of, quiet
from lightning_priors.trained import TrainedClassifier
from lightning_priors.trained.saved import read_saved, write_weights

Answers = Callable[[Tensor], dict[str, Tensor]]
"""From pictures (B, 3, H, W), float32 in [0, 1], to the outputs by name."""

FACTS_FILE = "lightning_priors.json"
"""The name under which a file of torch.export keeps the metadata."""


def metadata(classifier: TrainedClassifier, any_size: bool) -> dict[str, str]:
    """Says in strings what a program has to know; what is no string is JSON.

    Args:
        classifier: The classifier.
        any_size: Whether pictures of any size may be given.

    >>> import lightning_priors as lp
    >>> facts = {"class_names": ["a", "b"], "image_size": [32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "data": ""}
    >>> metadata(TrainedClassifier(lp.Pretrained(), facts), any_size=True)["class_names"]
    '["a", "b"]'
    """
    description = classifier.description
    facts, shape = description["facts"], ", ".join(["batch", "3", "height", "width"])
    return {
        "class_names": json.dumps(facts["class_names"]),
        "image_size": json.dumps(facts["image_size"]),
        "any_size": json.dumps(any_size),
        "input": f"float32 RGB in [0, 1], ({shape}); normalisation is inside; resized without regard to proportions",
        "mean": json.dumps(facts["mean"]),
        "std": json.dumps(facts["std"]),
        "data": facts["data"],
        "technique": description["technique"],
        "options": json.dumps(description["options"]),
        "metrics": json.dumps(description["metrics"]),
        "version": description["version"],
    }


def write_onnx(classifier: TrainedClassifier, path: Path, any_size: bool) -> Answers:
    """Writes one ONNX file, and answers by ONNX Runtime.

    Args:
        classifier: On the CPU.
        path: The file.
        any_size: Whether it takes pictures of any size.

    Raises:
        PriorError: If the extra is not installed.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise PriorError(f"ONNX needs {name}: pip install 'lightning-priors[onnx]'")
    import onnxruntime

    graph = graph_of(classifier, any_size)
    with quiet():
        program = torch.onnx.export(
            graph, dynamo=True, input_names=["image"], output_names=list(OUTPUTS), verbose=False
        )
        assert program is not None
        program.model.metadata_props.update(metadata(classifier, any_size))
        program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def answers(image: Tensor) -> dict[str, Tensor]:
        said = session.run(list(OUTPUTS), {"image": image.numpy()})
        return dict(zip(OUTPUTS, map(torch.from_numpy, said), strict=True))

    return answers


def write_torch_export(classifier: TrainedClassifier, path: Path, any_size: bool) -> Answers:
    """Writes a file of torch.export, and answers by the program that is read back from it."""
    graph = graph_of(classifier, any_size)
    with quiet():
        torch.export.save(graph, path, extra_files={FACTS_FILE: json.dumps(metadata(classifier, any_size))})
        answers: Answers = torch.export.load(path).module()
    return answers


def write_safetensors(classifier: TrainedClassifier, path: Path, any_size: bool) -> Answers:
    """Writes the weights with the description, and answers by the classifier that is read back; it takes any size."""
    write_weights(path, classifier, classifier.description)
    return FromPixels(TrainedClassifier.from_saved(read_saved(path), type(classifier.technique)))


WRITERS = {"onnx": write_onnx, "safetensors": write_safetensors, "torch_export": write_torch_export}
