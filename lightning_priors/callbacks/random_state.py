"""Continuing a run with the random numbers that it would have drawn without the interruption."""

import random
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info


class RandomState(L.Callback):
    """Keeps the states of the random number generators in checkpoints, and restores them in a resumed run.

    So dropout, exchanged backgrounds and jittered crops go on as if the run had never stopped. Each rank has its own
    states; on another number of ranks they are left as they are, and that is said.

    >>> (states,) = RandomState().state_dict()["ranks"]
    >>> drawn = torch.rand(2)
    >>> restore(states)
    >>> torch.equal(torch.rand(2), drawn)
    True
    """

    def state_dict(self) -> dict[str, Any]:
        """Collects the states of all ranks, in plain values and tensors."""
        states = [_states()]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            states *= torch.distributed.get_world_size()
            torch.distributed.all_gather_object(states, _states())
        return {"ranks": states}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restores the states, before the order of the first images is drawn."""
        kept = checkpoint["callbacks"].get(self.state_key)
        if kept is None or trainer.state.fn != TrainerFn.FITTING:
            return
        if len(kept["ranks"]) == trainer.world_size:
            restore(kept["ranks"][trainer.global_rank])
        else:
            rank_zero_info(
                f"the checkpoint has random states of {len(kept['ranks'])} processes, this run has "
                f"{trainer.world_size}; it goes on with other random numbers"
            )


def _states() -> dict[str, Any]:
    """The state of each generator, as a checkpoint can hold it."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, np.asarray(keys).tolist(), *rest],
        "python": random.getstate(),
    }


def restore(states: dict[str, Any]) -> None:
    """Restores the states of the generators.

    Args:
        states: What `RandomState.state_dict` has collected on a rank.

    >>> restore(RandomState().state_dict()["ranks"][0])
    """
    torch.set_rng_state(states["torch"].cpu())
    if len(states["cuda"]) == (torch.cuda.device_count() if torch.cuda.is_available() else 0):
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
