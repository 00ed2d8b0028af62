"""Images that a technique can learn in a second."""

import torch
from torch.utils.data import Dataset

from lightning_priors.batch import PriorSample


class Squares(Dataset[PriorSample]):
    """Images of noise with a square that is bright for class 1 and dark for class 0; the mask is the square."""

    def __init__(self, count: int, size: int = 32, keys: tuple[str, ...] = ("mask", "part_boxes", "group")) -> None:
        generator = torch.Generator().manual_seed(count)
        self.samples = [self._sample(index, size, keys, generator) for index in range(count)]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> PriorSample:
        return self.samples[index]

    def _sample(self, index: int, size: int, keys: tuple[str, ...], generator: torch.Generator) -> PriorSample:
        label = index % 2
        row, column = (int(value) for value in torch.randint(0, size // 2, (2,), generator=generator))
        mask = torch.zeros(size, size)
        mask[row : row + size // 2, column : column + size // 2] = 1
        image = torch.randn(3, size, size, generator=generator) / 2 + mask * (2 * label - 1)
        box = torch.tensor([[column, row, column + size // 2, row + size // 2]], dtype=torch.float32)
        optional = {
            "mask": mask,
            "part_boxes": box,
            "keypoints": box[:, :2] + size // 4,
            "group": torch.tensor(index % 4),
            "aux_labels": torch.tensor([index % 4, index % 3]),
        }
        validity = {
            "mask": ("mask_valid", torch.tensor(True)),
            "part_boxes": ("part_valid", torch.tensor([True])),
            "keypoints": ("keypoint_valid", torch.tensor([True])),
        }
        sample = {"image": image, "label": torch.tensor(label), "index": torch.tensor(index)}
        sample |= {key: optional[key] for key in keys}
        sample |= dict(validity[key] for key in keys if key in validity)
        return sample  # type: ignore[return-value]
