"""Interrupted and resumed at an epoch's end is the uninterrupted run, to the bit, whatever is drawn at random."""

from pathlib import Path

import lightning as L
import torch
from squares import Squares
from test_protocol import EVERY, build
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_priors.techniques import CAMRestriction, Pretrained

EPOCHS = 4
KEYS = ("mask", "part_boxes", "group", "aux_labels")


class Stop(L.Callback):
    """Ends the training after each epoch."""

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        trainer.should_stop = True


def run(make, folder: Path, interrupted: bool, seed: int = 0) -> dict[str, Tensor]:
    """Trains on shuffled images of another validation set, at once or in pieces of an epoch; gives the state."""
    path = None
    for piece in range(EPOCHS if interrupted else 1):
        L.seed_everything(seed + 100 * piece, verbose=False)  # what a new process draws is another
        module = make()
        trainer = L.Trainer(
            max_epochs=EPOCHS,
            min_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[Stop()] if interrupted else [],
        )
        loader = DataLoader(Squares(24, keys=KEYS), batch_size=8, shuffle=True)
        trainer.fit(module, loader, DataLoader(Squares(8, keys=KEYS), batch_size=8), ckpt_path=path, weights_only=True)
        path = str(folder / f"{piece}.ckpt")
        trainer.save_checkpoint(path)
    assert trainer.current_epoch == EPOCHS
    return module.state_dict()


@EVERY
def test_a_resumed_run_is_the_whole_run_to_the_bit(name, tmp_path):
    whole, resumed = (run(lambda: build(name), tmp_path, interrupted) for interrupted in (False, True))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_the_random_numbers_matter(tmp_path):
    """Otherwise the test above would show nothing."""

    def make():
        return CAMRestriction(found_regions=True, exchange_background=True)

    first, other = (run(make, tmp_path, interrupted=False, seed=seed) for seed in (0, 1))
    assert not torch.equal(first["classifier.head.weight"], other["classifier.head.weight"])


def test_dropout_goes_on(tmp_path):
    class Drops(Pretrained):
        def __init__(self) -> None:
            super().__init__()
            self.classifier.backbone.register_forward_hook(
                lambda module, image, features: torch.dropout(features, 0.5, module.training)
            )

    whole, resumed = (run(Drops, tmp_path, interrupted) for interrupted in (False, True))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
