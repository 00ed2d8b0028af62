"""Checks of the Trainer's options."""

from collections.abc import Mapping

from jsonargparse import Namespace

from lightning_priors.errors import PriorError

TRAINER_LEAST: Mapping[str, int] = {
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "gradient_clip_val": 0,
    "log_every_n_steps": 0,
    "min_epochs": 0,
    "min_steps": 0,
    "num_sanity_val_steps": -1,
    "val_check_interval": 0,
}
"""The least values of numbers that Lightning does not check."""

MOST_DEVICES = 1024
"""Of one machine; on the CPU each is a process of its own."""


IN_PARTS = ("fsdp", "deepspeed", "modelparallel")
"""Strategies that cut a network into parts, by what their names and classes begin with."""


def check_trainer(options: Namespace) -> None:
    """Checks numbers of the Trainer that Lightning would take and divide by, or ignore, and the strategy.

    Args:
        options: Those of the Trainer, by name.

    Raises:
        PriorError: If a number is out of its range, or the strategy cuts a network into parts.

    >>> check_trainer(Namespace(accumulate_grad_batches=0))
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: --trainer.accumulate_grad_batches is at least 1, not 0
    """
    for name, least in TRAINER_LEAST.items():
        value = options.get(name)
        if isinstance(value, int | float) and not value >= least:
            raise PriorError(f"--trainer.{name} is at least {least}, not {value}")
    devices = str(options.get("devices")).strip("'\"")
    if devices.isdecimal() and int(devices) > MOST_DEVICES:
        raise PriorError(f"--trainer.devices is at most {MOST_DEVICES}, not {devices}")
    strategy = options.get("strategy")
    name = (strategy if isinstance(strategy, str) else type(strategy).__name__).lower()
    if name.startswith(IN_PARTS):
        raise PriorError(
            f"--trainer.strategy={name} cuts a network into parts, and a prior needs its feature maps whole; use ddp"
        )
    if options.get("val_check_interval") == 0:
        raise PriorError("--trainer.val_check_interval is above 0; for no validation set limit_val_batches to 0")
