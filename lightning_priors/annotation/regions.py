"""Regions found by a network: from a trained run, or by a head that learns from the annotated pictures first."""

from collections.abc import Callable, Iterator, Sequence

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_priors.annotation.annotator import Annotation, Annotator
from lightning_priors.data import PriorDataModule
from lightning_priors.data.transforms import evaluation_image
from lightning_priors.errors import PriorError
from lightning_priors.functional.cam import upsample
from lightning_priors.functional.guidance import attention_bce_loss, masked_mean
from lightning_priors.functional.prior_maps import prior_map
from lightning_priors.nn import Backbone, RegionFinder
from lightning_priors.techniques.with_priors import ClassifierWithPriors
from lightning_priors.trained.loading import best_device, trained_module

Finder = Callable[[Tensor], Tensor]
"""From images (B, 3, S, S) to how much of each cell is target, (B, h, w) in [0, 1]."""


def expected_iou(cover: Tensor) -> Tensor:
    """Computes the intersection over union with the truth that a map of probabilities expects of its own outline.

    The outline is where the map has at least 0.5. With independent cells the expected intersection is the sum of the
    map inside; the expected union is all of the outline and the sum of the map outside. Their quotient is the score.

    Args:
        cover: (B, h, w) in [0, 1].

    Returns:
        (B,) in [0, 1]; 0 where nothing reaches 0.5.

    >>> expected_iou(torch.tensor([[[1.0, 1.0, 0.0]], [[0.8, 0.4, 0.2]], [[0.4, 0.4, 0.4]]]))
    tensor([1.0000, 0.5000, 0.0000])
    """
    inside = cover >= 0.5
    union = torch.where(inside, 1.0, cover).sum((1, 2))
    return torch.where(inside, cover, 0.0).sum((1, 2)) / union.clamp(min=torch.finfo(union.dtype).tiny)


class FoundRegions(Annotator):
    """Gives masks by the head that finds regions for the prior `lightning_priors.priors.Restriction`.

    Its masks are soft: how much of each cell of an intermediate feature map is target, interpolated to the picture. The
    score is what the map expects its own intersection over union to be, see `expected_iou`.

    Args:
        checkpoint: Run folder or checkpoint of a technique that was trained with ``found_regions: true``. Without one,
            a head on a frozen backbone learns from the pictures of the training split whose mask, or boxes, are known.
        backbone: Whose features the head learns from: a timm model name, or ``tiny``; without a checkpoint.
        weights: Of the backbone: ``imagenet``, or the path of a checkpoint; without a checkpoint.
        image_size: Side of the square images in pixels; None takes that of the data. With a checkpoint, its own.
        epochs: How often the head sees each annotated picture.
        lr: Learning rate of the head.
        seed: Seed of the head's first weights; order and augmentation of the pictures are those of the data.

    Raises:
        PriorError: If there is no such checkpoint, or it finds no regions; in `learn`, if no training picture is
            annotated.

    >>> FoundRegions("no/such/run")
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: there is no run or checkpoint no/such/run
    """

    def __init__(
        self,
        checkpoint: str | None = None,
        backbone: str = "tf_efficientnet_lite0",
        weights: str = "imagenet",
        image_size: int | None = None,
        epochs: int = 10,
        lr: float = 3e-3,
        seed: int = 0,
    ) -> None:
        if epochs < 1:
            raise PriorError(f"epochs is at least 1, not {epochs}")
        self.backbone, self.weights = backbone, weights
        self.epochs, self.lr, self.seed = epochs, lr, seed
        self.device = best_device()
        self.size: Sequence[int] | None = None if image_size is None else (image_size, image_size)
        self.find: Finder | None = None
        if checkpoint is not None:
            self.find, self.size = finder_of(checkpoint, self.device)

    def learn(self, data: PriorDataModule) -> None:
        """Teaches the head, if there is no checkpoint."""
        if self.find is not None:
            return
        self.size = self.size or (data.image_size, data.image_size)
        batches = AnnotatedBatches(data, self.size[0])
        rank_zero_info(f"learning to find regions from {batches.count} annotated pictures, {self.epochs} epochs")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.find = taught(Backbone(self.backbone, self.weights).to(self.device), batches, self.epochs, self.lr)

    @torch.inference_mode()
    def annotate(self, images: list[Tensor]) -> list[Annotation]:
        """Finds the regions and interpolates them to the pictures' sizes."""
        if self.find is None or self.size is None:
            raise RuntimeError("call learn() before annotate(), or give a checkpoint")
        size = self.size
        cover = self.find(torch.stack([evaluation_image(image, size) for image in images]).to(self.device)).cpu()
        scores = expected_iou(cover).tolist()
        masks = [upsample(each[None], image.shape[1:])[0] for each, image in zip(cover, images, strict=True)]
        return [Annotation(score, mask) for score, mask in zip(scores, masks, strict=True)]


class AnnotatedBatches:
    """The annotated pictures of the training split in batches, augmented anew in each epoch as the data says.

    Args:
        data: After its `setup`.
        image_size: Side of the square images in pixels.

    Raises:
        PriorError: If no training picture may be annotated, or the data has neither masks nor boxes.
    """

    def __init__(self, data: PriorDataModule, image_size: int) -> None:
        shown = data.datasets["train"]
        transform = type(shown.transform)(
            image_size, data.augmentation, data.source.part_names, data.source.keypoint_names
        )
        indices = [index for index in shown.indices if index not in shown.without_priors]
        if not indices:
            raise PriorError("no training picture is annotated, and the regions are to be learned from some")
        self.dataset = type(shown)(data.source, indices, transform, seed=data.seed)
        if not {"mask", "part_boxes"} & self.dataset[0].keys():
            raise PriorError(f"{type(data.source).__name__} has neither masks nor boxes to learn regions from")
        self.batch_size, self.seed = data.batch_size, data.seed

    @property
    def count(self) -> int:
        """The number of pictures that may have an annotation."""
        return len(self.dataset)

    def epoch(self, number: int) -> Iterator[dict[str, Tensor]]:
        """Yields the batches of an epoch."""
        generator = torch.Generator().manual_seed(self.seed + number)
        order = torch.randperm(len(self.dataset), generator=generator).tolist()
        items = [(position, number) for position in order]
        yield from DataLoader(self.dataset, sampler=items, batch_size=self.batch_size)


def taught(backbone: Backbone, batches: AnnotatedBatches, epochs: int, lr: float) -> Finder:
    """Teaches a head on the intermediate map of a frozen backbone.

    Args:
        backbone: It stays as it is.
        batches: What to learn from.
        epochs: How often.
        lr: Learning rate at the beginning; it falls to zero along a cosine.

    Returns:
        The network that finds regions.
    """
    stage, channels = backbone.finer_stage()
    finder = RegionFinder(channels, num_regions=1).to(next(backbone.parameters()).device)
    network = FrozenFinder(backbone, stage, finder)
    optimizer = torch.optim.AdamW(finder.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    network.train()
    device = next(backbone.parameters()).device
    for epoch in range(epochs):
        for batch in batches.epoch(epoch):
            batch = {name: values.to(device) for name, values in batch.items()}
            logits = network.logits(batch["image"])
            target, valid = prior_map(batch, logits.shape[1:])
            loss = masked_mean(attention_bce_loss(logits, target), valid)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        schedule.step()
    return network.eval()


class FrozenFinder(nn.Module):
    """A head that finds regions on a stage of a backbone that is not trained.

    Args:
        backbone: It keeps to evaluation mode.
        stage: Number of the stage, see `Backbone.finer_stage`.
        finder: The head.
    """

    def __init__(self, backbone: Backbone, stage: int, finder: RegionFinder) -> None:
        super().__init__()
        self.backbone, self.stage, self.finder = backbone, stage, finder

    def train(self, mode: bool = True) -> "FrozenFinder":
        """Lets the head alone change its mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def logits(self, image: Tensor) -> Tensor:
        """Finds the regions (B, h, w) of images (B, 3, S, S), as logits."""
        kept: list[Tensor] = []

        def keep(features: Tensor) -> Tensor:
            kept.append(features)
            return features

        with torch.no_grad():
            self.backbone.forward_changed(image, {self.stage: keep})
        found: Tensor = self.finder(kept[0])
        return found.squeeze(1)

    def forward(self, image: Tensor) -> Tensor:
        """Finds how much of each cell is target, (B, h, w) in [0, 1]."""
        return self.logits(image).sigmoid()


def finder_of(checkpoint: str, device: torch.device) -> tuple[Finder, Sequence[int]]:
    """Takes what finds regions from a trained run.

    Args:
        checkpoint: Run folder or checkpoint.
        device: Where to compute.

    Returns:
        What finds regions, and the height and width of the images that it wants.

    Raises:
        PriorError: If there is no such run, or it finds no regions.

    >>> finder_of("no/such/run", torch.device("cpu"))
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: there is no run or checkpoint no/such/run
    """
    module, saved = trained_module(checkpoint)
    size = saved["facts"]["image_size"]
    module = module.eval().requires_grad_(False).to(device)
    probe = torch.zeros(1, 3, *size, device=device)
    if not isinstance(module, ClassifierWithPriors) or "region" not in module.explain_maps(probe):
        raise PriorError(f"{checkpoint} finds no regions; train CAMRestriction or Combined with found_regions true")
    return lambda image: module.explain_maps(image)["region"], size
