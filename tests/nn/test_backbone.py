"""Layers, feature maps and statistics of the backbones."""

import pytest
import torch

from lightning_priors.errors import PriorError
from lightning_priors.nn import Backbone


def with_finer(backbone: Backbone, image: torch.Tensor, stride: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """The features, and the map of the stage whose cells are at least so wide."""
    seen: list[torch.Tensor] = []
    number, _ = backbone.finer_stage(stride)
    features = backbone.forward_changed(image, {number: lambda finer: seen.append(finer) or finer})
    assert len(seen) == 1
    return features, seen[0]


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
def test_looking_at_a_map_leaves_the_features_to_the_bit(name: str, shape: tuple[int, ...]) -> None:
    backbone, image = Backbone(name).eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features, finer = with_finer(backbone, image)
        assert torch.equal(features, backbone(image))
    assert finer.shape == (2, *shape)
    assert backbone.finer_stage()[1] == shape[0]


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "convnext_atto", "swin_tiny_patch4_window7_224"])
@pytest.mark.parametrize("stride", [4, 8, 16])
def test_the_finer_map_is_as_fine_as_asked(name: str, stride: int) -> None:
    backbone, image = Backbone(name).eval(), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        _, finer = with_finer(backbone, image, stride)
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

    number, _ = backbone.finer_stage(stride)

    def weighted_by(weigh) -> torch.Tensor:
        return backbone.forward_changed(image, {number: weigh})

    with torch.no_grad():
        features, finer = with_finer(backbone, image, stride)
        assert torch.equal(weighted_by(keep), features)
        torch.testing.assert_close(seen, [features if name == "test_vit" else finer])
        weight = (torch.rand_like(finer[:, :1]) < 0.5).to(finer)
        hidden = (1 - weight) * torch.randn_like(finer)
        weighted = weighted_by(lambda finer: weight * finer)
        assert torch.equal(weighted_by(lambda finer: weight * (finer + hidden)), weighted)
        assert not torch.allclose(weighted, features)
        assert torch.equal(backbone(image), features), "the plain pass is as before"


def test_a_failure_within_the_network_leaves_it_as_it_was() -> None:
    backbone, image = Backbone("resnet18").eval(), torch.randn(2, 3, 64, 64)
    with pytest.raises(ZeroDivisionError):
        backbone.forward_changed(image, {2: lambda finer: finer * (1 / 0)})
    torch.testing.assert_close(backbone(image), with_finer(backbone, image)[0])


def test_a_stage_of_several_maps_cannot_be_changed() -> None:
    backbone = Backbone("hrnet_w18_small").eval()
    with pytest.raises(PriorError, match="'hrnet_w18_small': a map within the network cannot be changed"):
        backbone.forward_changed(torch.randn(1, 3, 64, 64), {backbone.finer_stage()[0]: lambda finer: finer})


def test_a_network_without_stages_has_no_finer_map(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = Backbone("resnet18")
    monkeypatch.setattr(backbone.model, "feature_info", [])
    with pytest.raises(PriorError, match="'resnet18' does not hand out the feature maps of its stages"):
        backbone.finer_stage()


def test_two_maps_are_changed_in_one_pass() -> None:
    """As in the network itself: what the second stage sees has been changed by the first."""
    backbone, image = Backbone("resnet18").eval(), torch.randn(2, 3, 64, 64)
    first, second = backbone.finer_stage(8)[0], backbone.finer_stage(16)[0]
    seen: dict[int, torch.Tensor] = {}

    def keep(number: int, factor: float):
        return lambda finer: seen.update({number: finer}) or factor * finer

    with torch.no_grad():
        features = backbone.forward_changed(image, {second: keep(second, 1.0), first: keep(first, 2.0)})
        by_hand = backbone.model.layer3(2 * seen[first])
        torch.testing.assert_close(seen[second], by_hand)
        torch.testing.assert_close(features, backbone.model.layer4(by_hand))


def test_a_training_batch_of_one_image_keeps_to_running_statistics_where_it_has_to() -> None:
    """At 32 pixels the last maps of this network have one cell, of which there is no variance."""
    torch.manual_seed(0)
    backbone, image = Backbone("resnet18").train(), torch.randn(1, 3, 32, 32)
    before = {name: value.clone() for name, value in backbone.model.named_buffers()}
    features = backbone(image)
    assert features.shape[2:] == (1, 1)
    features.sum().backward()
    after = dict(backbone.model.named_buffers())
    assert torch.equal(before["layer4.1.bn2.running_mean"], after["layer4.1.bn2.running_mean"])
    assert not torch.equal(before["bn1.running_mean"], after["bn1.running_mean"])
    assert all(module.training for module in backbone.model.modules()), "the modes are as they were"
    assert not any(module._forward_pre_hooks for module in backbone.modules())
