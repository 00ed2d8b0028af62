"""The order, the shares and the batches of the images: every epoch shows each image."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, DistributedSampler, Sampler

from lightning_priors.batch import PriorSample


class EpochSampler(DistributedSampler[tuple[int, int]]):
    """Shuffles the images by seed and epoch, and tells the dataset the epoch of each image.

    Lightning calls `set_epoch` before each epoch. In a plain training loop each pass takes the next epoch by itself.
    Each of several ranks draws its own share of the images. The shares are equally large: if the number of images
    is no multiple of the number of ranks, a few images are drawn twice.

    Args:
        dataset: The images; only their number is used.
        seed: Seed of the order.
        world_size: Number of ranks.
        rank: Number of this rank, from 0.
        weights: Of each image, to draw as many images as there are with replacement; None shows each image once.

    Example:
        >>> sampler = EpochSampler([10, 20, 30], seed=1)
        >>> sorted(sampler), sorted(sampler)
        ([(0, 0), (1, 0), (2, 0)], [(0, 1), (1, 1), (2, 1)])
    """

    def __init__(
        self,
        dataset: "Dataset[PriorSample] | Sequence[object]",
        seed: int,
        world_size: int = 1,
        rank: int = 0,
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=True, seed=seed)  # type: ignore[arg-type]
        self.weights = weights

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yields (position in the dataset, epoch) for each image of this rank's share."""
        epoch = self.epoch
        positions: Iterator[int] = super().__iter__() if self.weights is None else iter(self._drawn(self.weights))  # type: ignore[assignment]
        self.epoch += 1
        return ((position, epoch) for position in positions)

    def _drawn(self, weights: Sequence[float]) -> list[int]:
        """Draws the positions of this rank's share of an epoch."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        drawn = torch.multinomial(torch.tensor(weights), self.total_size, replacement=True, generator=generator)
        return drawn[self.rank :: self.num_replicas].tolist()


class ShareSampler(DistributedSampler[int]):
    """Gives each of several ranks its share of the images, in their order and each image to one rank alone.

    Torch's own sampler makes the shares equally large by giving some images to two ranks, and metrics would count them
    twice. Here shares differ by one image at most.

    Args:
        dataset: The images; only their number is used.
        world_size: Number of ranks.
        rank: Number of this rank, from 0.

    Example:
        >>> [list(ShareSampler(range(5), world_size=2, rank=rank)) for rank in range(2)]
        [[0, 2, 4], [1, 3]]
    """

    def __init__(self, dataset: "Dataset[PriorSample] | Sequence[object]", world_size: int, rank: int) -> None:
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=False)  # type: ignore[arg-type]
        self.positions = range(rank, len(dataset), world_size)  # type: ignore[arg-type]  # a dataset has a length
        self.num_samples = len(self.positions)

    def __iter__(self) -> Iterator[int]:
        """Yields the position of each image of this rank's share."""
        return iter(self.positions)


class NoSingletonBatchSampler(BatchSampler):
    """Cuts an order of images into batches; a single image that is left over joins the batch before it.

    Batch normalisation cannot train on a batch of one image, where it may have one value per channel. All other batches
    are those of `torch.utils.data.BatchSampler`. With ``batch_size=1``, or with one image in all, batches of one image
    stay. The arguments are those of torch's class, because Lightning passes these when it replaces the sampler.

    Args:
        sampler: The order of the images.
        batch_size: Number of images in each batch but the last.
        drop_last: Whether to leave out the images of an incomplete last batch.

    Example:
        >>> list(NoSingletonBatchSampler(range(7), batch_size=3, drop_last=False))
        [[0, 1, 2], [3, 4, 5, 6]]
    """

    def __iter__(self) -> Iterator[list[int]]:
        """Yields the positions of each batch."""
        waiting: list[int] = []  # one batch, since those of a whole epoch are an object for each image
        for batch in super().__iter__():
            if len(batch) == 1 and self._joins_the_last():
                waiting += batch
                continue
            if waiting:
                yield waiting
            waiting = batch
        if waiting:
            yield waiting

    def __len__(self) -> int:
        """Returns the number of batches."""
        return super().__len__() - int(self._joins_the_last())

    def _joins_the_last(self) -> bool:
        images = len(self.sampler)  # type: ignore[arg-type]
        return not self.drop_last and images > self.batch_size > 1 == images % self.batch_size


class TrainDataLoader(DataLoader[PriorSample]):
    """Loads with a batch sampler, and shows the sampler inside of it as `sampler`.

    With a batch sampler torch's own loader sets `sampler` to a sequential one that it never uses. Lightning reads
    `sampler` to decide whether it must distribute the images over ranks, and whether it must stop the shuffling for
    ``overfit_batches``. It would replace an `EpochSampler` in the first case and leave it in the second, both wrongly.

    Example:
        >>> order = EpochSampler([10, 20, 30], seed=1)
        >>> batches = NoSingletonBatchSampler(order, batch_size=2, drop_last=False)
        >>> TrainDataLoader([10, 20, 30], batch_sampler=batches).sampler is order
        True
    """

    @property
    def sampler(self) -> Sampler[object]:
        """The sampler from whose order the batches are cut."""
        order: Sampler[object] = self.batch_sampler.sampler  # type: ignore[union-attr]
        return order

    @sampler.setter
    def sampler(self, _: object) -> None:
        """Ignores the sequential sampler that torch's constructor sets."""
