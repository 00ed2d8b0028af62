"""A saved classifier answers to the bit, from its folder or file; what was tampered with is refused in one line."""

import getpass
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from short_runs import TECHNIQUES, train

import lightning_priors
from lightning_priors.errors import PriorError
from lightning_priors.techniques import CAMRestriction, Pretrained
from lightning_priors.trained import TrainedClassifier
from lightning_priors.trained.saved import KEY


@pytest.fixture
def folder(runs, tmp_path) -> Path:
    """A saved classifier, to be tampered with."""
    lightning_priors.load(runs("CAMRestriction")[1], device="cpu").save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def tamper(folder: Path, change) -> Path:
    config = json.loads((folder / "config.json").read_text())
    change(config[KEY])
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("name", TECHNIQUES)
def test_a_saved_classifier_answers_as_before_from_folder_and_file(runs, tmp_path, name):
    loaded = lightning_priors.load(runs(name)[1], device="cpu")
    loaded.save_pretrained(tmp_path)
    image = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = loaded(image)
        for again in (
            lightning_priors.load(tmp_path, device="cpu"),
            lightning_priors.load(tmp_path / "model.safetensors", device="cpu"),
            TrainedClassifier.from_pretrained(tmp_path),
        ):
            assert all(map(torch.equal, expected, again(image)))
            assert not again.technique.training
            assert (again.facts, again.metrics) == (loaded.facts, loaded.metrics)
    (tmp_path / "config.json").unlink()
    assert lightning_priors.load(tmp_path).class_names == ["kakapo", "other bird"], "the file says it too"


def test_loading_draws_nothing_from_the_random_generator(folder):
    torch.manual_seed(3)
    expected = torch.rand(())
    torch.manual_seed(3)
    lightning_priors.load(folder)
    assert torch.equal(torch.rand(()), expected)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda it: it.update(technique="os.system"), r"names the technique 'os.system'; give its class"),
        (lambda it: it["options"].update(command="true"), r"CAMRestriction has no option 'command'; "),
        (lambda it: it["options"].update(wheight=2), r"has no option 'wheight'; did you mean 'weight'\?"),
        (lambda it: it["options"].update(loss="planted.loss"), r"the option 'loss' names a file or code"),
        (lambda it: it["options"].update(weights="/etc/passwd"), r"the option 'weights' names a file or code"),
        (lambda it: it["options"].update(extra_metrics={"a": "b"}), r"the option 'extra_metrics' names a file or code"),
        (lambda it: it["options"].update(backbone=5), r"CAMRestriction does not take its options: "),
        (lambda it: it["options"].update(backbone="resnet10t"), r"is not of this classifier: (no|another) entry "),
        (lambda it: it["options"].update(num_classes=3), r"3 classes have 2 names"),
        (lambda it: it["facts"].update(class_names=["a", "b", "c"]), r"2 classes have 3 names"),
        (lambda it: it["facts"].update(image_size=["32", "32"]), r"does not hold class names and image size"),
        (lambda it: it["facts"].pop("mean"), r"does not hold the normalisation"),
        (lambda it: it.pop("options"), r"describes no classifier: it has no options"),
        (
            lambda it: it.update(technique="Combined", options={"priors": [{"class_path": "os.system"}]}),
            r"Combined does not take its options: os.system is no prior in an imported module",
        ),
        (
            lambda it: it.update(
                technique="Combined",
                options={
                    "priors": [
                        {
                            "class_path": "lightning_priors.priors.restriction.Restriction",
                            "init_args": {"loss": "planted.loss"},
                        }
                    ]
                },
            ),
            r"the option 'priors' names a file or code",
        ),
    ],
)
def test_a_tampered_configuration_is_refused_in_one_line(folder, tmp_path, monkeypatch, change, line):
    (tmp_path / "planted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef loss(a, b): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PriorError, match=line) as caught:
        lightning_priors.load(tamper(folder, change))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists(), "nothing that the file names was imported"


@pytest.mark.parametrize("text", ["[]", "{}", "null", "{", '{"lightning_priors": 3}'])
def test_what_is_no_configuration_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(PriorError, match=r"config.json (cannot be read|describes no classifier)"):
        lightning_priors.load(folder)


def test_weights_of_other_shapes_or_programs_are_refused(folder):
    weights = load_file(folder / "model.safetensors")
    name = next(name for name, value in weights.items() if value.ndim == 4)
    save_file(weights | {name: weights[name][:, :, :1].contiguous()}, folder / "model.safetensors")
    with pytest.raises(PriorError, match=rf"{name} has the shape .*, not "):
        lightning_priors.load(folder)
    save_file(weights, folder / "foreign.safetensors")
    with pytest.raises(PriorError, match=r"foreign.safetensors describes no classifier"):
        lightning_priors.load(folder / "foreign.safetensors")
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(PriorError, match=r"model.safetensors cannot be read"):
        lightning_priors.load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(PriorError, match=r"there is no file .*model.safetensors"):
        lightning_priors.load(folder)


def test_no_path_is_given_to_others_and_no_weights_file_is_needed(tmp_path):
    start = tmp_path / "start.pt"
    torch.save(Pretrained(num_classes=2).classifier.backbone.state_dict(), start)
    run = train(Pretrained(num_classes=2, weights=str(start), l2_sp=0.1), tmp_path / "run")
    loaded = lightning_priors.load(run, device="cpu")
    loaded.save_pretrained(tmp_path / "saved")
    start.unlink()
    shutil.rmtree(run)
    written = b"".join(path.read_bytes() for path in (tmp_path / "saved").iterdir())
    for secret in (str(tmp_path), "start.pt", getpass.getuser() + "/"):
        assert secret.encode() not in written
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(lightning_priors.load(tmp_path / "saved", device="cpu")(image)[0], loaded(image)[0])


def test_a_loss_of_ones_own_is_left_out(tmp_path):
    module = CAMRestriction(loss="torch.nn.functional.mse_loss")
    assert "loss" not in TrainedClassifier(module, {}).description["options"]
