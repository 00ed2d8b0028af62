"""The heads of the tasks beside the primary one."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_priors.priors.auxiliary_tasks.task_losses import scale_gradient


class AuxiliaryHeads(nn.Module):
    """One classification head for each of A auxiliary tasks, all on one feature map.

    A head is a linear map of the mean over the cells, as in `CAMHead`; all of them together are one matrix product, so
    that hundreds of binary attributes cost little. With branches each task has a layer of its own before that, a 1x1
    convolution with as many channels and ReLU.

    Making one draws its weights without touching the state of the random generators: what is drawn afterwards is the
    same as without auxiliary tasks.

    Args:
        num_features: Channels C of the feature map.
        num_classes: Number of classes of each task.
        branches: Whether each task has a layer of its own.

    >>> heads = AuxiliaryHeads(num_features=8, num_classes=[3, 2])
    >>> heads(torch.rand(4, 8, 2, 2))[0, 1, 2]
    tensor(-inf, grad_fn=<SelectBackward0>)
    """

    _columns: Tensor

    def __init__(self, num_features: int, num_classes: Sequence[int], branches: bool = False) -> None:
        super().__init__()
        self.num_classes = list(num_classes)
        self.most = max(self.num_classes, default=0)
        with torch.random.fork_rng(devices=[]):
            bound = 1 / math.sqrt(num_features)  # what nn.Linear does
            self.weight = nn.Parameter(torch.empty(sum(self.num_classes), num_features).uniform_(-bound, bound))
            self.bias = nn.Parameter(torch.zeros(sum(self.num_classes)))
            self.branches = nn.ModuleList(
                nn.Conv2d(num_features, num_features, 1) for _ in self.num_classes if branches
            )
        columns = [task * self.most + number for task, count in enumerate(self.num_classes) for number in range(count)]
        self.register_buffer("_columns", torch.tensor(columns, dtype=torch.int64), persistent=False)

    def forward(self, features: Tensor, shares: Tensor | None = None) -> Tensor:
        """Classifies a feature map for all tasks.

        Args:
            features: (B, C, h, w).
            shares: (A,) what each task's gradient is multiplied by where it goes back from its head into the features;
                1 where not given. The gradient of the heads themselves stays as it is.

        Returns:
            (B, A, K) with the greatest number of classes K, -inf for the classes that a task does not have.
        """
        if shares is None and not self.branches:
            logits = F.linear(features.mean((2, 3)), self.weight, self.bias)
        else:
            heads = zip(
                torch.split(self.weight, self.num_classes), torch.split(self.bias, self.num_classes), strict=True
            )
            seen = zip(self._seen(features, shares), heads, strict=True)
            logits = torch.cat([F.linear(mean, weight, bias) for mean, (weight, bias) in seen], 1)
        tasks = len(self.num_classes)
        padded = logits.new_full((len(logits), tasks * self.most), -torch.inf).index_copy(1, self._columns, logits)
        return padded.view(len(logits), tasks, self.most)

    def _seen(self, features: Tensor, shares: Tensor | None) -> list[Tensor]:
        """What the linear map of each task gets, (B, C)."""
        mean = features if self.branches else features.mean((2, 3))
        parts = [mean] * len(self.num_classes) if shares is None else [scale_gradient(mean, share) for share in shares]
        if not self.branches:
            return parts
        return [branch(part).relu().mean((2, 3)) for branch, part in zip(self.branches, parts, strict=True)]
