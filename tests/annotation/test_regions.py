"""Regions that are found: the score against the truth, a head that learns, and one of a run."""

import math
from pathlib import Path

import lightning as L
import pytest
import torch

from lightning_priors.annotation import Evidence, FoundRegions
from lightning_priors.annotation.annotate import records
from lightning_priors.annotation.judge import UNSEEN, Judge
from lightning_priors.annotation.regions import AnnotatedBatches, expected_iou
from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import Kakapo
from lightning_priors.data.transforms import evaluation_image
from lightning_priors.errors import PriorError
from lightning_priors.functional.cam import evidence_map, upsample
from lightning_priors.metrics import CAMIoU
from lightning_priors.techniques import CAMRestriction, Pretrained, PriorModule


def kakapos(**options: object) -> PriorDataModule:
    source = Kakapo(train_size=96, val_size=16, test_size=8, size=64)
    data = PriorDataModule(source, **{"batch_size": 16, "image_size": 64, "augmentation": "flip", **options})
    data.setup()
    return data


def trained(module: PriorModule, folder: Path) -> str:
    """The run folder of a module after an epoch."""
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=PriorDataModule(Kakapo(train_size=16, val_size=8, test_size=8, size=32), 8, 32))
    trainer.save_checkpoint(folder / "checkpoints" / "best.ckpt")
    return str(folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    made = {
        "finds": CAMRestriction(found_regions=True),
        "finds nothing": CAMRestriction(),
        "plain": Pretrained(),
    }
    return {name: trained(module, tmp_path_factory.mktemp("run")) for name, module in made.items()}


def test_the_score_is_the_expected_intersection_over_the_expected_union() -> None:
    """Against draws of the truth from the map."""
    cover = torch.rand(1, 12, 12, generator=torch.Generator().manual_seed(0))
    draws = torch.rand(20000, 12, 12, generator=torch.Generator().manual_seed(1)) < cover
    inside = cover >= 0.5
    drawn = (draws & inside).sum((1, 2)).float().mean() / (draws | inside).sum((1, 2)).float().mean()
    assert expected_iou(cover).item() == pytest.approx(drawn.item(), abs=2e-3)
    assert expected_iou(inside.float()).item() == 1.0, "a map that is certain"


@pytest.mark.slow
def test_a_taught_head_finds_birds_that_it_has_not_seen_and_knows_how_well() -> None:
    """Even on the features of a network with random weights."""
    data = kakapos(annotated_fraction=0.5)
    annotator = FoundRegions(backbone="tiny", weights="none", epochs=20, lr=1e-2)
    annotator.learn(data)
    judge = Judge([], data.source.part_names)
    for record in records(data, annotator, ["train"], ask_all=True):
        judge.add(record)
    found = judge.report()[UNSEEN]
    assert found["count"] == 48
    assert found["iou"] > 0.4
    assert found["pointing"] > 0.7
    assert found["score_rank_correlation"] > 0.3


def test_a_head_learns_from_nothing_that_is_hidden() -> None:
    data = kakapos(annotated_fraction=0.25)
    hidden = data.datasets["train"].without_priors
    seen = [int(index) for batch in AnnotatedBatches(data, 32).epoch(0) for index in batch["index"]]
    assert len(seen) == len(set(seen)) == 24
    assert not hidden & set(seen)


def test_learning_is_the_same_for_the_same_seed_and_leaves_the_random_numbers_alone() -> None:
    data, image = kakapos(annotated_fraction=0.2), torch.zeros(3, 40, 64, dtype=torch.uint8)
    state = torch.get_rng_state()
    maps = []
    for seed in (0, 0, 1):
        annotator = FoundRegions(backbone="tiny", weights="none", epochs=1, seed=seed)
        annotator.learn(data)
        maps.append(annotator.annotate([image])[0].mask)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(maps[0], maps[1])
    assert not torch.equal(maps[0], maps[2])


def test_a_run_gives_the_regions_that_its_panels_show(runs: dict[str, str]) -> None:
    annotator = FoundRegions(runs["finds"])
    annotator.learn(kakapos())  # which is nothing to it
    images = [torch.randint(0, 256, (3, height, width), dtype=torch.uint8) for height, width in ((40, 30), (20, 50))]
    model = CAMRestriction.load_from_checkpoint(f"{runs['finds']}/checkpoints/best.ckpt").eval()
    with torch.no_grad():
        maps = model.explain_maps(torch.stack([evaluation_image(image, (32, 32)) for image in images]))["region"]
    for image, cover, given in zip(images, maps, annotator.annotate(images), strict=True):
        torch.testing.assert_close(given.mask, upsample(cover[None], image.shape[1:])[0])
        assert given.score == pytest.approx(expected_iou(cover[None]).item())


@pytest.mark.parametrize("name", ["finds nothing", "plain"])
def test_a_run_without_a_finder_is_refused(runs: dict[str, str], name: str) -> None:
    with pytest.raises(PriorError, match="finds no regions; train CAMRestriction or Combined with found_regions true"):
        FoundRegions(runs[name])


def test_without_annotation_there_is_nothing_to_learn_from() -> None:
    with pytest.raises(PriorError, match="no training picture is annotated"):
        FoundRegions(backbone="tiny", weights="none").learn(kakapos(annotated_fraction=0.0))
    with pytest.raises(PriorError, match="epochs is at least 1, not 0"):
        FoundRegions(epochs=0)


def test_evidence_is_judged_as_the_metric_of_the_evaluation_does(runs: dict[str, str]) -> None:
    """Of the class that the classifier names."""
    annotator, data = Evidence(runs["plain"], share=0.5), kakapos()
    judge, metric = Judge([], []), CAMIoU(threshold=0.5)
    model = Pretrained.load_from_checkpoint(f"{runs['plain']}/checkpoints/best.ckpt").eval()
    for record in records(data, annotator, ["val"], ask_all=True):
        if record.found is None:
            continue
        judge.add(record)
        logits, cam = model.explain(evaluation_image(record.truth["image"], (32, 32))[None])
        probability, label = logits.softmax(1).max(1)
        assert record.found.score == pytest.approx(probability.item(), abs=1e-5)
        metric.update(evidence_map(cam, label).detach(), record.truth["mask"].as_subclass(torch.Tensor), label >= 0)
    assert judge.report()["shown"]["iou"] == pytest.approx(metric.compute().item(), abs=1e-3)
    assert math.isfinite(metric.compute().item())


def test_a_share_out_of_range_is_refused(runs: dict[str, str]) -> None:
    with pytest.raises(PriorError, match="share is above 0 and at most 1, not 0"):
        Evidence(runs["plain"], share=0)
