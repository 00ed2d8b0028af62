"""The sources of images: data sets, file formats, and wrappers that add auxiliary tasks to a source."""

from lightning_priors.data.sources.annotated import Annotated
from lightning_priors.data.sources.base import RawSample, Source, Split, UnreadableImageError
from lightning_priors.data.sources.cifar100 import CIFAR100
from lightning_priors.data.sources.coco import Coco
from lightning_priors.data.sources.cub200 import CUB200
from lightning_priors.data.sources.cvat import Cvat
from lightning_priors.data.sources.drawn_split import DrawnSplit
from lightning_priors.data.sources.fashion_mnist import FashionMNIST
from lightning_priors.data.sources.folder import ImageFolderSource
from lightning_priors.data.sources.glyphs import Glyphs
from lightning_priors.data.sources.hugging_face import HuggingFaceFolder
from lightning_priors.data.sources.kakapo import Kakapo
from lightning_priors.data.sources.label_studio import LabelStudio
from lightning_priors.data.sources.labelme import LabelMe
from lightning_priors.data.sources.noisy_masks import NoisyMasks
from lightning_priors.data.sources.pets import OxfordPets
from lightning_priors.data.sources.random_labels import RandomLabels
from lightning_priors.data.sources.rare_groups import RareGroups
from lightning_priors.data.sources.sub_classes import ClusteredLabels, RandomSubClasses
from lightning_priors.data.sources.table import Table
from lightning_priors.data.sources.waterbirds import Waterbirds
from lightning_priors.data.sources.yolo import Yolo

__all__ = [
    "CIFAR100",
    "CUB200",
    "Annotated",
    "ClusteredLabels",
    "Coco",
    "Cvat",
    "DrawnSplit",
    "FashionMNIST",
    "Glyphs",
    "HuggingFaceFolder",
    "ImageFolderSource",
    "Kakapo",
    "LabelMe",
    "LabelStudio",
    "NoisyMasks",
    "OxfordPets",
    "RandomLabels",
    "RandomSubClasses",
    "RareGroups",
    "RawSample",
    "Source",
    "Split",
    "Table",
    "UnreadableImageError",
    "Waterbirds",
    "Yolo",
]
