"""Layers, feature maps and statistics of the backbones."""

import pytest
import torch

from lightning_priors.errors import PriorError
from lightning_priors.nn import Backbone


def test_an_unknown_name_names_the_nearest_right_one() -> None:
    with pytest.raises(PriorError, match=r"unknown backbone 'resnet81'; did you mean 'resnet18'\?"):
        Backbone("resnet81")


@pytest.mark.parametrize("name", ["tiny", "resnet18", "mobilenetv3_small_100", "vit_tiny_patch16_224"])
def test_layers_hold_each_trainable_parameter_once_from_image_to_head(name: str) -> None:
    backbone = Backbone(name)
    layers = backbone.layers()
    listed = [id(parameter) for layer in layers for parameter in layer]
    assert len(set(listed)) == len(listed)
    assert set(listed) == {id(p) for p in backbone.model.parameters() if p.requires_grad}
    first = next(backbone.model.parameters())
    assert any(first is parameter for parameter in layers[0])


def test_every_trainable_parameter_gets_a_gradient() -> None:
    """Layers behind the pooling take no part; left trainable they would stall DistributedDataParallel."""
    backbone = Backbone("mobilenetv3_small_100")
    backbone(torch.randn(2, 3, 64, 64)).square().sum().backward()
    trainable = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None for parameter in trainable)
    assert len(trainable) < len(list(backbone.parameters()))


def test_frozen_statistics_stay_through_training_mode() -> None:
    image = torch.randn(4, 3, 32, 32)
    for freeze, changes in ((False, True), (True, False)):
        backbone = Backbone("tiny")
        backbone.freeze_statistics = freeze
        before = backbone.model.state_dict()["blocks.0.1.running_mean"].clone()
        backbone.train()(image)
        assert torch.equal(before, backbone.model.state_dict()["blocks.0.1.running_mean"]) is not changes


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("tiny", (128, 8, 8)),
        ("resnet18", (256, 4, 4)),
        ("tf_efficientnet_lite0", (112, 4, 4)),
        ("swin_tiny_patch4_window7_224", (384, 4, 4)),
        ("vit_tiny_patch16_224", (192, 4, 4)),
    ],
)
def test_the_finer_map_comes_with_the_very_features_of_the_plain_pass(name: str, shape: tuple[int, ...]) -> None:
    backbone, image = Backbone(name).eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features, finer = backbone.forward_with_finer(image)
        assert torch.equal(features, backbone(image))
    assert finer.shape == (2, *shape)
    assert backbone.finer_stage()[1] == shape[0]


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "convnext_atto", "swin_tiny_patch4_window7_224"])
@pytest.mark.parametrize("stride", [4, 8, 16])
def test_the_finer_map_is_as_fine_as_asked(name: str, stride: int) -> None:
    backbone, image = Backbone(name).eval(), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        _, finer = backbone.forward_with_finer(image, stride)
    assert finer.shape == (1, backbone.finer_stage(stride)[1], 64 // stride, 64 // stride)


@pytest.mark.parametrize(
    "name",
    ["tiny", "resnet18", "tf_efficientnet_lite0", "vgg11", "convnext_atto", "test_vit", "swin_tiny_patch4_window7_224"],
)
@pytest.mark.parametrize("stride", [8, 16])
def test_what_is_weighted_is_the_finer_map_and_nothing_else(name: str, stride: int) -> None:
    """The weight 1 is the plain network; a cell of the weight 0 tells nothing of what it held.

    A vision transformer's last map is weighted as its final normalisation leaves it.
    """
    backbone, image, seen = Backbone(name).eval(), torch.randn(2, 3, 64, 64), []

    def keep(finer: torch.Tensor) -> torch.Tensor:
        seen.append(finer)
        return finer * torch.ones_like(finer[:, :1])

    with torch.no_grad():
        features, finer = backbone.forward_with_finer(image, stride)
        assert torch.equal(backbone.forward_weighted(image, keep, stride), features)
        torch.testing.assert_close(seen, [features if name == "test_vit" else finer])
        weight = (torch.rand_like(finer[:, :1]) < 0.5).to(finer)
        hidden = (1 - weight) * torch.randn_like(finer)
        weighted = backbone.forward_weighted(image, lambda finer: weight * finer, stride)
        assert torch.equal(backbone.forward_weighted(image, lambda finer: weight * (finer + hidden), stride), weighted)
        assert not torch.allclose(weighted, features)
        assert torch.equal(backbone(image), features), "the plain pass is as before"


def test_a_failure_within_the_network_leaves_it_as_it_was() -> None:
    backbone, image = Backbone("resnet18").eval(), torch.randn(2, 3, 64, 64)
    with pytest.raises(ZeroDivisionError):
        backbone.forward_weighted(image, lambda finer: finer * (1 / 0))
    torch.testing.assert_close(backbone(image), backbone.forward_with_finer(image)[0])


def test_a_stage_of_several_maps_cannot_be_weighted() -> None:
    backbone = Backbone("hrnet_w18_small").eval()
    with pytest.raises(PriorError, match="'hrnet_w18_small': a map within the network cannot be weighted"):
        backbone.forward_weighted(torch.randn(1, 3, 64, 64), lambda finer: finer)


def test_a_network_without_stages_has_no_finer_map(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = Backbone("resnet18")
    monkeypatch.setattr(backbone.model, "feature_info", [])
    with pytest.raises(PriorError, match="'resnet18' does not hand out the feature maps of its stages"):
        backbone.finer_stage()
