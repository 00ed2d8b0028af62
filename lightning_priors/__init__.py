"""Tell an image classifier what you already know.

The public names load on first use, so that ``import lightning_priors`` costs nothing: it imports no torch.

>>> from lightning_priors import Pretrained
>>> Pretrained(num_classes=2).hparams["backbone"]
'tiny'
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_priors.batch import PriorBatch as PriorBatch
    from lightning_priors.batch import PriorSample as PriorSample
    from lightning_priors.data import PriorDataModule as PriorDataModule
    from lightning_priors.errors import PriorError as PriorError
    from lightning_priors.nn import Backbone as Backbone
    from lightning_priors.nn import Classifier as Classifier
    from lightning_priors.priors import AuxiliaryTasks as AuxiliaryTasks
    from lightning_priors.priors import GuidedAttention as GuidedAttention
    from lightning_priors.priors import Prior as Prior
    from lightning_priors.priors import Restriction as Restriction
    from lightning_priors.priors import StartingPoint as StartingPoint
    from lightning_priors.techniques import *  # noqa: F403
    from lightning_priors.trained import Prediction as Prediction
    from lightning_priors.trained import TrainedClassifier as TrainedClassifier
    from lightning_priors.trained import load as load

__version__ = "0.1.0"

_HOMES = {
    "AuxiliaryTasks": "priors",
    "Backbone": "nn",
    "Classifier": "nn",
    "GuidedAttention": "priors",
    "Prior": "priors",
    "Prediction": "trained",
    "PriorBatch": "batch",
    "PriorDataModule": "data",
    "PriorError": "errors",
    "PriorSample": "batch",
    "Restriction": "priors",
    "StartingPoint": "priors",
    "TrainedClassifier": "trained",
    "load": "trained",
}
"""Where a public name is defined; all others are those of `lightning_priors.techniques`."""


def __getattr__(name: str) -> object:
    """Imports the module of a public name when the name is first used (PEP 562)."""
    if (
        name[:1].isupper() or name in _HOMES
    ):  # a submodule is asked for in the same way, and must not load the techniques
        home = importlib.import_module(f"{__name__}.{_HOMES.get(name, 'techniques')}")
        if name in _HOMES or name in home.__all__:
            return getattr(home, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Lists the public names; those of the techniques when they are loaded."""
    techniques = globals().get("techniques")
    return sorted({*globals(), *_HOMES, *getattr(techniques, "__all__", ())})
