"""The contract of a prior: what it requires, how it acts in the network's pass, which loss terms it adds."""

import inspect
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from lightning_priors.batch import PriorBatch
from lightning_priors.errors import PriorError, nearest
from lightning_priors.functional.guidance import MapLoss
from lightning_priors.import_path import import_attribute, is_at_hand
from lightning_priors.nn import CAMHead, Classifier


class Action(NamedTuple):
    """What a prior does to a map of features within the network."""

    replacement: Tensor | None = None
    """(B, C, i, j) what the network goes on with instead; None leaves the features. At most one prior may replace."""
    factor: Tensor | None = None
    """(B, i, j) what each cell is multiplied by; None is 1. The factors of several priors are multiplied."""
    memory: Any = None
    """What the prior wants to know again when it computes its loss terms."""


class Seen(NamedTuple):
    """What the network has seen in B images."""

    features: Tensor
    """(B, C, h, w) the last map, with all that priors did to it."""
    logits: Tensor
    """(B, K); in training the mean over the cells is weighted by `cell_weights`."""
    cam: Tensor
    """(B, K, h, w) the class activation maps, not weighted."""
    memories: tuple[Any, ...]
    """For each prior what it kept of the pass; None where it did not act."""
    head: CAMHead
    """What made logits and maps from the features."""
    cell_weights: Tensor | None = None
    """(B, h, w) in [0, 1]; None counts all cells alike."""
    primary: Tensor | None = None
    """() the cross entropy of the logits; in training."""
    epoch: float = math.inf
    """Epochs of training done so far, with fraction."""

    def classify(self, features: Tensor) -> Tensor:
        """Computes the logits (B, K) of features (B, C, h, w), in the way in which those of the pass were computed."""
        logits, cam = self.head(features)
        return logits if self.cell_weights is None else weighted_logits(cam, self.head.bias, self.cell_weights)


class Terms(NamedTuple):
    """What a prior adds to the training of a batch."""

    losses: Mapping[str, Tensor]
    """Terms () of the loss by name. One named ``primary`` takes the place of the primary task's cross entropy."""
    logged: Mapping[str, Tensor] = MappingProxyType({})
    """Further numbers () to be logged, by name."""


class Prior(nn.Module):
    """Prior knowledge that is put into a classifier while it is trained. It knows no Lightning.

    A subclass keeps each of its options in an attribute of the option's name, so that a checkpoint can hold them as
    plain values. It may override

    - `attach`, to build what depends on the network, such as a head on one of its maps;
    - `act`, to look at a map of features within the network, at the place `acts_at`, and weigh or replace it;
    - `cell_weights`, to let some cells count more than others in the training logits;
    - `terms`, to add loss terms.

    `lightning_priors.priors.training_step` runs them in any training loop.

    >>> class Confident(Prior):
    ...     def __init__(self, weight=1.0):
    ...         super().__init__()
    ...         self.weight = weight
    ...
    ...     def terms(self, batch, seen, memory):
    ...         return Terms({"largest_logit": -self.weight * seen.logits.amax(1).mean()})
    >>> Confident(0.5).options()
    {'weight': 0.5}
    """

    requires: ClassVar[Sequence[Sequence[str]]] = ()
    """For each need in training, the batch keys of which one is enough."""
    acts_at: int | Literal["last"] | None = None
    """Where `act` is called: at the last map, or at that of a stage, whose cells are at least so many pixels wide."""
    acts_in_evaluation = False
    """Whether the classifier answers through `act` in evaluation too, where there is the image alone."""
    replaces = False
    """Whether `act` may replace features; such a prior comes before those that weigh the same map."""
    reads_token_attention = False
    """Whether `act` needs the attention between the tokens of a vision transformer."""

    @property
    def active(self) -> bool:
        """Whether the prior changes anything; of one that does not, nothing but `attach` is ever called."""
        return True

    def attach(self, classifier: Classifier, aux_num_classes: Sequence[int]) -> None:
        """Builds what depends on the network; called once, before the first pass.

        Args:
            classifier: The network; not to be kept as a module of the prior's own.
            aux_num_classes: Number of classes of each column of ``aux_labels``, as far as known.

        Raises:
            PriorError: If the network does not suit.
        """

    def act(self, features: Tensor, batch: PriorBatch | None, log_attention: Tensor | None) -> Action:
        """Looks at a map of features within the network.

        Args:
            features: (B, C, i, j).
            batch: What is known about the images; None in evaluation.
            log_attention: (B, i, j) where `reads_token_attention`; otherwise None.
        """
        return Action()

    def cell_weights(self, batch: PriorBatch, size: Sequence[int], memory: Any) -> Tensor | None:
        """Computes how much each cell counts in the training logits.

        Args:
            batch: What is known about the images.
            size: Height h and width w of the last map.
            memory: That of `act`; None where the prior did not act.

        Returns:
            (B, h, w) in [0, 1], not zero everywhere; None where all cells count alike.
        """
        return None

    def terms(self, batch: PriorBatch, seen: Seen, memory: Any) -> Terms:
        """Computes the loss terms of a training batch.

        Args:
            batch: What is known about the images.
            seen: The pass of the network.
            memory: That of `act`; None where the prior did not act.
        """
        return Terms({})

    def maps(self, memory: Any) -> dict[str, Tensor]:
        """Gives what panels show beside the evidence, maps (B, i, j) in [0, 1] by name, from the memory of `act`."""
        return {}

    def learning_rate_factors(self) -> Iterable[tuple[float, Iterable[nn.Parameter]]]:
        """Gives the parameters of this prior that learn at another rate, with the factor on it."""
        return ()

    def start_epoch(self) -> None:
        """Is called before each epoch of training, also after a resumption."""

    def before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Is called when the gradients are those that the optimiser will use.

        Args:
            optimizer: Of the network.

        Raises:
            PriorError: If the prior cannot work with this optimiser.
        """

    def judge(self, batch: PriorBatch, seen: Seen, stage: str) -> None:
        """Counts a batch of an evaluation for metrics of the prior's own; the annotation serves only to judge.

        Args:
            batch: What is known about the images.
            seen: The pass of the network, which saw the image alone.
            stage: ``val`` or ``test``.
        """

    def verdict(self, stage: str) -> dict[str, Tensor]:
        """Gives the metrics of the prior's own at the end of an epoch, by name, and begins anew.

        Args:
            stage: ``train``, ``val`` or ``test``.
        """
        return {}

    def options(self) -> dict[str, Any]:
        """Gives the options of the constructor as plain values: from the attributes of the same names.

        Raises:
            PriorError: If there is no such attribute.
        """
        names = list(inspect.signature(type(self).__init__).parameters)[1:]
        missing = [name for name in names if not hasattr(self, name)]
        if missing:
            raise PriorError(f"{type(self).__name__} keeps no attribute {missing[0]!r} for its option of that name")
        return {name: _plain(getattr(self, name)) for name in names}


def needed_in_evaluation(priors: Iterable[Prior]) -> list[Prior]:
    """Lists those of some priors that the classifier answers through.

    >>> needed_in_evaluation([Prior()])
    []
    """
    return [prior for prior in priors if prior.active and prior.acts_in_evaluation]


def describe(prior: Prior) -> dict[str, Any]:
    """Describes a prior by its class path and options, in plain values that a checkpoint can hold.

    >>> from lightning_priors.priors import StartingPoint
    >>> describe(StartingPoint(weight=0.1))
    {'class_path': 'lightning_priors.priors.starting_point.StartingPoint', 'init_args': {'weight': 0.1}}
    """
    kind = type(prior)
    return {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": prior.options()}


def restore(description: Mapping[str, Any] | Prior) -> Prior:
    """Builds the prior that `describe` has described; a prior stays what it is.

    Nothing is imported: the class has to be a subclass of `Prior` in a module that the program has imported already, so
    that a checkpoint cannot name something else to run.

    Raises:
        PriorError: If it is no such class, or does not take these options.

    >>> restore({"class_path": "lightning_priors.priors.starting_point.StartingPoint", "init_args": {"weight": 0.1}})
    StartingPoint()
    >>> restore({"class_path": "os.system", "init_args": {"command": "true"}})
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: os.system is no prior in an imported module
    """
    if isinstance(description, Prior):
        return description
    if not isinstance(description, Mapping):
        raise PriorError(f"a prior is described by a table, not by {description!r}")
    path, options = str(description.get("class_path")), description.get("init_args") or {}
    module, _, name = path.rpartition(".")
    kind = getattr(sys.modules.get(module), name, None)
    if not (isinstance(kind, type) and issubclass(kind, Prior)):
        raise PriorError(f"{path} is no prior in an imported module")
    try:
        return kind(**options)
    except TypeError as error:
        raise PriorError(f"{name}: {error}") from error


def weighted_logits(cam: Tensor, bias: Tensor, cell_weights: Tensor) -> Tensor:
    """Computes logits from a weighted mean over the cells.

    Args:
        cam: (B, K, h, w) class activation maps.
        bias: (K,) of the head.
        cell_weights: (B, h, w) in [0, 1], not zero everywhere.

    Returns:
        (B, K); for weights of 1 the ordinary logits.

    >>> cam = torch.tensor([[[[4.0, 0.0]]]])
    >>> weighted_logits(cam, torch.zeros(1), torch.tensor([[[1.0, 0.0]]]))
    tensor([[4.]])
    """
    weights = cell_weights.unsqueeze(1)
    return (cam * weights).sum((2, 3)) / weights.sum((2, 3)) + bias


def loss_function(
    loss: MapLoss, known: Mapping[str, Callable[[Tensor, Tensor], Tensor]], kind: str
) -> Callable[[Tensor, Tensor], Tensor]:
    """Finds a loss by its name, or by the dotted name of a user's function; a function stays what it is.

    Args:
        loss: A name among `known`, the dotted name of a function of two tensors, or a function.
        known: The library's losses by name.
        kind: What the loss is called in a message, such as ``guidance loss``.

    Returns:
        The function. Where a checkpoint names a function of a module that the program has not imported, it is one that
        refuses to be called: a checkpoint imports nothing, and only training needs the loss.

    Raises:
        PriorError: If there is no such loss, its module cannot be imported, or it does not take two arguments.

    >>> loss_function("torch.nn.functional.mse_loss", {}, "guidance loss").__name__
    'mse_loss'
    """
    if callable(loss):
        return loss
    if loss in known:
        return known[loss]
    if "." not in loss:
        raise PriorError(f"there is no {kind} {loss!r}; {nearest(loss, known)}")
    if not is_at_hand(loss):
        return _not_imported(loss, kind)
    found = import_attribute(loss)
    if not inspect.isfunction(found):
        raise PriorError(f"{kind} {loss}: a function of two tensors is wanted, not an object of {type(found).__name__}")
    return found


def _not_imported(loss: str, kind: str) -> Callable[[Tensor, Tensor], Tensor]:
    """A function that only knows where the one is that it stands for."""

    def refuse(saliency: Tensor, prior: Tensor) -> Tensor:
        module = loss.rpartition(".")[0]
        raise PriorError(f"{kind} {loss}: a checkpoint names it and imports nothing; import {module} before loading")

    refuse.__module__, _, refuse.__qualname__ = loss.rpartition(".")
    return refuse


def _plain(value: Any) -> Any:
    """A value as a checkpoint can hold it: functions by their dotted names, sequences as lists."""
    if inspect.isfunction(value):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value
