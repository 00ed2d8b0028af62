"""Technique 5: auxiliary tasks, such as finer labels, learned on the same backbone so that the primary task gains."""

from collections.abc import Mapping, Sequence
from typing import Literal

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torchmetrics import Metric

from lightning_priors.priors import AuxiliaryTasks
from lightning_priors.priors.auxiliary_tasks import Weighting
from lightning_priors.techniques.optimisation import PLAIN, Tuning
from lightning_priors.techniques.with_priors import ClassifierWithPriors


class Auxiliary(ClassifierWithPriors):
    """Trains a primary task and auxiliary tasks with labels of their own, on one backbone, by `AuxiliaryTasks`.

    Args:
        num_classes: Number of classes K of the primary task.
        aux_num_classes: Number of classes of each column of the batch's ``aux_labels``.
        aux_names: Names of these tasks; ``aux0``, ``aux1`` and so on if not given.
        tasks: The names of those to learn; all if not given.
        backbone: A timm model name, or ``tiny``.
        weights: ``none``, ``imagenet``, or the path of a checkpoint.
        mode: ``auxiliary``, in which only the primary task counts, or ``multitask``, in which all do.
        exclude_target: Whether images of the target class take no part in the auxiliary tasks; otherwise the target is
            an additional auxiliary class.
        target_class: Number of the target class in the primary task.
        aux_weight: Factor on the auxiliary losses, one for all or one for each task that is learned; 0 is plain
            training.
        loss: Of the auxiliary tasks: ``cross_entropy`` or ``focal``.
        weighting: ``fixed``, ``uncertainty``, ``dwa``, ``gradient_similarity``, ``gradient_similarity_unweighted``,
            ``lookahead`` or ``torchjd``.
        temperature: Of ``dwa``.
        lookahead_rate: Greatest change of a weight in a step of ``lookahead``.
        aggregator: Of ``torchjd``, such as ``UPGrad``, ``PCGrad`` or ``NashMTL``.
        gradient_layers: On how many of the backbone's last layers with weights gradients are compared.
        log_cosine: Whether the cosines are computed and logged where the weighting does not need them.
        tuning: How pretrained weights are tuned.
        lr: Learning rate of the default optimiser, AdamW.
        weight_decay: Weight decay of the default optimiser.
        warmup_epochs: Linear warm-up of the learning rate before its cosine, in epochs.
        optimizer: Replaces the default optimiser.
        scheduler: Replaces the default schedule.
        extra_metrics: Further metrics by name.

    Raises:
        PriorError: If names, tasks, target class or weights do not fit together, or torchjd is missing.

    >>> import torch
    >>> model = Auxiliary(num_classes=2, aux_num_classes=[5], aux_names=["species"], exclude_target=True)
    >>> batch = {"image": torch.zeros(2, 3, 32, 32), "label": torch.tensor([0, 1])}
    >>> list(model.step(batch | {"aux_labels": torch.tensor([[0], [3]])}).terms)
    ['primary', 'species']
    """

    def __init__(
        self,
        *,
        num_classes: int = 2,
        aux_num_classes: Sequence[int] = (),
        aux_names: Sequence[str] | None = None,
        tasks: Sequence[str] | None = None,
        backbone: str = "tiny",
        weights: str = "none",
        mode: Literal["auxiliary", "multitask"] = "auxiliary",
        exclude_target: bool = False,
        target_class: int = 0,
        aux_weight: float | Sequence[float] = 1.0,
        loss: Literal["cross_entropy", "focal"] = "cross_entropy",
        weighting: Weighting = "fixed",
        temperature: float = 2.0,
        lookahead_rate: float = 0.01,
        aggregator: str = "UPGrad",
        gradient_layers: int = 1,
        log_cosine: bool = False,
        tuning: Tuning = PLAIN,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        warmup_epochs: float = 0.0,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
        extra_metrics: Mapping[str, Metric] | None = None,
    ) -> None:
        auxiliary = AuxiliaryTasks(
            aux_names=aux_names,
            tasks=tasks,
            mode=mode,
            exclude_target=exclude_target,
            target_class=target_class,
            weight=aux_weight,
            loss=loss,
            weighting=weighting,
            temperature=temperature,
            lookahead_rate=lookahead_rate,
            aggregator=aggregator,
            gradient_layers=gradient_layers,
            log_cosine=log_cosine,
        )
        super().__init__(
            [auxiliary],
            num_classes=num_classes,
            aux_num_classes=aux_num_classes,
            backbone=backbone,
            weights=weights,
            lr=lr,
            weight_decay=weight_decay,
            warmup_epochs=warmup_epochs,
            optimizer=optimizer,
            scheduler=scheduler,
            tuning=tuning,
            extra_metrics=extra_metrics,
        )
        self.save_hyperparameters()
