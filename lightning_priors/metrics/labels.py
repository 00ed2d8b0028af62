"""How a label generator uses the sub-classes it may choose from, and how much its labels say of an image."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric


class LabelUsage(Metric):
    """What generated labels say of the images: their information, the sub-classes in use, and the confidence.

    The mutual information between image and label, within a primary class, is the entropy of the class's mean label
    less the mean entropy of the labels: 0 where all images get the same label, hard or soft; log2 psi bits where each
    image has one sub-class for certain and all of them are used alike.

    The sub-classes of primary class 0 come first, then those of class 1, and so on, as in MAXL (Liu et al. 2019,
    "Self-Supervised Generalisation with Meta Auxiliary Learning", section 3.3).

    Args:
        sub_classes: Number of sub-classes psi of each of the C primary classes; their sum is A.
        min_share: A sub-class is in use when it is the most probable one for at least this share of its primary
            class's images.

    >>> usage = LabelUsage(sub_classes=[2, 3])
    >>> labels = torch.tensor([[0.9, 0.1, 0, 0, 0], [0.2, 0.8, 0, 0, 0], [0, 0, 0.1, 0.7, 0.2]])
    >>> usage.update(labels, torch.tensor([0, 0, 1]))
    >>> usage.compute()["used"]
    tensor([2., 1.])
    >>> usage.compute()["information"].round(decimals=4)  # one image alone cannot be told from others
    tensor([0.3973, 0.0000])
    """

    full_state_update = False
    is_differentiable = False
    mass: Tensor
    chosen: Tensor
    confidence: Tensor
    doubt: Tensor
    count: Tensor

    def __init__(self, sub_classes: Sequence[int], min_share: float = 0.01) -> None:
        super().__init__()
        self.sub_classes, self.min_share = list(sub_classes), min_share
        generated, primary = sum(sub_classes), len(sub_classes)
        self.add_state("mass", torch.zeros(generated), dist_reduce_fx="sum")
        self.add_state("chosen", torch.zeros(generated), dist_reduce_fx="sum")
        self.add_state("confidence", torch.zeros(primary), dist_reduce_fx="sum")
        self.add_state("doubt", torch.zeros(primary), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(primary), dist_reduce_fx="sum")

    def update(self, soft_labels: Tensor, label: Tensor) -> None:
        """Adds a batch.

        Args:
            soft_labels: (B, A) generated distributions, zero outside the sub-classes of the image's primary class.
            label: (B,) int64 primary classes.
        """
        soft_labels = soft_labels.detach().to(self.mass.dtype)
        confidence, choice = soft_labels.max(1)
        ones = torch.ones_like(confidence)
        self.mass = self.mass + soft_labels.sum(0)
        self.chosen = self.chosen.index_add(0, choice, ones)
        self.confidence = self.confidence.index_add(0, label, confidence)
        self.doubt = self.doubt.index_add(0, label, -torch.xlogy(soft_labels, soft_labels).sum(1))
        self.count = self.count.index_add(0, label, ones)

    def compute(self) -> dict[str, Tensor]:
        """What the generator does with each primary class; nan for classes that never occurred.

        Returns:
            ``used`` (C,) sub-classes in use; ``entropy`` (C,) of the class's mean label, as a share of its maximum
            log psi, 1 = all alike; ``confidence`` (C,) mean probability of the most probable sub-class, and ``surety``
            (C,) the same from 0 = uniform to 1 = certain; ``information`` (C,) mutual information of image and label
            in bits, and ``information_share`` (C,) as a share of log2 psi; of each sub-class ``share`` (A,), that of
            the class's images for which it is the most probable one, and ``probability`` (A,), its mean over these
            images. Shares of nothing, with a single sub-class, are nan.
        """
        masses, choices = (torch.split(counts, self.sub_classes) for counts in (self.mass, self.chosen))
        shares = [choice / count for choice, count in zip(choices, self.count, strict=True)]
        used = torch.stack([(share >= self.min_share).sum() for share in shares])
        spread = torch.stack([_entropy(mass / mass.sum()) for mass in masses])
        psi = self.count.new_tensor(self.sub_classes)
        seen, confidence = self.count > 0, self.confidence / self.count
        information = torch.where(seen, (spread - self.doubt / self.count).clamp(min=0), torch.nan)
        return {
            "used": torch.where(seen, used, torch.nan),
            "entropy": torch.where(seen, torch.where(psi > 1, spread / psi.log(), 1.0), torch.nan),
            "confidence": confidence,
            "surety": (confidence - 1 / psi) / (1 - 1 / psi),
            "information": information / math.log(2),
            "information_share": information / psi.log(),
            "share": torch.cat(shares),
            "probability": torch.cat([mass / count for mass, count in zip(masses, self.count, strict=True)]),
        }


def _entropy(distribution: Tensor) -> Tensor:
    return -torch.xlogy(distribution, distribution).sum()
