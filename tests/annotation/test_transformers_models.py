"""Models of transformers with random weights, loaded and asked as real ones are."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_priors.annotation import Annotation, Annotator, PromptedSegmenter, ZeroShotDetector
from lightning_priors.annotation.annotator import checked
from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import Kakapo
from lightning_priors.errors import PriorError

transformers = pytest.importorskip("transformers")
tiny_models = pytest.importorskip("tiny_models")

IMAGES = [
    torch.randint(0, 256, size, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for size in ((3, 40, 60), (3, 50, 30))
]
BOX = [5.0, 5.0, 20.0, 25.0]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Saves a model once and gives its folder."""
    folders: dict[str, str] = {}

    def save(name: str) -> str:
        if name not in folders:
            folders[name] = getattr(tiny_models, f"save_{name}")(tmp_path_factory.mktemp(name))
        return folders[name]

    return save


class Boxes(Annotator):
    """One box, twice as sure of the first picture; none in the last of three."""

    part_names = ("head",)

    def annotate(self, images: list[torch.Tensor]) -> list[Annotation]:
        return [Annotation(score, boxes=[box]) for score, box in ((0.8, BOX), (0.4, BOX), (0.0, None))][: len(images)]


@pytest.mark.parametrize("name", ["owlv2", "grounding_dino"])
def test_a_detector_gives_the_box_with_the_highest_score(name: str, saved: Callable[[str], str]) -> None:
    """Against the raw output: centres and sides as shares, of the longer side where pictures are padded to a square."""
    detector = ZeroShotDetector(saved(name), "head of a bird", part="head", threshold=0.0)
    for image, given in zip(IMAGES, checked(detector.annotate(IMAGES), IMAGES, ["head"], name), strict=True):
        inputs = detector.processor(images=[image], text=[["head of a bird"]], return_tensors="pt")
        with torch.no_grad():
            output = detector.model(**inputs)
        scores = output.logits[0].sigmoid().amax(1)
        height, width = image.shape[1:]
        scale = torch.tensor([max(height, width)] * 2 if name == "owlv2" else [width, height])
        centre, sides = output.pred_boxes[0].split(2, 1)
        corners = torch.cat([(centre - sides / 2) * scale, (centre + sides / 2) * scale], 1)
        limits = torch.tensor([width, height, width, height]).float()
        corners = torch.minimum(corners.clamp(min=0), limits)
        visible = (corners[:, 2:] > corners[:, :2]).all(1)
        best = torch.where(visible, scores, -1).argmax()
        assert given.score == pytest.approx(scores[best].item(), abs=1e-5)
        torch.testing.assert_close(torch.tensor(given.boxes[0]), corners[best], atol=1e-2, rtol=1e-3)


def test_below_the_threshold_nothing_is_found(saved: Callable[[str], str]) -> None:
    detector = ZeroShotDetector(saved("owlv2"), "head of a bird", threshold=1.0)
    assert [(given.score, given.boxes) for given in detector.annotate(IMAGES)] == [(0.0, [None])] * 2


@pytest.mark.parametrize("name", ["sam", "sam2"])
def test_a_segmenter_draws_in_the_box_of_a_detector(name: str, saved: Callable[[str], str]) -> None:
    """Its mask is the model's own, interpolated to the picture and cut at zero; the scores are multiplied."""
    segmenter = PromptedSegmenter(saved(name), Boxes())
    given = checked(segmenter.annotate([*IMAGES, IMAGES[0]]), [*IMAGES, IMAGES[0]], [], name)
    assert (given[2].mask, given[2].score) == (None, 0.0)
    for image, sure, each in zip(IMAGES, (0.8, 0.4), given, strict=False):
        inputs = segmenter.processor(images=image, input_boxes=[[BOX]], return_tensors="pt")
        with torch.no_grad():
            output = segmenter.model(
                pixel_values=inputs["pixel_values"], input_boxes=inputs["input_boxes"], multimask_output=False
            )
        assert each.score == pytest.approx(sure * output.iou_scores.flatten()[0].clamp(0, 1).item(), abs=1e-6)
        logits = output.pred_masks[0]  # of the padded picture, for SAM
        if name == "sam":
            height, width = inputs["reshaped_input_sizes"][0].tolist()
            logits = torch.nn.functional.interpolate(logits, (32, 32), mode="bilinear")[..., :height, :width]
        wide = torch.nn.functional.interpolate(logits, image.shape[1:], mode="bilinear")[0, 0]
        assert ((wide > 0).float() == each.mask).float().mean() > 0.999


def test_a_segmenter_draws_in_the_boxes_of_the_data(saved: Callable[[str], str]) -> None:
    """A picture whose box is hidden gets no mask."""
    data = PriorDataModule(Kakapo(train_size=8, val_size=2, test_size=2, size=40))
    segmenter = PromptedSegmenter(saved("sam2"))
    segmenter.learn(data)
    sample = data.source.load(0)
    assert sample["part_valid"].tolist() == [True]
    hidden = {**sample, "part_valid": torch.tensor([False])}
    drawn, none = segmenter.annotate_samples([sample, hidden])  # type: ignore[list-item]
    expected = segmenter._drawn(sample["image"], sample["part_boxes"][0].tolist())
    assert torch.equal(drawn.mask, expected.mask)
    assert (none.mask, none.score) == (None, 0.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda save: ZeroShotDetector("/no/such/model", "bird"), "no ZeroShotObjectDetection model '/no/such/model'"),
        (lambda save: ZeroShotDetector(save("sam2"), "bird"), "no ZeroShotObjectDetection model"),
        (lambda save: ZeroShotDetector(save("owlv2"), " "), "prompt is empty"),
        (lambda save: PromptedSegmenter(save("owlv2")), "no MaskGeneration model"),
        (lambda save: PromptedSegmenter(save("sam2"), Boxes(), part="hed"), "has no box 'hed'; did you mean 'head'"),
    ],
)
def test_mistakes_are_one_line(make: Callable[[Any], Any], message: str, saved: Callable[[str], str]) -> None:
    with pytest.raises(PriorError, match=message) as caught:
        make(saved)
    assert "\n" not in str(caught.value)


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(PriorError, match=r"pip install 'lightning-priors\[annotate\]'"):
        ZeroShotDetector(str(tmp_path), "bird")
