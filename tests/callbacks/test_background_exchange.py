"""Backgrounds that are exchanged in the pixels."""

import lightning as L
import pytest
import torch

from lightning_priors.callbacks.background_exchange import BackgroundExchange, exchange_backgrounds
from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import Kakapo
from lightning_priors.errors import PriorError
from lightning_priors.functional.backgrounds import fill_in
from lightning_priors.techniques import Pretrained


def batch(count: int = 6) -> dict[str, torch.Tensor]:
    """Each picture has a colour of its own for the target and one for the background."""
    mask = torch.zeros(count, 8, 8)
    for row in range(count):
        mask[row, row % 4 : row % 4 + 3, 2:5] = 1
    colour = torch.arange(1.0, count + 1)[:, None, None, None]
    image = torch.where(mask.bool()[:, None], 100 * colour, colour).expand(-1, 3, -1, -1)
    return {"image": image, "label": torch.zeros(count, dtype=torch.long), "mask": mask,
            "mask_valid": torch.ones(count, dtype=torch.bool)}  # fmt: skip


def test_targets_stay_and_stand_before_the_whole_background_of_one_other_picture() -> None:
    torch.manual_seed(0)
    sample = batch()
    exchanged = exchange_backgrounds(sample)
    inside = sample["mask"].bool()
    found = []
    for row in range(6):
        assert torch.equal(exchanged[row][:, inside[row]], sample["image"][row][:, inside[row]])
        (colour,) = exchanged[row][:, ~inside[row]].unique().tolist()
        found.append(colour)
    assert sorted(found) == [1, 2, 3, 4, 5, 6]  # the other's target has left no trace
    assert found != sorted(found)


def test_pictures_without_a_known_target_stay_and_lend_no_background() -> None:
    torch.manual_seed(0)
    sample = batch()
    sample["mask_valid"] = torch.tensor([True, False, True, False, True, True])
    exchanged = exchange_backgrounds(sample)
    assert torch.equal(exchanged[[1, 3]], sample["image"][[1, 3]])
    assert not set(exchanged[[0, 2, 4, 5]].unique().tolist()) & {2, 4, 200, 400}


def test_the_share_of_pictures() -> None:
    torch.manual_seed(0)
    sample = batch(count=200)
    assert torch.equal(exchange_backgrounds(sample, share=0.0), sample["image"])
    changed = (exchange_backgrounds(sample, share=0.5) != sample["image"]).flatten(1).any(1)
    assert 0.35 < changed.float().mean() < 0.65
    with pytest.raises(PriorError, match=r"share is from 0 to 1, not 1\.5"):
        BackgroundExchange(1.5)


def test_filling_keeps_what_is_outside_and_stays_within_its_colours() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, 2, 13, 9, generator=generator)
    target = (torch.rand(3, 13, 9, generator=generator) < 0.5).float() * 0.3
    target[2] = 1
    filled = fill_in(image, target)
    outside = (target == 0)[:, None].expand_as(image)
    assert torch.equal(filled[outside], image[outside])
    assert not filled[2].any()
    for here, there in zip(filled[:2], image[:2], strict=True):
        assert here.min() >= there.min()
        assert here.max() <= there.max()
    poisoned = torch.where(outside, image, torch.inf).nan_to_num(posinf=1e6)
    torch.testing.assert_close(fill_in(poisoned, target), filled)  # no pixel of the target counts


def test_a_smooth_background_is_nearly_restored() -> None:
    ramp = torch.linspace(0, 1, 32).expand(1, 1, 32, 32)
    target = torch.zeros(1, 32, 32)
    target[:, 10:20, 10:20] = 1
    assert (fill_in(ramp, target) - ramp).abs().max() < 0.15


def test_a_technique_is_trained_on_them_and_validated_without() -> None:
    class Seen(L.Callback):
        train, val = None, None

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            self.train = self.train or batch

        def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
            self.val = self.val or batch

    data = PriorDataModule(Kakapo(train_size=8, val_size=8, test_size=2, size=32), 8, 32, augmentation="none")
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
                        enable_progress_bar=False, enable_model_summary=False,
                        callbacks=[BackgroundExchange(), seen := Seen()])  # fmt: skip
    trainer.fit(Pretrained(), datamodule=data)
    for split, changed in (("train", True), ("val", False)):
        shown = getattr(seen, split)
        rows = {int(index): row for row, index in enumerate(shown["index"])}
        originals = [data.datasets[split][position] for position in range(8)]
        same = [torch.equal(shown["image"][rows[int(one["index"])]], one["image"]) for one in originals]
        assert all(same) != changed
