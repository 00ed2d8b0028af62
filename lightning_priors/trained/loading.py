"""Loading a trained classifier from a run, a checkpoint or a hub."""

from pathlib import Path
from typing import Any

import torch

from lightning_priors.errors import PriorError, nearest
from lightning_priors.techniques import PriorModule
from lightning_priors.trained.checkpoint import read_checkpoint, trained_technique
from lightning_priors.trained.classifier import TrainedClassifier
from lightning_priors.trained.description import technique_named
from lightning_priors.trained.hub import download, is_hub_id
from lightning_priors.trained.saved import is_saved, read_saved

CHECKPOINTS = ("checkpoints/best.ckpt", "best.ckpt", "checkpoints/last.ckpt", "last.ckpt")
"""Where a run folder, or its folder of checkpoints, has the one to use; the first that exists."""


def load(
    where: str | Path,
    *,
    technique: type[PriorModule] | None = None,
    device: str | torch.device | None = None,
) -> TrainedClassifier:
    """Loads a trained classifier. A checkpoint is enough: neither its data nor its configuration are needed.

    Args:
        where: A run folder, of which the best checkpoint is taken; a checkpoint; a safetensors file or a folder that
            `TrainedClassifier.save_pretrained` or ``lightning-priors export`` wrote; or, where there is no such path,
            a repository of the Hugging Face Hub, ``user/name``.
        technique: Its class, where that is neither one of this library nor in a module that your program has imported;
            a checkpoint only tells its name and never imports anything.
        device: Where to put the network; by default a GPU where there is one.

    Returns:
        The classifier, ready to be asked.

    Raises:
        PriorError: If there is no such run, checkpoint or repository, it names a technique that is not known, or it
            does not say what it was trained on.

    Example::

        classifier = lightning_priors.load("runs/CAMRestriction/version_0")
        for said in classifier.predict(["one.jpg", "two.jpg"]):
            print(said.name, said.label, said.probabilities[said.label])

    >>> load("no/such/run")
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: there is no run or checkpoint no/such/run
    """
    place = Path(where)
    if not place.exists() and is_hub_id(str(where)):
        place = _from_hub(str(where))
    if is_saved(place):
        return TrainedClassifier.from_saved(read_saved(place), technique).to(device or best_device())
    module, checkpoint = trained_module(place, technique)
    return TrainedClassifier(module, checkpoint["facts"], checkpoint.get("metrics")).to(device or best_device())


def trained_module(where: str | Path, technique: type[PriorModule] | None = None) -> tuple[PriorModule, dict[str, Any]]:
    """Loads a whole technique, with the parts that only training needs.

    Args:
        where: A run folder or a checkpoint.
        technique: As for `load`.

    Returns:
        The technique on the CPU, and the content of its checkpoint, with the ``facts`` that it was trained on.

    Raises:
        PriorError: As `load` does.

    >>> trained_module("no/such/run")
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: there is no run or checkpoint no/such/run
    """
    path = checkpoint_of(where)
    checkpoint = read_checkpoint(str(path))
    kind = technique or technique_named(trained_technique(checkpoint), str(path))
    if not checkpoint.get("facts"):
        raise PriorError(f"{path} does not hold class names and image size; continue its run for an epoch to add them")
    # building draws first weights, which are overwritten, and asks for gradients to see which weights matter
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        try:
            return kind.load_from_checkpoint(path, map_location="cpu"), checkpoint
        except PriorError:
            raise
        except Exception as error:  # whatever a constructor raises for values of the wrong kind
            raise PriorError(f"{path} does not fit {kind.__name__}: {' '.join(str(error).split())}") from error


def checkpoint_of(where: str | Path) -> Path:
    """Finds the checkpoint that a path stands for.

    Args:
        where: A run folder, its folder of checkpoints, or a checkpoint.

    Raises:
        PriorError: If there is none.

    >>> checkpoint_of("no/such/run")
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: there is no run or checkpoint no/such/run
    """
    path = Path(where)
    if path.is_dir():
        for name in CHECKPOINTS:
            if (path / name).is_file():
                return path / name
        below = sorted(str(found.parent.parent) for found in path.glob("**/checkpoints/best.ckpt"))
        hint = f"; choose from {', '.join(below[:5])}" if below else ""
        raise PriorError(f"the folder {path} has no checkpoints/best.ckpt{hint}")
    if not path.is_file():
        raise PriorError(f"there is no run or checkpoint {path}; {_nearest_beside(path)}".rstrip("; "))
    return path


def run_folder_of(where: str | Path) -> Path:
    """Finds the run folder that something to load belongs to.

    Args:
        where: What `load` takes.

    Returns:
        The folder itself, that of ``checkpoints/best.ckpt``, or the one that a file lies in.

    >>> str(run_folder_of("runs/Toy/version_0/checkpoints/best.ckpt")), str(run_folder_of("kept/best.ckpt"))
    ('runs/Toy/version_0', 'kept')
    """
    path = Path(where)
    folder = path.parent if path.is_file() or path.suffix == ".ckpt" else path
    return folder.parent if folder.name == "checkpoints" else folder


def best_device() -> torch.device:
    """Chooses a GPU where there is one, and the CPU otherwise.

    >>> best_device().type in ("cpu", "cuda", "mps")
    True
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator if accelerator is not None else torch.device("cpu")


def _from_hub(name: str) -> Path:
    """The folder with what the Hub has; a name that is nowhere may be a misspelt path too."""
    try:
        return download(name)
    except PriorError as error:
        raise PriorError(f"{error}; {_nearest_beside(Path(name))}".rstrip("; ")) from error


def _nearest_beside(path: Path) -> str:
    """The hint to what lies where a path should be."""
    return nearest(str(path), sorted(map(str, path.parent.iterdir()))) if path.parent.is_dir() else ""
