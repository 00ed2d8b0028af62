"""How the answers of a global and a local network become one."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lightning_priors.functional.cam import class_activation_map

FusionKind = Literal["mean", "weights", "concatenation", "gate"]


class Fusion(nn.Module):
    """Joins a global and a local branch; an image without a part falls back to the global branch alone.

    Every kind is linear in the two feature maps once the weights are known, so the fused logits have class activation
    maps too: `branch_cam` gives what each branch adds, and their means and the biases add up to the logits.

    Args:
        kind: ``mean`` of the logits; ``weights``, two learned numbers; ``concatenation`` of the features and a linear
            layer; ``gate``, weights for each image by a softmax of a linear map of the features.
        num_features: Channels of the global and of the local features.
        num_classes: Number of classes K.
        local_share: Weight in [0, 1] of the local branch in ``mean``, and at the beginning in ``weights`` and ``gate``;
            the global one has the rest.

    Raises:
        ValueError: If there is no such kind, or it cannot have such a share.

    >>> fusion = Fusion("mean", (4, 4), num_classes=2)
    >>> one, has_part = torch.ones(1, 4), torch.tensor([True])
    >>> fusion(one, torch.tensor([[2.0, 0.0]]), one, torch.tensor([[0.0, 4.0]]), has_part)
    (tensor([[1., 2.]]), tensor([[0.5000, 0.5000]]))
    """

    def __init__(
        self, kind: FusionKind, num_features: tuple[int, int], num_classes: int, local_share: float = 0.5
    ) -> None:
        super().__init__()
        if kind not in get_args(FusionKind):
            raise ValueError(f"no fusion {kind!r}; there are {', '.join(get_args(FusionKind))}")
        if kind == "concatenation" and local_share != 0.5:
            raise ValueError("fusion concatenation has no local_share; mean, weights and gate have")
        if not 0 <= local_share <= 1 or (kind == "gate" and local_share in (0, 1)):
            raise ValueError(f"local_share is between 0 and 1, not {local_share}")
        self.kind, self.num_features, self.local_share = kind, num_features, local_share
        if kind == "weights":
            self.weights = nn.Parameter(torch.tensor([1 - local_share, local_share]))
        elif kind == "concatenation":
            self.classify = nn.Linear(sum(num_features), num_classes)
        elif kind == "gate":
            self.gate = nn.Linear(sum(num_features), 2)
            nn.init.zeros_(self.gate.weight)  # begins with the same weights for all images
            self.gate.bias.data.copy_(torch.tensor([math.log(1 - local_share), math.log(local_share)]))

    def forward(
        self,
        global_features: Tensor,
        global_logits: Tensor,
        local_features: Tensor,
        local_logits: Tensor,
        has_part: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Fuses the answers of the two branches.

        Args:
            global_features: (B, C) mean of the global feature map.
            global_logits: (B, K).
            local_features: (B, D) mean of the local feature maps; anything finite where there is no part.
            local_logits: (B, K), likewise.
            has_part: (B,) bool.

        Returns:
            The fused logits (B, K), and the weights of the two branches (B, 2): for ``concatenation`` 1 and 1, and
            without a part always 1 and 0.
        """
        features = torch.cat([global_features, local_features], 1)
        if self.kind == "gate":
            weights = self.gate(features).softmax(1)
        elif self.kind == "weights":
            weights = self.weights.expand(features.shape[0], 2)
        elif self.kind == "mean":
            weights = features.new_tensor([1 - self.local_share, self.local_share]).expand(features.shape[0], 2)
        else:
            weights = features.new_ones(features.shape[0], 2)
        weights = torch.where(has_part[:, None], weights, weights.new_tensor([1.0, 0.0]))
        if self.kind == "concatenation":
            return torch.where(has_part[:, None], self.classify(features), global_logits), weights
        return weights[:, :1] * global_logits + weights[:, 1:] * local_logits, weights

    def branch_cam(self, branch: Literal[0, 1], features: Tensor, cam: Tensor, weights: Tensor) -> Tensor:
        """Computes what a branch adds to the fused logits, cell by cell.

        Args:
            branch: 0 the global one, 1 the local one.
            features: (N, C, h, w) its feature map.
            cam: (N, K, h, w) its own class activation map.
            weights: (N, 2) from `forward`, of the image that each map belongs to.

        Returns:
            (N, K, h, w).
        """
        if self.kind != "concatenation":
            return cam * weights[:, branch, None, None, None]
        start = branch * self.num_features[0]
        joined = class_activation_map(features, self.classify.weight[:, start : start + self.num_features[branch]])
        has_part = weights[:, 1, None, None, None] > 0
        return torch.where(has_part, joined, cam * weights[:, branch, None, None, None])
