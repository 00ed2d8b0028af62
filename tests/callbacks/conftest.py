"""A small module and small data that the callbacks' tests share."""

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lightning_priors.nn import Classifier

OPTIONAL = ("mask", "part_boxes", "keypoints", "group")


class Pictures(Dataset):
    """Noise with a bright or a dark square; labels and groups are unevenly distributed."""

    def __init__(self, count: int, keys: tuple[str, ...] = OPTIONAL, size: int = 32) -> None:
        generator = torch.Generator().manual_seed(count)
        self.samples = [self._sample(index, count, keys, size, generator) for index in range(count)]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.samples[index]

    def _sample(self, index, count, keys, size, generator):
        label = int(index >= 2 * count // 3)  # sorted and uneven, as folders often are
        row, column = (int(value) for value in torch.randint(0, size // 2, (2,), generator=generator))
        mask = torch.zeros(size, size)
        mask[row : row + size // 2, column : column + size // 2] = 1
        box = torch.tensor([[column, row, column + size // 2, row + size // 2]], dtype=torch.float32)
        image = torch.randn(3, size, size, generator=generator) / 2 + mask * (2 * label - 1)
        known = torch.tensor(index > 0)  # the first has no annotation
        optional = {
            "mask": {"mask": mask * known, "mask_valid": known},
            "part_boxes": {"part_boxes": box * known, "part_valid": known[None]},
            "keypoints": {"keypoints": (box[:, :2] + size // 4) * known, "keypoint_valid": known[None]},
            "group": {"group": torch.tensor(2 * label + int(index % 3 == 0))},
            "aux_labels": {"aux_labels": torch.tensor([index % 3 + 3 * label if index > 1 else -1, label])},
        }
        sample = {"image": image, "label": torch.tensor(label), "index": torch.tensor(100 + index)}
        for key in keys:
            sample |= optional[key]
        return sample


class Looker(L.LightningModule):
    """What the callbacks ask of a module, without anything else."""

    def __init__(self, backbone: str = "tiny", num_classes: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        self.classifier = Classifier(num_classes, backbone)
        self.dropout = nn.Dropout(dropout)
        self.validated: dict[int, Tensor] = {}

    def explain(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.classifier(self.dropout(image))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.explain(batch["image"])[0], batch["label"])

    def validation_step(self, batch, batch_idx):
        logits = self.explain(batch["image"])[0]
        self.validated |= dict(zip(batch["index"].tolist(), logits.float(), strict=True))
        return logits

    test_step = validation_step

    def predict_step(self, batch, batch_idx):
        return {"index": batch["index"], "probabilities": self.explain(batch["image"])[0].softmax(1)}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


class Data(L.LightningDataModule):
    """Batches of `Pictures`, with the names of the classes."""

    def __init__(self, keys: tuple[str, ...] = OPTIONAL, size: int = 32) -> None:
        super().__init__()
        self.keys, self.size = keys, size
        self.classes = ["kakapo", "other bird"]

    def train_dataloader(self):
        return DataLoader(Pictures(24, self.keys, self.size), batch_size=8)

    def val_dataloader(self):
        return DataLoader(Pictures(18, self.keys, self.size), batch_size=5)

    test_dataloader = predict_dataloader = val_dataloader


@pytest.fixture
def looker() -> type[Looker]:
    return Looker


@pytest.fixture
def data() -> type[Data]:
    return Data


@pytest.fixture
def make_trainer(tmp_path):
    """Makes a quiet Trainer on the CPU that logs to a CSV file."""

    def make(*callbacks: L.Callback, **options) -> L.Trainer:
        L.seed_everything(0, verbose=False)
        defaults = {
            "logger": CSVLogger(tmp_path, "runs", version=0),
            "max_epochs": 2,
            "log_every_n_steps": 1,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
        options = {"accelerator": "cpu", "default_root_dir": tmp_path} | defaults | options
        return L.Trainer(callbacks=list(callbacks), **options)

    return make


@pytest.fixture
def run_dir(tmp_path):
    """The folder of the runs that `make_trainer` makes."""
    return tmp_path / "runs" / "version_0"
