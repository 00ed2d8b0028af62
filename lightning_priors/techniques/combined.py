"""Several priors in one classifier."""

from collections.abc import Mapping, Sequence

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torchmetrics import Metric

from lightning_priors.priors import Prior, restore
from lightning_priors.techniques.optimisation import PLAIN, Tuning
from lightning_priors.techniques.with_priors import ClassifierWithPriors


class Combined(ClassifierWithPriors):
    """Trains one classifier with any number of priors, such as a restriction, finer labels and pretrained weights.

    With one prior it is the technique of that prior, with none it is plain training.

    Args:
        priors: `Restriction`, `GuidedAttention`, `AuxiliaryTasks`, `StartingPoint`, or subclasses of
            `lightning_priors.priors.Prior` of your own; in any order.
        num_classes: Number of classes K of the primary task.
        aux_num_classes: Number of classes of each column of the batch's ``aux_labels``.
        backbone: A timm model name, or ``tiny``.
        weights: ``none``, ``imagenet``, or the path of a checkpoint of this library, a torch or a safetensors file.
        tuning: How pretrained weights are tuned.
        lr: Learning rate of the default optimiser, AdamW.
        weight_decay: Weight decay of the default optimiser.
        warmup_epochs: Linear warm-up of the learning rate before its cosine, in epochs.
        optimizer: Replaces the default optimiser.
        scheduler: Replaces the default schedule.
        extra_metrics: Further metrics by name.

    Raises:
        PriorError: If the backbone does not suit a prior, or two priors replace features.

    >>> from lightning_priors.priors import AuxiliaryTasks, Restriction
    >>> model = Combined([Restriction(weight=3.0), AuxiliaryTasks(exclude_target=True)], aux_num_classes=[5])
    >>> [prior["class_path"].rpartition(".")[2] for prior in model.hparams["priors"]]
    ['Restriction', 'AuxiliaryTasks']
    """

    def __init__(
        self,
        priors: Sequence[Prior] = (),
        *,
        num_classes: int = 2,
        aux_num_classes: Sequence[int] = (),
        backbone: str = "tiny",
        weights: str = "none",
        tuning: Tuning = PLAIN,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        warmup_epochs: float = 0.0,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
        extra_metrics: Mapping[str, Metric] | None = None,
    ) -> None:
        super().__init__(
            [restore(prior) for prior in priors],
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
