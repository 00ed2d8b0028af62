"""How generated classes overlap those that people made."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lightning_priors.metrics.mutual_information import adjusted_mutual_information


class LabelOverlap(Metric):
    """The adjusted mutual information between generated classes and each human auxiliary task.

    Any division of the primary classes has much in common with any other, since both know the primary class; so it is
    measured within the primary classes too, where sub-classes by chance get 0. It counts for an image which sub-class
    is its most probable one.

    Args:
        sub_classes: Number of sub-classes psi of each of the C primary classes; their sum is A.

    >>> overlap = LabelOverlap(sub_classes=[2, 2])
    >>> overlap.update(torch.eye(4)[[0, 0, 1, 1, 2]], torch.tensor([[5], [5], [6], [6], [7]]))
    >>> overlap.compute()["within"]
    [1.0]
    """

    full_state_update = False
    is_differentiable = False
    choice: list[Tensor]
    aux_labels: list[Tensor]

    def __init__(self, sub_classes: Sequence[int]) -> None:
        super().__init__()
        self.sub_classes = list(sub_classes)
        self.add_state("choice", [], dist_reduce_fx="cat")  # rows and not counts: how many classes a task has is
        self.add_state("aux_labels", [], dist_reduce_fx="cat")  # not known beforehand

    def update(self, soft_labels: Tensor, aux_labels: Tensor) -> None:
        """Adds a batch.

        Args:
            soft_labels: (B, A) generated distributions.
            aux_labels: (B, T) int64 human labels, -1 = none.
        """
        self.choice.append(soft_labels.argmax(1))
        self.aux_labels.append(aux_labels)

    def compute(self) -> dict[str, list[float]]:
        """The overlap with each of the T tasks.

        Returns:
            ``all`` over all images; ``within`` the mean over the primary classes that the task divides, weighted by
            their images. nan where there is nothing to compare.
        """
        choice, aux_labels = dim_zero_cat(self.choice).cpu(), dim_zero_cat(self.aux_labels).cpu()
        tables = [self._table(choice, human) for human in aux_labels.T]
        return {
            "all": [float(adjusted_mutual_information(table)) for table in tables],
            "within": [self._within(table) for table in tables],
        }

    def _table(self, choice: Tensor, human: Tensor) -> Tensor:
        """How often each generated class (A rows) meets each human one."""
        choice, human = choice[human >= 0], human[human >= 0]
        kinds = int(human.max()) + 1 if len(human) else 1
        return (choice * kinds + human).bincount(minlength=sum(self.sub_classes) * kinds).view(-1, kinds)

    def _within(self, table: Tensor) -> float:
        total, images = 0.0, 0
        for block in torch.split(table, self.sub_classes):
            overlap = float(adjusted_mutual_information(block))
            if (block.sum(0) > 0).sum() > 1 and not math.isnan(overlap):
                total, images = total + int(block.sum()) * overlap, images + int(block.sum())
        return total / images if images else math.nan
