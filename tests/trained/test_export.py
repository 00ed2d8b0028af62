"""Exported files answer as PyTorch does, at every batch size; the oracle is another runtime on the pixels."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from short_runs import TECHNIQUES, train

import lightning_priors
from lightning_priors.__main__ import main
from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import Kakapo
from lightning_priors.errors import PriorError
from lightning_priors.export import formats
from lightning_priors.export.command import folder_of
from lightning_priors.export.pictures import pictures_for
from lightning_priors.export.write import greatest_difference, write
from lightning_priors.techniques import Pretrained, PriorAttention
from lightning_priors.trained import TrainedClassifier

QUICK = ("Pretrained", "Combined")
ALL = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in TECHNIQUES]


def drawn(count: int, height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, height, width), dtype=np.uint8))


def export(run: Path, out: Path) -> Path:
    kind = {".onnx": "onnx", ".pt2": "torch_export", ".safetensors": "safetensors"}[out.suffix]
    assert main(["export", str(run), "--format", kind, "--out", str(out)]) == 0
    return out


def check_against_pytorch(answers, run: Path) -> None:
    """At each batch size, at the size of the pictures and at another one."""
    loaded = lightning_priors.load(run, device="cpu")
    for count, height, width in [(1, 32, 32), (2, 32, 32), (5, 32, 32), (3, 56, 80)]:
        pixels = drawn(count, height, width)
        logits, cam, probabilities = answers(pixels.numpy().astype(np.float32) / 255)
        mean, std = (np.array(loaded.facts[name], np.float32)[None, :, None, None] for name in ("mean", "std"))
        with torch.no_grad():
            expected = loaded(torch.from_numpy((pixels.numpy() / np.float32(255) - mean) / std))
        np.testing.assert_allclose(logits, expected[0].numpy(), atol=1e-5, rtol=1e-4)
        np.testing.assert_allclose(cam, expected[1].numpy(), atol=1e-5, rtol=1e-4)
        np.testing.assert_allclose(probabilities, expected[0].softmax(1).numpy(), atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_an_onnx_file_answers_as_the_classifier_in_batches_and_pictures_of_any_size(runs, tmp_path, capsys, name):
    run = runs(name)[1]
    session = onnxruntime.InferenceSession(export(run, tmp_path / "model.onnx"))
    check_against_pytorch(lambda image: session.run(["logits", "cam", "probabilities"], {"image": image}), run)
    assert "in batches of 1, 2, 5, at 32 x 32 and 64 x 96 pixels" in capsys.readouterr().out
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["class_names"]) == ["kakapo", "other bird"]
    assert json.loads(said["image_size"]) == [32, 32]
    assert (said["technique"], said["data"], said["any_size"]) == (name.partition(",")[0], "Kakapo", "true")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "model.onnx"], "one file holds all"


@pytest.mark.parametrize("name", ["Combined", pytest.param("GlobalLocal, cam", marks=pytest.mark.slow)])
def test_a_file_of_torch_export_answers_as_the_classifier(runs, tmp_path, name):
    run = runs(name)[1]
    extra = {formats.FACTS_FILE: ""}
    with formats.quiet():
        program = torch.export.load(export(run, tmp_path / "model.pt2"), extra_files=extra).module()
    check_against_pytorch(lambda image: [each.numpy() for each in program(torch.from_numpy(image)).values()], run)
    assert json.loads(json.loads(extra[formats.FACTS_FILE])["class_names"]) == ["kakapo", "other bird"]


def test_exported_safetensors_load_back(runs, tmp_path):
    run = runs("MAXL")[1]
    path = export(run, tmp_path / "model.safetensors")
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = lightning_priors.load(run, device="cpu")(image)
        for where in (path, tmp_path):
            assert all(map(torch.equal, expected, lightning_priors.load(where, device="cpu")(image)))


@pytest.mark.slow
def test_a_network_of_one_size_says_so(tmp_path, capsys):
    """A vision transformer answers through the attention between its tokens."""
    module = PriorAttention(backbone="test_vit", attention="tokens")
    data = PriorDataModule(Kakapo(), batch_size=8, image_size=160, images_per_class=8, val_fraction=0.02)
    run = train(module, tmp_path / "run", data)
    session = onnxruntime.InferenceSession(export(run, tmp_path / "model.onnx"))
    told = capsys.readouterr().out
    assert "pictures of any size: no, the file takes 160 x 160 pixels alone" in told
    assert "in batches of 1, 2, 5, at 160 x 160 pixels" in told
    assert json.loads(session.get_modelmeta().custom_metadata_map["any_size"]) is False
    assert session.run(["cam"], {"image": np.zeros((3, 3, 160, 160), np.float32)})[0].shape == (3, 2, 10, 10)


@pytest.mark.slow
def test_a_network_that_pads_by_the_size_is_exported_for_its_own(tmp_path):
    facts = {"class_names": ["a", "b"], "image_size": [64, 64], "mean": [0.5] * 3, "std": [0.2] * 3, "data": ""}
    facts["group_counts"] = []
    classifier = TrainedClassifier(Pretrained(backbone="tf_efficientnet_lite0"), facts)
    pictures, _ = pictures_for(tmp_path)
    no, found = write(classifier, "onnx", tmp_path / "model.onnx", pictures)
    assert no == "pictures of any size: no, the file takes 64 x 64 pixels alone"
    assert found.endswith("in batches of 1, 2, 5, at 64 x 64 pixels")
    (other,) = write(classifier, "safetensors", tmp_path / "model.safetensors", pictures)
    assert other.endswith("at 64 x 64 and 96 x 128 pixels")


@pytest.mark.parametrize("wrong", ["value", "shape", "nan"])
def test_a_file_that_answers_otherwise_is_not_there(runs, tmp_path, monkeypatch, wrong):
    classifier = lightning_priors.load(runs("Pretrained")[1], device="cpu")
    right = formats.write_safetensors

    def spoilt(given, path, any_size):
        answers = right(given, path, any_size)

        def answer(image):
            said = dict(answers(image))
            cam = said["cam"].clone()
            cam[-1, 0, 0, 0] += {"value": 1e-3, "shape": 0.0, "nan": float("nan")}[wrong]
            return said | {"cam": cam[:, :, :-1] if wrong == "shape" else cam}

        return answer

    monkeypatch.setitem(formats.WRITERS, "safetensors", spoilt)
    with pytest.raises(
        PriorError, match=r"^the safetensors file answers otherwise than PyTorch, by .*; it was deleted$"
    ):
        list(write(classifier, "safetensors", tmp_path / "model.safetensors", pictures_for(tmp_path)[0]))
    assert list(tmp_path.iterdir()) == []


def test_the_greatest_difference_is_found_wherever_it_is(runs):
    classifier = lightning_priors.load(runs("Pretrained")[1], device="cpu")
    exact = formats.FromPixels(classifier)
    pictures = list(drawn(5, 40, 30))

    def fifth_is_off(image):
        said = exact(image)
        said["logits"][4:] += 0.25
        return said

    assert greatest_difference(classifier, exact, pictures, [(32, 32), (40, 64)]) == 0
    assert greatest_difference(classifier, fifth_is_off, pictures, [(32, 32)]) == pytest.approx(0.25, rel=1e-3)
    assert greatest_difference(classifier, fifth_is_off, pictures, [(32, 32)], [1, 4]) == 0


def test_the_lines_of_the_card_run(runs, tmp_path, monkeypatch, capsys):
    run = runs("Pretrained")[1]
    for name in ("model.safetensors", "model.onnx", "model.pt2"):
        export(run, tmp_path / name)
    Image.fromarray(drawn(1, 32, 32)[0].permute(1, 2, 0).numpy()).save(tmp_path / "picture.png")
    monkeypatch.chdir(tmp_path)
    blocks = [part.split("```")[0] for part in Path("README.md").read_text().split("```python")[1:]]
    capsys.readouterr()
    with formats.quiet():
        exec("\n".join(blocks).replace("picture.jpg", "picture.png"), {})
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith(second), "both name the same class"
    probabilities = list(lightning_priors.load(run).predict("picture.png")[0].probabilities.values())
    assert f"[[{probabilities[0]:.3f}" in third
    assert third.endswith("torch.Size([1, 2, 4, 4])")


def test_a_card_that_is_there_stays(runs, tmp_path, capsys):
    (tmp_path / "README.md").write_text("mine")
    export(runs("Pretrained")[1], tmp_path / "model.safetensors")
    assert (tmp_path / "README.md").read_text() == "mine"
    assert "README.md was there already and stays as it is" in capsys.readouterr().out


def test_mistakes_get_one_line(runs, tmp_path, capsys, monkeypatch):
    run = str(runs("Pretrained")[1])
    for arguments, line in [
        ([run, "--format", "tflite"], "error: export: argument --format: invalid choice: 'tflite'"),
        (
            [run, "--format", "onnx", "--output", "a.onnx"],
            "error: export has no option --output; did you mean '--out'?",
        ),
        ([run, "--format", "onnx", "--out", "a.pt"], "error: --out a.pt: a file of the format onnx ends with .onnx"),
        (["no/such/run", "--format", "onnx"], "error: there is no run or checkpoint no/such/run"),
    ]:
        assert main(["export", *arguments]) == 2
        told = capsys.readouterr().err
        assert told.startswith(line)
        assert told.count("\n") == 1
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    assert main(["export", run, "--format", "onnx", "--out", str(tmp_path / "a.onnx")]) == 2
    assert "error: ONNX needs onnx: pip install 'lightning-priors[onnx]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_pictures_of_the_runs_own_data_are_used_where_they_can_be_had(tmp_path):
    """The drawn validation birds of a small task are others than those of the large one."""
    options = {"source": {"class_path": "Kakapo", "init_args": {"train_size": 8, "val_size": 3, "size": 40}}}
    (tmp_path / "config.yaml").write_text(json.dumps({"data": options}))
    pictures, told = pictures_for(tmp_path)
    assert told == "compared on 5 validation pictures of the run"
    assert [tuple(picture.shape) for picture in pictures] == [(3, 40, 40)] * 5
    assert torch.equal(pictures[0], pictures[3]), "three are repeated to five"
    options["source"] = {"class_path": "ImageFolderSource", "init_args": {"root": str(tmp_path / "gone")}}
    (tmp_path / "config.yaml").write_text(json.dumps({"data": options}))
    pictures, told = pictures_for(tmp_path)
    assert told.startswith("compared on 5 drawn birds: the run's data cannot be had (")
    assert len(pictures) == 5


def test_the_run_of_a_path_is_found(tmp_path):
    assert folder_of("runs/Toy/version_0") == Path("runs/Toy/version_0")
    assert folder_of("user/name") == Path("user/name")


@pytest.mark.slow
def test_the_command_in_a_process_of_its_own_is_quiet(runs):
    run = runs("Pretrained")[1]
    done = subprocess.run(
        [sys.executable, "-m", "lightning_priors", "export", str(run), "--format", "onnx"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert [line.partition(":")[0].partition(" ")[0] for line in done.stdout.splitlines()] == [
        "compared", "greatest", str(run / "export" / "model.onnx"), str(run / "export" / "README.md")
    ]  # fmt: skip
    assert done.stderr == ""
