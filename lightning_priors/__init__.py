"""Tell an image classifier what you already know.

The public names load on first use, so that ``import lightning_priors`` costs nothing: it imports no torch.

>>> from lightning_priors import Pretrained
>>> Pretrained(num_classes=2).hparams["backbone"]
'tiny'
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_priors.batch import PriorBatch, PriorSample
    from lightning_priors.data import PriorDataModule
    from lightning_priors.errors import PriorError
    from lightning_priors.nn import Backbone, Classifier
    from lightning_priors.techniques import CAMRestriction, Pretrained, PriorModule, PriorStep

__version__ = "0.1.0"

_HOMES = {
    "Backbone": "nn",
    "CAMRestriction": "techniques",
    "Classifier": "nn",
    "Pretrained": "techniques",
    "PriorBatch": "batch",
    "PriorDataModule": "data",
    "PriorError": "errors",
    "PriorModule": "techniques",
    "PriorSample": "batch",
    "PriorStep": "techniques",
}

__all__ = [
    "Backbone",
    "CAMRestriction",
    "Classifier",
    "Pretrained",
    "PriorBatch",
    "PriorDataModule",
    "PriorError",
    "PriorModule",
    "PriorSample",
    "PriorStep",
]


def __getattr__(name: str) -> object:
    """Imports the module of a public name when the name is first used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Lists the public names, also those that are not loaded yet."""
    return sorted({*globals(), *__all__})
