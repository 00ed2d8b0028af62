"""A trained classifier that is asked about pictures."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np
import torch
from huggingface_hub import ModelCard, ModelHubMixin
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_priors.data.sources.base import UnreadableImageError
from lightning_priors.data.transforms import evaluation_image
from lightning_priors.functional.cam import evidence_map
from lightning_priors.techniques import PriorModule
from lightning_priors.techniques.facts import Facts
from lightning_priors.trained.card import LIBRARY, TASK, model_card
from lightning_priors.trained.description import Description, build, describe_classifier
from lightning_priors.trained.hub import download
from lightning_priors.trained.pictures import Picture, name_of, pictures_of, pixels
from lightning_priors.trained.saved import CONFIG, WEIGHTS, Saved, fill, read_saved, write_config, write_weights

READERS = 4
"""Threads that read pictures while the network works; decoding releases Python's lock."""


class Prediction(NamedTuple):
    """What a classifier says of one picture."""

    name: str
    """The file; empty for a picture that is none."""
    label: str
    """The name of the most probable class."""
    probabilities: dict[str, float]
    """By the names of the K classes."""
    evidence: NDArray[np.float32]
    """(h, w) where the picture speaks for the label (positive) and against it (negative)."""
    logits: Tensor
    """(K,) float32 on the CPU."""
    cam: Tensor
    """(K, h, w) float32 on the CPU, the class activation maps that the logits are the means of, up to the bias."""


class TrainedClassifier(nn.Module, ModelHubMixin, library_name=LIBRARY, pipeline_tag=TASK):
    """A trained technique without what only training needs, and with what its checkpoint says of the pictures.

    `lightning_priors.load` makes one. ``save_pretrained(folder)`` writes it with a model card;
    ``push_to_hub("user/name")`` gives it to others, who load it by ``lightning_priors.load("user/name")``.

    Args:
        technique: With the trained weights; its training parts are dropped.
        facts: Class names, image size and normalisation.
        metrics: Of the validation images when it was trained, by name.

    >>> import lightning_priors as lp
    >>> facts = {"class_names": ["kakapo", "other"], "image_size": [64, 64], "mean": [0.485, 0.456, 0.406],
    ...          "std": [0.229, 0.224, 0.225], "data": ""}
    >>> classifier = TrainedClassifier(lp.Pretrained(num_classes=2), facts)
    >>> said, = classifier.predict(np.zeros((48, 64, 3), np.uint8))
    >>> said.evidence.shape, list(said.probabilities)
    ((8, 8), ['kakapo', 'other'])
    """

    def __init__(self, technique: PriorModule, facts: Facts, metrics: Mapping[str, float] | None = None) -> None:
        super().__init__()
        technique.drop_training_parts()
        self.technique = technique.eval().requires_grad_(False)
        self.facts = facts
        self.metrics = dict(metrics or {})

    @classmethod
    def from_saved(cls, saved: Saved, technique: type[PriorModule] | None = None) -> Self:
        """Builds a classifier from what `lightning_priors.trained.saved.read_saved` has read.

        Args:
            saved: What it is, and where its weights are.
            technique: The class, where it is none of this library.

        Raises:
            PriorError: If the description and the weights do not belong together, or there is no such technique.
        """
        description = saved.description
        built = cls(build(description, saved.origin, technique), description["facts"], description["metrics"])
        fill(built, saved.weights)
        return built

    @property
    def description(self) -> Description:
        """What a file says of the classifier beside its weights."""
        return describe_classifier(self.technique, self.facts, self.metrics)

    def generate_model_card(self) -> ModelCard:
        """Writes what others have to know; see `lightning_priors.trained.card`."""
        return model_card(self.description, type(self.technique))

    def _save_pretrained(self, save_directory: Path) -> None:
        """What `save_pretrained` and `push_to_hub` call."""
        write_weights(save_directory / WEIGHTS, self, self.description)
        write_config(save_directory / CONFIG, self.description)

    @classmethod
    def _from_pretrained(  # type: ignore[override]  # no further arguments: the files say what it is
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
    ) -> Self:
        """What `from_pretrained` calls."""
        folder = Path(model_id)
        if not folder.is_dir():
            folder = download(model_id, revision, cache_dir, force_download, token, local_files_only)
        return cls.from_saved(read_saved(folder))

    @property
    def class_names(self) -> list[str]:
        """The names of the K classes in the order of the logits."""
        return self.facts["class_names"]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels to which pictures are resized."""
        height, width = self.facts["image_size"]
        return height, width

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.technique.parameters()).device

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Classifies images that are prepared already.

        Args:
            image: (B, 3, H, W), normalised as `lightning_priors.batch` says.

        Returns:
            Logits (B, K) and class activation maps (B, K, h, w).
        """
        return self.technique.explain(image)

    def prepare(self, picture: Picture) -> Tensor:
        """Reads, resizes and normalises a picture (3, H, W), exactly as for validation and test.

        Raises:
            UnreadableImageError: If its file is missing or broken.
            PriorError: If it is no picture.
        """
        return evaluation_image(pixels(picture), self.image_size)

    def predict(
        self,
        pictures: Picture | Iterable[Picture],
        batch_size: int = 32,
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> list[Prediction]:
        """Classifies pictures and keeps all answers.

        Args:
            pictures: One or several: paths, Pillow images, arrays (H, W, 3) or tensors (3, H, W) of uint8.
            batch_size: Pictures in one pass of the network; no answer depends on it but for rounding.
            precision: Of the network's arithmetic; ``bfloat16`` is faster on new hardware and less exact.

        Returns:
            One answer for each picture, in their order.

        Raises:
            UnreadableImageError: If a file is missing or broken.
            PriorError: If something is no picture.
        """
        return list(self.stream(pictures, batch_size, precision))

    def stream(
        self,
        pictures: Picture | Iterable[Picture],
        batch_size: int = 32,
        precision: Literal["float32", "bfloat16"] = "float32",
        on_unreadable: Callable[[UnreadableImageError], None] | None = None,
    ) -> Iterator[Prediction]:
        """Classifies any number of pictures in memory that does not grow with it; see `predict`.

        Args:
            pictures: As in `predict`; they are read while the network works.
            batch_size: As in `predict`.
            precision: As in `predict`.
            on_unreadable: Is told of a file that cannot be read, which is then left out; without it such a file stops.

        Yields:
            The answers in the order of the pictures.
        """
        for batch in _batches(self._prepared(pictures, batch_size, on_unreadable), batch_size):
            names, images = zip(*batch, strict=True)
            logits, cam = self._answer(torch.stack(images), precision)
            yield from map(self._prediction, names, logits, cam)

    @torch.inference_mode()
    def _answer(self, image: Tensor, precision: str) -> tuple[Tensor, Tensor]:
        """Logits (B, K) and maps (B, K, h, w) of images (B, 3, H, W), as float32 on the CPU."""
        device = self.device
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits, cam = self(image.to(device))
        return logits.float().cpu(), cam.float().cpu()

    def _prediction(self, name: str, logits: Tensor, cam: Tensor) -> Prediction:
        probabilities = logits.softmax(0).tolist()
        label = logits.argmax().item()
        evidence = evidence_map(cam[None], torch.tensor([label]))[0].numpy()
        by_class = dict(zip(self.class_names, probabilities, strict=True))
        return Prediction(name, self.class_names[int(label)], by_class, evidence, logits, cam)

    def _prepared(
        self,
        pictures: Picture | Iterable[Picture],
        batch_size: int,
        on_unreadable: Callable[[UnreadableImageError], None] | None,
    ) -> Iterator[tuple[str, Tensor]]:
        """Names and images (3, H, W) in the order of the pictures, read up to two batches ahead."""
        waiting = iter(pictures_of(pictures))
        with ThreadPoolExecutor(READERS) as pool:
            ahead: list[tuple[str, Future[Tensor]]] = []

            def read_on(count: int) -> None:
                ahead.extend((name_of(each), pool.submit(self.prepare, each)) for each in islice(waiting, count))

            read_on(2 * batch_size)
            try:
                while ahead:
                    name, future = ahead.pop(0)
                    read_on(1)
                    try:
                        yield name, future.result()
                    except UnreadableImageError as error:
                        if on_unreadable is None:
                            raise
                        on_unreadable(error)
            finally:
                for _, future in ahead:
                    future.cancel()


def _batches(entries: Iterator[tuple[str, Tensor]], size: int) -> Iterator[list[tuple[str, Tensor]]]:
    while batch := list(islice(entries, size)):
        yield batch
