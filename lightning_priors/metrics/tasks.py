"""The accuracy of each of several tasks, some of whose labels are absent."""

import torch
from torch import Tensor

from lightning_priors.metrics.groups import GroupAccuracy


class TaskAccuracy(GroupAccuracy):
    """The accuracy of each auxiliary task over the images that have a label in it.

    Args:
        tasks: Number of tasks A.

    >>> accuracy = TaskAccuracy(tasks=2)
    >>> accuracy.update(torch.tensor([[[1.0, 0.0], [1.0, 0.0]]]), torch.tensor([[0, -1]]))
    >>> accuracy.compute()
    tensor([1., nan])
    """

    def __init__(self, tasks: int) -> None:
        super().__init__(tasks + 1)  # the images without a label are counted in a place of their own, and not reported

    def update(self, logits: Tensor, labels: Tensor) -> None:  # type: ignore[override]  # other inputs, same states
        """Counts a batch.

        Args:
            logits: (B, A, K), -inf for classes that a task does not have.
            labels: (B, A) int64, -1 = no label.
        """
        unlabelled = len(self.count) - 1
        task = torch.arange(unlabelled, device=labels.device).expand_as(labels)
        task = torch.where(labels < 0, unlabelled, task)
        super().update(logits.argmax(2).flatten(), labels.flatten(), task.flatten())

    def compute(self) -> Tensor:
        """(A,) the accuracy of each task; nan for tasks without any label."""
        return super().compute()[:-1]
