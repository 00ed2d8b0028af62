"""A classifier that was trained with timm instead of this library."""

from collections.abc import Sequence

from lightning_priors.batch import IMAGE_MEAN, IMAGE_STD
from lightning_priors.errors import PriorError
from lightning_priors.nn.timm_classifier import classifier_of_timm
from lightning_priors.techniques import Pretrained
from lightning_priors.techniques.facts import Facts
from lightning_priors.trained.classifier import TrainedClassifier


def load_timm(name: str, weights: str, class_names: Sequence[str], image_size: int) -> TrainedClassifier:
    """Loads a classifier of timm with its weights, where its head is a global average pooling and a linear layer.

    Args:
        name: A timm model name.
        weights: A torch or safetensors file with all of its weights, head included.
        class_names: K names in the order of its logits.
        image_size: Side in pixels to which pictures are resized.

    Returns:
        The classifier on the CPU, with class activation maps that its own logits are the means of.

    Raises:
        PriorError: If the file does not fit, the head is something else, or it has another number of classes.

    >>> load_timm("resnet18", "no/such/file.pth", ["kakapo", "other"], 128)
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: weights 'no/such/file.pth' is no file; choose from none, imagenet
    """
    classifier = classifier_of_timm(name, weights)
    classes = len(classifier.head.bias)
    if classes != len(class_names):
        raise PriorError(f"{weights} has {classes} classes, the data {len(class_names)}: {', '.join(class_names[:5])}")
    technique = Pretrained(num_classes=classes, backbone=name)
    technique.classifier.load_state_dict(classifier.state_dict())
    facts = Facts(
        class_names=list(class_names),
        image_size=[image_size, image_size],
        mean=list(IMAGE_MEAN),
        std=list(IMAGE_STD),
        group_counts=[],
        data="",
    )
    return TrainedClassifier(technique, facts)
