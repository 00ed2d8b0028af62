"""A classifier that was trained with timm, as one whose logits are the mean of its class activation maps."""

import torch

from lightning_priors.errors import PriorError
from lightning_priors.nn.backbone import complete_network
from lightning_priors.nn.classifier import Classifier
from lightning_priors.nn.weights import read_state

TOLERANCE = 1e-3
"""Of the logits, relative to the greatest: the order of the sums differs."""


def classifier_of_timm(name: str, weights: str) -> Classifier:
    """Takes over a network of timm with its head, where that is a global average pooling and a linear layer.

    Pooling and linear layer commute, so the logits stay what they were and become means of class activation maps. That
    it is so is found by comparing the logits of a picture.

    Args:
        name: A timm model name.
        weights: A torch or safetensors file with all of its weights.

    Returns:
        The classifier in evaluation mode.

    Raises:
        PriorError: If the file does not fit, or the head is something else.

    >>> classifier_of_timm("resnet18", "no/such/file.pth")
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: weights 'no/such/file.pth' is no file; choose from none, imagenet
    """
    network, weight, bias = complete_network(name, read_state(weights))
    classifier = Classifier(len(weight), name).eval()
    refusal = PriorError(f"the head of timm's {name!r} is not global average pooling and one linear layer")
    if weight.shape != classifier.head.weight.shape:
        raise refusal
    body = classifier.backbone.model.state_dict()
    classifier.backbone.model.load_state_dict({key: network.state_dict()[key] for key in body})
    classifier.head.load_state_dict({"weight": weight, "bias": bias})
    size = network.pretrained_cfg["input_size"]  # type: ignore[index]  # a dict of timm's
    image = torch.rand(1, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, said = network(classifier.backbone.normalised(image)), classifier(image)[0]
    if expected.shape != said.shape or (expected - said).abs().max() > TOLERANCE * expected.abs().max().clamp(min=1):
        raise refusal
    return classifier
