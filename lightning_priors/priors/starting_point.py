"""The network is kept near the weights that it started from."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_priors.batch import PriorBatch
from lightning_priors.errors import PriorError
from lightning_priors.nn import Backbone, Classifier
from lightning_priors.priors.prior import Prior, Seen, Terms
from lightning_priors.ranges import check_not_negative


def l2_starting_point(parameters: Sequence[Tensor], starting_point: Sequence[Tensor]) -> Tensor:
    """Computes half the squared distance of weights to those that the training started from.

    L2-SP (Li, Grandvalet and Davoine 2018, "Explicit Inductive Bias for Transfer Learning with Convolutional
    Networks"), the part of the penalty for the layers that the two tasks share.

    Args:
        parameters: Tensors of any shape.
        starting_point: The same number of tensors of the same shapes.

    Returns:
        A scalar ().

    >>> l2_starting_point([torch.tensor([1.0, 2.0])], [torch.tensor([0.0, 0.0])])
    tensor(2.5000)
    """
    squares = [(now - start).square().sum() for now, start in zip(parameters, starting_point, strict=True)]
    return sum(squares[1:], squares[0]) / 2


class StartingPoint(Prior):
    """Keeps the backbone near its pretrained weights: `weight` times `l2_starting_point`.

    The weights file is read anew when training begins, because a resumed run has already left its starting point. A
    classifier that was trained does not need the file.

    Args:
        weight: Weight of the penalty.

    Raises:
        PriorError: If the weight is negative; in `attach`, if the backbone starts from no weights file.

    >>> StartingPoint(weight=0.01).active
    True
    """

    def __init__(self, weight: float = 0.01) -> None:
        super().__init__()
        check_not_negative({"weight": weight})
        self.weight = weight
        self._backbone: list[Backbone] = []  # in a list, so that it is no module of the prior's own
        self._start: list[Tensor] = []

    @property
    def active(self) -> bool:
        """Whether the penalty has a weight."""
        return self.weight != 0

    def attach(self, classifier: Classifier, aux_num_classes: Sequence[int]) -> None:
        """Remembers the backbone."""
        if self.active and classifier.backbone.weights == "none":
            raise PriorError("a starting point (l2_sp) needs pretrained weights: set weights to other than none")
        self._backbone = [classifier.backbone]

    def terms(self, batch: PriorBatch, seen: Seen, memory: Any) -> Terms:
        """The weighted penalty."""
        (backbone,) = self._backbone
        now = [parameter for layer in backbone.layers() for parameter in layer]
        if not self._start:
            with torch.random.fork_rng(devices=[]):
                fresh = Backbone(backbone.name, backbone.weights).to(now[0].device, now[0].dtype)
            self._start = [parameter.detach() for layer in fresh.layers() for parameter in layer]
        return Terms({"l2_sp": self.weight * l2_starting_point(now, self._start)})
