"""Pictures to compare an exported classifier on."""

from pathlib import Path
from typing import Any, cast

import yaml
from jsonargparse import ArgumentParser
from torch import Tensor

from lightning_priors.cli.quiet import less_noise
from lightning_priors.cli.user_modules import working_folder_importable
from lightning_priors.data.datamodule import PriorDataModule, PriorDataset
from lightning_priors.data.sources import Kakapo

COUNT = 5
"""How many pictures."""


def pictures_for(run: Path) -> tuple[list[Tensor], str]:
    """Takes validation pictures of a run's data, or drawn birds where the data cannot be had.

    Args:
        run: The run folder; its config.yaml says what the data is.

    Returns:
        Five pictures (3, H, W) uint8, and a line that says where they are from.

    >>> pictures, told = pictures_for(Path("no_such_run"))
    >>> len(pictures), told
    (5, 'compared on 5 drawn birds: no_such_run has no config.yaml that says what its data is')
    """
    config = run / "config.yaml"
    reason = f"{run} has no config.yaml that says what its data is"
    if config.is_file():
        try:
            pictures = _validation_pictures(yaml.safe_load(config.read_text(encoding="utf-8"))["data"])
            return pictures, f"compared on {COUNT} validation pictures of the run"
        except Exception as error:  # whatever is missing of data that may be on another machine
            reason = f"the run's data cannot be had ({' '.join(str(error).split())[:200]})"
    birds = Kakapo(train_size=0, val_size=COUNT, test_size=0)
    birds.setup()
    return [birds.load(index)["image"].as_subclass(Tensor) for index in range(COUNT)], (
        f"compared on {COUNT} drawn birds: {reason}"
    )


def _validation_pictures(options: dict[str, Any]) -> list[Tensor]:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(PriorDataModule, "data")
    with less_noise(), working_folder_importable():
        data: PriorDataModule = parser.instantiate(parser.parse_object({"data": options})).data
        data.setup("validate")
        images = cast(PriorDataset, data.val_dataloader().dataset)
    wanted = [images.indices[number % len(images)] for number in range(COUNT)]
    return [data.source.load(index)["image"].as_subclass(Tensor) for index in wanted]
