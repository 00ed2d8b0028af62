"""The pass of a classifier in which priors act, and the training loss of a batch with their terms."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from itertools import count
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_priors.batch import PriorBatch
from lightning_priors.errors import PriorError
from lightning_priors.nn import Classifier
from lightning_priors.priors.prior import Prior, Seen, weighted_logits

PRIMARY = "primary"
"""The name of the primary task's cross entropy among the terms of a loss."""


class PriorStep(NamedTuple):
    """What the training step of a technique gives back; the base logs it."""

    loss: Tensor
    """() what is minimised."""
    logits: Tensor
    """(B, K) of the primary task."""
    terms: dict[str, Tensor]
    """Scalars that the loss is made of, logged as ``train/loss_<name>``."""
    logged: Mapping[str, Tensor] = MappingProxyType({})
    """Further scalars, logged as ``train/<name>``."""


def attach_priors(priors: Sequence[Prior], classifier: Classifier, aux_num_classes: Sequence[int] = ()) -> None:
    """Has each prior build what depends on the network.

    Each of them draws its first weights from the present state of the random generators and leaves that state as it
    was. So neither the order of the priors nor their number changes what is drawn elsewhere.

    Args:
        priors: Of one network.
        classifier: The network.
        aux_num_classes: Number of classes of each column of ``aux_labels``, as far as known.

    Raises:
        PriorError: If a prior does not suit the network, or two of them replace features.
    """
    replacing = [prior for prior in priors if prior.active and prior.replaces]
    if len(replacing) > 1:
        names = " and ".join(type(prior).__name__ for prior in replacing)
        raise PriorError(f"{names} both replace features within the network; one of them can")
    for prior in priors:
        with torch.random.fork_rng(devices=[]):
            prior.attach(classifier, aux_num_classes)
        if not prior.active:
            prior.requires_grad_(False)  # what gets no gradient would stall data-parallel training


def see(
    classifier: Classifier,
    priors: Sequence[Prior],
    image: Tensor,
    batch: PriorBatch | None = None,
    every: bool = False,
) -> Seen:
    """Classifies images, with the priors acting on the way.

    Args:
        classifier: The network.
        priors: Attached to it.
        image: (B, 3, H, W), normalised as `lightning_priors.batch` says.
        batch: What is known about the images, in training; None in evaluation, in which only the priors act that the
            classifier answers through.
        every: Whether all priors look at the network in evaluation too, for their maps.

    >>> classifier = Classifier(num_classes=2)
    >>> see(classifier, [], torch.zeros(1, 3, 64, 64)).cam.shape
    torch.Size([1, 2, 8, 8])
    """
    classifier.read_initial_weights()
    backbone = classifier.backbone
    acting = [
        number
        for number, prior in enumerate(priors)
        if prior.active and prior.acts_at is not None and (batch is not None or every or prior.acts_in_evaluation)
    ]
    memories: list[Any] = [None] * len(priors)
    stages: dict[int, _Acts] = {}
    last = _Acts(priors, batch, memories)
    for number in sorted(acting, key=lambda number: not priors[number].replaces):
        place = priors[number].acts_at
        if place == "last":
            last.numbers.append(number)
        elif place is not None:
            stage, _ = backbone.finer_stage(place)
            stages.setdefault(stage, _Acts(priors, batch, memories)).numbers.append(number)
    reads_attention = any(priors[number].reads_token_attention for number in last.numbers)
    with backbone.token_attention() if reads_attention else nullcontext() as attention:
        features = backbone.forward_changed(image, stages) if stages else backbone(image)
    features = last(features, None if attention is None else attention.log_attention(features))
    logits, cam = classifier.head(features)
    weights = None if batch is None else _cell_weights(priors, batch, cam.shape[2:], memories)
    if weights is not None:
        logits = weighted_logits(cam, classifier.head.bias, weights)
    return Seen(features, logits, cam, tuple(memories), classifier.head, weights)


def training_step(
    classifier: Classifier, priors: Sequence[Prior], batch: PriorBatch, epoch: float = float("inf")
) -> PriorStep:
    """Computes the training loss of a batch: the cross entropy of the primary task, and the terms of the priors.

    In a training loop of one's own::

        priors = [Restriction(weight=3.0)]
        attach_priors(priors, classifier)
        optimizer = torch.optim.AdamW([*classifier.parameters(), *(p for prior in priors for p in prior.parameters())])
        for batch in loader:
            training_step(classifier, priors, checked(batch)).loss.backward()
            ...

    Args:
        classifier: The network.
        priors: Attached to it.
        batch: As `lightning_priors.batch.checked` gives it.
        epoch: Epochs done so far, with fraction; priors that begin slowly follow it.

    >>> batch = {"image": torch.zeros(2, 3, 32, 32), "label": torch.tensor([0, 1])}
    >>> training_step(Classifier(num_classes=2), [], batch).loss.shape
    torch.Size([])
    """
    seen = see(classifier, priors, batch["image"], batch)
    return step_from(seen, priors, batch, epoch)


def step_from(seen: Seen, priors: Sequence[Prior], batch: PriorBatch, epoch: float) -> PriorStep:
    """Computes the training loss from a pass that was made with the batch; see `training_step`.

    Where two priors give a term of the same name, the second one's gets a number.
    """
    primary = F.cross_entropy(seen.logits, batch["label"])
    if not any(prior.active for prior in priors):
        return PriorStep(primary, seen.logits, {})
    seen = seen._replace(primary=primary, epoch=epoch)
    losses, logged = dict[str, Tensor](), dict[str, Tensor]()
    for prior, memory in zip(priors, seen.memories, strict=True):
        if not prior.active:
            continue
        added = prior.terms(batch, seen, memory)
        losses |= {_unused(name, losses): value for name, value in added.losses.items()}
        logged |= {_unused(name, logged): value for name, value in added.logged.items()}
    terms = {PRIMARY: losses.pop(PRIMARY, primary)} | losses
    return PriorStep(torch.stack(list(terms.values())).sum(), seen.logits, terms, logged)


class _Acts:
    """Calls the priors that act on one map, and keeps what they want to remember."""

    def __init__(self, priors: Sequence[Prior], batch: PriorBatch | None, memories: list[Any]) -> None:
        self.priors, self.batch, self.memories = priors, batch, memories
        self.numbers: list[int] = []

    def __call__(self, features: Tensor, log_attention: Tensor | None = None) -> Tensor:
        """Gives the features (B, C, i, j) that the network goes on with."""
        factors: list[Tensor] = []
        for number in self.numbers:  # those that replace come first
            action = self.priors[number].act(features, self.batch, log_attention)
            self.memories[number] = action.memory
            if action.replacement is not None:
                features = action.replacement.to(features.dtype)
            if action.factor is not None:
                factors.append(action.factor)
        for factor in factors:
            features = (features * factor.unsqueeze(1)).to(features.dtype)  # factors are float32 at least
        return features


def _cell_weights(
    priors: Sequence[Prior], batch: PriorBatch, size: Sequence[int], memories: Sequence[Any]
) -> Tensor | None:
    """The product of the weights that the priors give to the cells; where it vanishes all cells count alike."""
    both = zip(priors, memories, strict=True)
    given = [prior.cell_weights(batch, size, memory) for prior, memory in both if prior.active]
    weights = [each for each in given if each is not None]
    if len(weights) < 2:
        return weights[0] if weights else None
    product = torch.stack(weights).prod(0)
    return torch.where((product > 0).any(2).any(1)[:, None, None], product, 1.0)


def _unused(name: str, names: Collection[str]) -> str:
    """A name that is not there yet."""
    return next(other for number in count(1) if (other := f"{name}_{number}" if number > 1 else name) not in names)
