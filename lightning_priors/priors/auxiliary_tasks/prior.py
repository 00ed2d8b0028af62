"""Auxiliary tasks with labels of their own, learned on the classifier's backbone so that the primary task gains."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_priors.batch import PriorBatch
from lightning_priors.errors import PriorError
from lightning_priors.functional.distributed import mean_over_ranks
from lightning_priors.metrics import TaskAccuracy
from lightning_priors.nn import Backbone, Classifier
from lightning_priors.priors.auxiliary_tasks.heads import AuxiliaryHeads
from lightning_priors.priors.auxiliary_tasks.options import loss_factors, task_columns, task_names
from lightning_priors.priors.auxiliary_tasks.task_losses import (
    gradient_cosines,
    scale_gradient,
    task_gradients,
    task_losses,
    without_target,
)
from lightning_priors.priors.auxiliary_tasks.weighting import (
    DynamicWeightAverage,
    Fixed,
    GradientWeighting,
    LookAhead,
    Weighting,
    task_weighting,
)
from lightning_priors.priors.prior import Prior, Seen, Terms
from lightning_priors.ranges import check_counts, check_positive

PRIMARY = "primary"


class AuxiliaryTasks(Prior):
    """Learns auxiliary tasks with labels of their own on the classifier's backbone.

    It adds the losses of the auxiliary tasks to that of the primary task, each the mean over the images that have a
    label in it. In the mode ``auxiliary`` only the primary task counts: its weight is 1, it alone is evaluated, and the
    other heads are linear, so that what they learn has to be in the features. In the mode ``multitask`` every task
    counts: each of the others has a layer of its own, uncertainty and DWA weigh the primary task too, and the
    accuracies of all tasks are evaluated, as ``val/acc_<task>``.

    Weightings that look at gradients compare them with that of the primary task's cross entropy on the last layers of
    the backbone, averaged over all ranks. Their weights act on the gradient that goes back into the backbone; the heads
    learn at full speed, and the terms of the loss are those without the weights.

    It logs ``acc_<task>``, and where they are computed ``weight_<task>``, and ``cosine_<task>`` between the task's
    gradient and the primary one.

    Args:
        aux_num_classes: Number of classes of each column of the batch's ``aux_labels``; what the data says if not
            given.
        aux_names: Names of these tasks; ``aux0``, ``aux1`` and so on if not given.
        tasks: The names of those to learn; all if not given.
        mode: ``auxiliary`` or ``multitask``.
        exclude_target: Whether images of the target class take no part in the auxiliary tasks; otherwise the target is
            an additional auxiliary class. Taken out, the target's output stays but is never a label.
        target_class: Number of the target class in the primary task.
        weight: Factor on the auxiliary losses, one for all or one for each task that is learned; 0 is plain training.
        loss: ``cross_entropy``, or ``focal`` (Lin et al. 2017, with exponent 2), which counts images less the surer the
            network is of them.
        weighting: ``fixed``; ``uncertainty`` (Kendall et al. 2018); ``dwa``, dynamic weight average (Liu et al. 2019);
            ``gradient_similarity`` and ``gradient_similarity_unweighted`` (Du et al. 2018); ``lookahead``, weights that
            lower the primary loss one step ahead; ``torchjd``, an aggregator of that package. See
            `lightning_priors.priors.auxiliary_tasks.weighting`.
        temperature: Of ``dwa``.
        lookahead_rate: Greatest change of a weight in a step of ``lookahead``.
        aggregator: Of ``torchjd``, such as ``UPGrad``, ``PCGrad`` or ``NashMTL``.
        gradient_layers: On how many of the backbone's last layers with weights, such as convolutions, gradients are
            compared, together with the normalisations between them; a great number means all.
        log_cosine: Whether the cosines are computed and logged where the weighting does not need them.

    Raises:
        PriorError: If a number is out of its range, or torchjd is missing; in `attach`, if names, tasks
            and weights do not fit the data.

    >>> AuxiliaryTasks(aux_names=["species"], exclude_target=True).options()["aux_names"]
    ['species']
    """

    requires: ClassVar = [("aux_labels",)]
    factors: Tensor

    def __init__(
        self,
        aux_num_classes: Sequence[int] | None = None,
        aux_names: Sequence[str] | None = None,
        tasks: Sequence[str] | None = None,
        mode: Literal["auxiliary", "multitask"] = "auxiliary",
        exclude_target: bool = False,
        target_class: int = 0,
        weight: float | Sequence[float] = 1.0,
        loss: Literal["cross_entropy", "focal"] = "cross_entropy",
        weighting: Weighting = "fixed",
        temperature: float = 2.0,
        lookahead_rate: float = 0.01,
        aggregator: str = "UPGrad",
        gradient_layers: int = 1,
        log_cosine: bool = False,
    ) -> None:
        super().__init__()
        check_counts({"gradient_layers": gradient_layers})
        check_positive({"temperature": temperature, "lookahead_rate": lookahead_rate})
        self.aux_num_classes, self.aux_names, self.tasks = aux_num_classes, aux_names, tasks
        self.mode, self.exclude_target, self.target_class = mode, exclude_target, target_class
        self.weight, self.loss, self.weighting = weight, loss, weighting
        self.temperature, self.lookahead_rate, self.aggregator = temperature, lookahead_rate, aggregator
        self.gradient_layers, self.log_cosine = gradient_layers, log_cosine
        self.names: list[str] = []
        """Of the tasks that are learned."""
        self.columns: list[int] = []
        """Where their labels stand in ``aux_labels``."""
        self.available = 0
        """Number of columns of ``aux_labels``."""
        self._shared: list[nn.Parameter] = []

    @property
    def active(self) -> bool:
        """Whether a task has a weight."""
        return bool(self.weight) if isinstance(self.weight, int | float) else any(self.weight)

    def attach(self, classifier: Classifier, aux_num_classes: Sequence[int]) -> None:
        """Builds the heads and the weighting."""
        known = list(aux_num_classes if self.aux_num_classes is None else self.aux_num_classes)
        if not 0 <= self.target_class < len(classifier.head.bias):
            raise PriorError(f"target_class {self.target_class} is none of the {len(classifier.head.bias)} classes")
        available = task_names(len(known), self.aux_names)
        self.available, self.names = len(known), available if self.tasks is None else list(self.tasks)
        self.columns = task_columns(self.names, available)
        sizes = [known[column] for column in self.columns]
        factors = loss_factors(self.weight, len(sizes))
        if not self.active:
            return
        self._shared = last_layers(classifier.backbone, self.gradient_layers)
        count, multitask = len(sizes), self.mode == "multitask"
        self.heads = AuxiliaryHeads(classifier.backbone.num_features, sizes, branches=multitask)
        self.weigher = task_weighting(
            self.weighting, 1 + count, multitask, self.temperature, self.lookahead_rate, self.aggregator
        )
        self.register_buffer("factors", factors, persistent=False)
        self.accuracy = nn.ModuleDict({f"{stage}/acc": TaskAccuracy(count) for stage in ("train", "val", "test")})

    def terms(self, batch: PriorBatch, seen: Seen, memory: Any) -> Terms:
        """The weighted losses of all tasks, the primary one among them."""
        aux_labels = self.labels(batch)
        assert seen.primary is not None
        auxiliary = self.heads(seen.features)
        losses, present = task_losses(auxiliary, aux_labels, self.gamma)
        losses, present = torch.cat([seen.primary[None], losses]), torch.cat([torch.ones_like(present[:1]), present])
        self._accuracy("train").update(auxiliary, aux_labels)
        gradients = None
        if self.log_cosine or isinstance(self.weigher, GradientWeighting):
            gradients = self._gradients(losses)
        if isinstance(self.weigher, GradientWeighting):
            weights = self.weigher(gradients)
            primary = F.cross_entropy(seen.classify(scale_gradient(seen.features, weights[0])), batch["label"])
            heads, _ = task_losses(self.heads(seen.features, weights[1:]), aux_labels, self.gamma)
            losses = torch.cat([primary[None], heads])
        else:
            losses, weights = self.weigher(losses, present)
        losses = self.factors * losses
        return Terms(dict(zip([PRIMARY, *self.names], losses, strict=True)), self._logged(weights, gradients))

    def labels(self, batch: PriorBatch) -> Tensor:
        """Gives the labels (B, T - 1) of the tasks that are learned, -1 = none; without the target's if so wanted.

        Raises:
            PriorError: If the batch has another number of tasks than the data was said to have, or none is learned.
        """
        given = batch["aux_labels"]
        if given.shape[1] != self.available or not self.names:
            raise PriorError(
                f"the data has {given.shape[1]} auxiliary tasks, aux_num_classes {self.available}, "
                f"of which {len(self.names)} are to be learned"
            )
        labels = given[:, self.columns]
        return without_target(labels, batch["label"], self.target_class) if self.exclude_target else labels

    @property
    def gamma(self) -> float:
        """The exponent of the focal loss; 0 is cross entropy."""
        return 2.0 if self.loss == "focal" else 0.0

    def start_epoch(self) -> None:
        """Begins epochs alike, whether the last one ended just now or in a checkpoint."""
        if isinstance(self.weigher, DynamicWeightAverage):
            self.weigher.next_epoch()
        if isinstance(self.weigher, LookAhead):
            self.weigher.forget()

    def before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Lets weights that look ahead see how the optimiser will answer the gradients.

        Raises:
            PriorError: If the weights look ahead and the optimiser is none of SGD, Adam and AdamW.
        """
        if isinstance(self.weigher, LookAhead):
            try:
                self.weigher.look_at_step(self._compared(), optimizer)
            except (TypeError, ValueError) as error:
                raise PriorError(f"weighting lookahead: {error}") from error

    def judge(self, batch: PriorBatch, seen: Seen, stage: str) -> None:
        """Counts how often each task is right in the mode ``multitask``."""
        if self.mode == "multitask" and "aux_labels" in batch:
            self._accuracy(stage).update(self.heads(seen.features), self.labels(batch))

    def verdict(self, stage: str) -> dict[str, Tensor]:
        """Gives the accuracies of the tasks that had labels, ``acc_<task>``."""
        metric = self._accuracy(stage)
        if not metric.update_called:
            return {}
        accuracies = zip(self.names, metric.compute().flatten(), strict=True)  # torchmetrics makes one a scalar
        metric.reset()
        return {f"acc_{name}": value for name, value in accuracies if not value.isnan()}

    def _gradients(self, losses: Tensor) -> Tensor:
        """The gradients (T, n) of the losses (T,) on the backbone's last layers, averaged over all ranks."""
        compared = self._compared()
        if not compared:
            raise PriorError(f"the backbone's last {self.gradient_layers} layers are frozen: no gradients to compare")
        return mean_over_ranks(task_gradients(self.factors * losses, compared))

    def _compared(self) -> list[nn.Parameter]:
        """The parameters on which gradients are compared."""
        return [parameter for parameter in self._shared if parameter.requires_grad]

    def _logged(self, weights: Tensor, gradients: Tensor | None) -> dict[str, Tensor]:
        """What is known of a step besides its losses."""
        logged = {}
        if not isinstance(self.weigher, Fixed):
            named = zip([PRIMARY, *self.names], (self.factors * weights).detach(), strict=True)
            logged = {f"weight_{name}": weight for name, weight in named}
        if gradients is not None:
            cosines = zip(self.names, gradient_cosines(gradients), strict=True)
            logged |= {f"cosine_{name}": cosine for name, cosine in cosines}
        return logged

    def _accuracy(self, stage: str) -> TaskAccuracy:
        return cast(TaskAccuracy, self.accuracy[f"{stage}/acc"])


def last_layers(backbone: Backbone, layers: int) -> list[nn.Parameter]:
    """Lists the parameters of a backbone from the weights of a layer near the end onwards.

    Args:
        backbone: Of any kind.
        layers: How many layers with weights, such as convolutions; more than there are means all.

    >>> [tuple(parameter.shape) for parameter in last_layers(Backbone("tiny"), layers=1)]
    [(128, 96, 1, 1), (128,), (128,)]
    """
    parameters = [parameter for layer in backbone.layers() for parameter in layer]
    weights = [position for position, parameter in enumerate(parameters) if parameter.ndim > 1]
    return parameters[weights[-min(layers, len(weights))] :]
