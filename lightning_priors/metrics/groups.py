"""Accuracy within groups, such as label times background: the mean hides whom a classifier fails."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric


class GroupAccuracy(Metric):
    """The accuracy in each group.

    Args:
        num_groups: Number of groups G, or any number above it: group ids run from 0 to G - 1.

    Raises:
        IndexError: From `update`, if a group id is not below `num_groups` (on a GPU an assertion of the device).

    >>> accuracy = GroupAccuracy(num_groups=3)
    >>> accuracy.update(preds=torch.tensor([0, 1, 1]), target=torch.tensor([0, 0, 1]), group=torch.tensor([0, 0, 1]))
    >>> accuracy.compute()
    tensor([0.5000, 1.0000,    nan])
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    correct: Tensor
    count: Tensor

    def __init__(self, num_groups: int) -> None:
        super().__init__()
        self.add_state("correct", torch.zeros(num_groups, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(num_groups, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, group: Tensor) -> None:
        """Counts a batch.

        Args:
            preds: (B,) int64 classes, or (B, K) scores whose greatest is the class.
            target: (B,) int64 classes.
            group: (B,) int64 group ids.
        """
        predicted = preds.argmax(1) if preds.ndim == 2 else preds
        self.correct = self.correct.index_add(0, group, (predicted == target).long())
        self.count = self.count.index_add(0, group, torch.ones_like(target))

    def compute(self) -> Tensor:
        """(G,) the accuracy in each group; nan for groups that never occurred."""
        return self.correct / self.count


class WorstGroupAccuracy(GroupAccuracy):
    """The accuracy in the group that has the lowest (Sagawa et al. 2020, "Distributionally Robust Neural Networks").

    Args:
        num_groups: Any number above the highest group id. The default serves every data set here; it costs 16 KiB.

    >>> worst = WorstGroupAccuracy()
    >>> worst.update(preds=torch.tensor([0, 1, 1]), target=torch.tensor([0, 0, 1]), group=torch.tensor([0, 0, 1]))
    >>> worst.compute()
    tensor(0.5000)
    """

    def __init__(self, num_groups: int = 1024) -> None:
        super().__init__(num_groups)

    def compute(self) -> Tensor:
        """() the lowest accuracy of the groups that occurred; nan if none did."""
        accuracy = super().compute()
        lowest = accuracy.nan_to_num(nan=torch.inf).min()
        return torch.where(lowest.isinf(), torch.nan, lowest)


class WorstClassAccuracy(WorstGroupAccuracy):
    """The accuracy in the class that has the lowest; it needs no groups.

    >>> worst = WorstClassAccuracy()
    >>> worst.update(preds=torch.tensor([0, 1, 1]), target=torch.tensor([0, 0, 1]))
    >>> worst.compute()
    tensor(0.5000)
    """

    def update(self, preds: Tensor, target: Tensor, group: Tensor | None = None) -> None:
        """Counts a batch.

        Args:
            preds: (B,) int64 classes, or (B, K) scores whose greatest is the class.
            target: (B,) int64 classes.
            group: Not used.
        """
        super().update(preds, target, target)


class GroupAdjustedAccuracy(GroupAccuracy):
    """The mean of the groups' accuracies, weighted as the groups were in training.

    Where evaluation images have other shares of the groups, this is the accuracy on images like those of the training
    (Sagawa et al. 2020, appendix C.1, "average accuracy").

    Args:
        num_groups: Any number above the highest group id.

    >>> adjusted = GroupAdjustedAccuracy()
    >>> adjusted.update(preds=torch.tensor([0, 1, 1]), target=torch.tensor([0, 0, 1]), group=torch.tensor([0, 0, 1]))
    >>> adjusted.counts = [30, 10]
    >>> adjusted.compute()  # 3/4 of 0.5 and 1/4 of 1
    tensor(0.6250)
    """

    def __init__(self, num_groups: int = 1024) -> None:
        super().__init__(num_groups)
        self.counts: Sequence[int] = ()
        """The number of training images of each group; groups above the last have none."""

    def compute(self) -> Tensor:
        """() the weighted mean over the groups that occurred; nan where none of them was in training."""
        accuracy = super().compute()
        weights = torch.zeros_like(accuracy)
        weights[: len(self.counts)] = torch.tensor(self.counts, dtype=weights.dtype, device=weights.device)
        weights = torch.where(accuracy.isnan(), 0.0, weights)
        return (accuracy.nan_to_num() * weights).sum() / weights.sum()
