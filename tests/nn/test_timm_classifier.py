"""A classifier of timm keeps its logits when it becomes one with class activation maps."""

import pytest
import timm
import torch

from lightning_priors.batch import IMAGE_MEAN, IMAGE_STD
from lightning_priors.errors import PriorError
from lightning_priors.nn.timm_classifier import classifier_of_timm


def saved(name, folder, classes=3, prefix=""):
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=classes).eval()
    state = {prefix + key: value for key, value in network.state_dict().items()}
    torch.save({"state_dict": state} if prefix else state, folder / "weights.pth")
    return network, str(folder / "weights.pth")


@pytest.mark.parametrize(("name", "prefix"), [("resnet18", "module."), ("tf_efficientnet_lite0", "")])
def test_logits_stay_and_become_means_of_maps(name, prefix, tmp_path):
    network, file = saved(name, tmp_path, prefix=prefix)
    classifier = classifier_of_timm(name, file)
    image = torch.rand(2, 3, 96, 96)
    mean, std = (torch.tensor(network.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    own, ours = (torch.tensor(values).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    with torch.no_grad():
        logits, cam = classifier((image - own) / ours)
        torch.testing.assert_close(logits, network((image - mean) / std), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(cam.mean((2, 3)) + classifier.head.bias, logits)


def test_a_head_of_another_kind_is_refused(tmp_path):
    _, file = saved("vit_tiny_patch16_224", tmp_path)
    with pytest.raises(PriorError, match=r"^the head of timm's 'vit_tiny_patch16_224' is not global average pooling"):
        classifier_of_timm("vit_tiny_patch16_224", file)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("resnet19", "unknown timm model 'resnet19'; did you mean 'resnet18'?"),
        ("resnet34", "the weights do not fit 'resnet34': 96 of 218 entries, such as "),
        (
            "tf_efficientnet_lite0",
            "'tf_efficientnet_lite0' has no linear head in these weights: no entry classifier.weight",
        ),
    ],
)
def test_a_file_of_another_network_is_one_line(name, line, tmp_path):
    _, file = saved("resnet18", tmp_path)
    with pytest.raises(PriorError) as error:
        classifier_of_timm(name, file)
    assert str(error.value).startswith(line)
