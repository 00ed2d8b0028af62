"""Loading a trained classifier from a run, a checkpoint or a hub."""

from pathlib import Path

import torch

import lightning_priors.techniques
from lightning_priors.errors import PriorError, nearest
from lightning_priors.techniques import PriorModule
from lightning_priors.trained.checkpoint import read_checkpoint, trained_technique
from lightning_priors.trained.classifier import TrainedClassifier

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
        where: A run folder, of which the best checkpoint is taken, or a checkpoint.
        technique: Its class, where that is not one of this library; a checkpoint only tells its name and never
            imports anything.
        device: Where to put the network; by default a GPU where there is one.

    Returns:
        The classifier, ready to be asked.

    Raises:
        PriorError: If there is no such run or checkpoint, it names a technique that is not known, or it does not say
            what it was trained on.

    Example:
        classifier = lightning_priors.load("runs/CAMRestriction/version_0")
        for said in classifier.predict(["one.jpg", "two.jpg"]):
            print(said.name, said.label, said.probabilities[said.label])

    >>> load("no/such/run")
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: there is no run or checkpoint no/such/run
    """
    path = checkpoint_of(where)
    checkpoint = read_checkpoint(str(path))
    kind = technique or _technique(trained_technique(checkpoint), path)
    facts = checkpoint.get("facts")
    if not facts:
        raise PriorError(f"{path} does not hold class names and image size; continue its run for an epoch to add them")
    # building draws first weights, which are overwritten, and asks for gradients to see which weights matter
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        module = kind.load_from_checkpoint(path, map_location="cpu")
    return TrainedClassifier(module, facts).to(device or best_device())


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
        beside = sorted(str(entry) for entry in path.parent.iterdir()) if path.parent.is_dir() else []
        raise PriorError(f"there is no run or checkpoint {path}; {nearest(str(path), beside)}".rstrip("; "))
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


def _technique(name: str, path: Path) -> type[PriorModule]:
    """The class of this library that has a name."""
    known = {name: getattr(lightning_priors.techniques, name) for name in lightning_priors.techniques.__all__}
    classes = {name: kind for name, kind in known.items() if isinstance(kind, type) and issubclass(kind, PriorModule)}
    if name not in classes:
        said = f"names the technique {name!r}" if name else "does not say its technique"
        raise PriorError(f"{path} {said}; give its class as technique, or {nearest(name, classes)}")
    return classes[name]
