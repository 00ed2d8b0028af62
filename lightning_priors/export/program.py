"""A classifier as one graph from pixels to answers, for batches of any size."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from lightning_priors.trained import TrainedClassifier

OUTPUTS = ("logits", "cam", "probabilities")


class FromPixels(nn.Module):
    """A classifier with the normalisation inside.

    Args:
        classifier: Takes normalised images.

    >>> import lightning_priors as lp
    >>> facts = {"class_names": ["a", "b"], "image_size": [32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "data": ""}
    >>> answer = FromPixels(TrainedClassifier(lp.Pretrained(), facts))(torch.rand(1, 3, 32, 32))
    >>> [name for name in answer], answer["cam"].shape
    (['logits', 'cam', 'probabilities'], torch.Size([1, 2, 4, 4]))
    """

    mean: Tensor
    std: Tensor

    def __init__(self, classifier: TrainedClassifier) -> None:
        super().__init__()
        self.classifier = classifier
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(classifier.facts[name]).view(1, 3, 1, 1))
        self.eval()

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Classifies pictures.

        Args:
            image: (B, 3, H, W) float32, RGB in [0, 1].

        Returns:
            By their names ``logits`` (B, K), ``cam`` (B, K, h, w) and ``probabilities`` (B, K).
        """
        logits, cam = self.classifier((image - self.mean) / self.std)
        return dict(zip(OUTPUTS, (logits, cam, logits.softmax(1)), strict=True))


def graph_of(classifier: TrainedClassifier, any_size: bool) -> ExportedProgram:
    """Traces a classifier.

    Args:
        classifier: On the CPU.
        any_size: Whether pictures may have any height and width, and not only those that it was trained with.

    Raises:
        NotImplementedError: If the padding depends on the size, as in TensorFlow's networks.
        Exception: Whatever else torch raises for a network that cannot be traced so.
    """
    if any_size and any(type(module).__name__.endswith("Same") for module in classifier.modules()):
        # as timm names them; torch would reason for many minutes about what each layer pads
        raise NotImplementedError("the layers pad by an amount that depends on the size of the picture")
    sides = {2: Dim.DYNAMIC, 3: Dim.DYNAMIC} if any_size else {}
    example = torch.rand(2, 3, *classifier.image_size)
    with quiet(), torch.no_grad():
        return export(FromPixels(classifier), (example,), dynamic_shapes=({0: Dim.DYNAMIC, **sides},), strict=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps off the terminal what exporters say to their own developers."""
    loggers = [logging.getLogger(name) for name in ("onnx_ir", "onnxscript", "torch.onnx", "torch.fx", "torch.export")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
