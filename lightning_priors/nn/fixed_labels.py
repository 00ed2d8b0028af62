"""Auxiliary labels that no generator makes: they stay with an image through the whole training."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_priors.batch import PriorBatch
from lightning_priors.errors import PriorError
from lightning_priors.functional.clustering import Clusters, find_clusters, random_sub_classes
from lightning_priors.functional.soft_labels import hierarchy
from lightning_priors.functional.task_weights import those_of_the_first_process

FixedKind = Literal["human", "random", "kmeans", "none"]
Labels = Literal["maxl", "human", "random", "kmeans", "none"]


def auxiliary_classes(
    labels: Labels, num_classes: int, subclasses: int | Sequence[int], aux_num_classes: Sequence[int], aux_task: int
) -> tuple[int, list[int]]:
    """How many auxiliary classes there are, and how many of them in each primary class.

    Args:
        labels: Where the labels come from.
        num_classes: Number of primary classes.
        subclasses: psi, one number or one for each primary class.
        aux_num_classes: Number of classes of each human auxiliary task.
        aux_task: Which of those is meant.

    Returns:
        A, and psi of each primary class; the second is empty for labels that do not keep to the primary classes.

    Raises:
        PriorError: If the numbers do not fit.

    >>> auxiliary_classes("maxl", 2, 5, [], 0), auxiliary_classes("human", 2, 5, [9], 0)
    ((10, [5, 5]), (9, []))
    """
    if labels == "none":
        return 0, []
    if labels == "human":
        if not 0 <= aux_task < len(aux_num_classes):
            raise PriorError(f"aux_task {aux_task} is none of the {len(aux_num_classes)} auxiliary tasks of the data")
        return aux_num_classes[aux_task], []
    try:
        counts = hierarchy(subclasses if isinstance(subclasses, int) else list(subclasses), num_classes)
    except ValueError as error:
        raise PriorError(f"subclasses: {error}") from error
    return sum(counts), counts


@dataclass
class FixedLabels:
    """One-hot auxiliary labels of images: given by humans, drawn at random, or clusters of what the images look like.

    Args:
        kind: ``human``, ``random``, ``kmeans``, or ``none``, no label at all.
        classes: Number of auxiliary classes A.
        sub_classes: Number of sub-classes of each primary class; for ``random`` and ``kmeans``.
        aux_task: Which column of the batch's ``aux_labels`` the labels ``human`` are.
        seed: Another seed draws other labels, and begins the clusters elsewhere.
        clusters: Those of the training images, once they are found.

    >>> batch = {"image": torch.zeros(3, 3, 8, 8), "label": torch.tensor([0, 1, 1]), "index": torch.arange(3)}
    >>> FixedLabels("random", classes=3, sub_classes=[1, 2], seed=0).of(batch)
    tensor([[ True, False, False],
            [False,  True, False],
            [False,  True, False]])
    """

    kind: FixedKind
    classes: int
    sub_classes: Sequence[int]
    aux_task: int = 0
    seed: int = 0
    clusters: Clusters | None = None

    def of(self, batch: PriorBatch) -> Tensor:
        """The labels (B, A) bool of the images of a batch; at most one in a row.

        Raises:
            PriorError: If there are no clusters yet.
        """
        index, label = batch["index"], batch["label"]
        if self.kind == "human":
            number = batch["aux_labels"][:, self.aux_task]
        elif self.kind == "random":
            number = random_sub_classes(index, label, self.sub_classes, self.seed)
        elif self.kind == "none":
            number = torch.full_like(label, -1)
        elif self.clusters is None:
            raise PriorError("there are no clusters yet: they are found when the training starts")
        else:
            clusters = Clusters(*(part.to(label.device) for part in self.clusters))
            number = clusters.of(index, label, batch["image"], self.sub_classes)
        return number[:, None] == torch.arange(self.classes, device=label.device)

    def find(self, batches: Iterable[PriorBatch], device: torch.device) -> None:
        """Finds the clusters in all training images, which come once; those of the first process are everybody's."""
        clusters = find_clusters(batches, self.sub_classes, self.seed)
        self.clusters = Clusters(*(those_of_the_first_process(part.to(device)) for part in clusters))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to keep: the seed, and the clusters as a list of tensors."""
        return {"seed": self.seed, "clusters": None if self.clusters is None else list(self.clusters)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` gave."""
        self.seed, clusters = state["seed"], state["clusters"]
        self.clusters = None if clusters is None else Clusters(*clusters)
