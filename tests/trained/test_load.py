"""A checkpoint is enough: what is loaded from it alone answers as the trained module does, to the bit."""

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from short_runs import TECHNIQUES, kakapos, train
from torch.utils.data import DataLoader

import lightning_priors
from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import Kakapo
from lightning_priors.data.sources.base import UnreadableImageError
from lightning_priors.data.transforms import PriorTransform
from lightning_priors.errors import PriorError
from lightning_priors.functional.cam import evidence_map
from lightning_priors.nn import RegionFinder
from lightning_priors.priors import Prior
from lightning_priors.techniques import MAXL, Pretrained
from lightning_priors.trained.loading import checkpoint_of


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", TECHNIQUES)
def test_a_loaded_classifier_answers_as_the_trained_module(runs, name):
    module, run = runs(name)
    image = torch.randn(3, 3, 32, 32)
    loaded = lightning_priors.load(run, device="cpu")
    with torch.no_grad():
        expected, said = module.eval().explain(image), loaded(image)
    assert all(map(torch.equal, expected, said))
    assert loaded.class_names == ["kakapo", "other bird"]
    assert loaded.image_size == (32, 32)
    assert loaded.facts["data"] == "Kakapo"


@pytest.mark.parametrize("name", TECHNIQUES)
def test_a_loaded_classifier_keeps_nothing_that_only_training_needs(runs, name):
    module, run = runs(name)
    loaded = lightning_priors.load(run, device="cpu")
    image, unused = torch.randn(2, 3, 32, 32), []
    with torch.no_grad():
        before = loaded(image)
        for path, parameter in loaded.named_parameters():
            kept = parameter.clone()
            parameter.add_(torch.randn_like(parameter))
            if all(map(torch.equal, before, loaded(image))):
                unused.append(path)
            parameter.copy_(kept)
    # of an attention branch that part which learns the class stays
    assert all(".branch." in path for path in unused), unused
    assert not any(isinstance(each, Prior) and not each.acts_in_evaluation for each in loaded.modules())
    assert len(loaded.state_dict()) <= len(module.state_dict())


def test_heads_generators_and_finders_are_gone(runs):
    assert not any(
        "generator" in name or "auxiliary" in name for name in lightning_priors.load(runs("MAXL")[1]).state_dict()
    )
    combined = lightning_priors.load(runs("Combined")[1])
    assert [type(prior).__name__ for prior in combined.technique.priors] == ["GuidedAttention"]
    restricted = lightning_priors.load(runs("CAMRestriction")[1])
    assert not any(isinstance(module, RegionFinder) for module in restricted.modules())


def test_pictures_are_prepared_exactly_as_in_validation(runs, pixels):
    loaded = lightning_priors.load(runs("Pretrained")[1])
    raw = {"image": torch.from_numpy(pixels).permute(2, 0, 1), "label": 0}
    from torchvision import tv_tensors

    raw["image"] = tv_tensors.Image(raw["image"])
    assert torch.equal(loaded.prepare(pixels), PriorTransform(32, "none")(raw, 0)["image"])


def test_predictions_equal_those_of_the_trainer(runs):
    module, run = runs("Combined")
    data = kakapos()
    data.setup("test")
    batch = next(iter(DataLoader(data._dataset("test"), batch_size=8)))
    loaded = lightning_priors.load(run, device="cpu")
    pictures = [data.source.load(int(index))["image"] for index in batch["index"]]
    said = loaded.predict(pictures, batch_size=3)
    with torch.no_grad():
        logits, cam = module.eval().explain(batch["image"])
    torch.testing.assert_close(torch.stack([each.logits for each in said]), logits)
    expected = evidence_map(cam, logits.argmax(1)).numpy()
    np.testing.assert_allclose(np.stack([each.evidence for each in said]), expected, atol=1e-5)
    for each, probabilities in zip(said, logits.softmax(1).tolist(), strict=True):
        assert list(each.probabilities) == data.classes
        assert list(each.probabilities.values()) == pytest.approx(probabilities, abs=1e-5)
        assert each.label == max(each.probabilities, key=each.probabilities.__getitem__)


def test_files_images_arrays_and_tensors_are_one_picture(runs, pixels, tmp_path):
    loaded = lightning_priors.load(runs("Pretrained")[1])
    path = tmp_path / "bird.png"
    Image.fromarray(pixels).save(path)
    forms = [path, str(path), Image.open(path), pixels, torch.from_numpy(pixels).permute(2, 0, 1)]
    said = loaded.predict(forms)
    assert [each.name for each in said] == [str(path)] * 3 + [""] * 2
    assert all(torch.equal(each.logits, said[0].logits) for each in said)
    grey = pixels[..., 0]
    coloured = np.repeat(grey[..., None], 3, 2)
    one, other = loaded.predict([grey, coloured])
    assert torch.equal(one.logits, other.logits)
    assert torch.equal(loaded.predict(path)[0].logits, loaded.predict([path])[0].logits)


def test_a_photograph_of_a_turned_camera_is_seen_upright(runs, pixels, tmp_path):
    loaded = lightning_priors.load(runs("Pretrained")[1])
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: what is stored lies on its side
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(pixels)))
    stored.save(tmp_path / "turned.png", exif=exif)
    expected, file, opened = loaded.predict([pixels, tmp_path / "turned.png", Image.open(tmp_path / "turned.png")])
    assert torch.equal(file.logits, expected.logits)
    assert torch.equal(opened.logits, expected.logits)


@pytest.mark.parametrize("wrong", [np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), torch.zeros(3, 4, 4), 7])
def test_what_is_no_picture_is_refused(runs, wrong):
    loaded = lightning_priors.load(runs("Pretrained")[1])
    with pytest.raises(PriorError, match=r"^(an array is uint8|a picture is a path)"):
        loaded.predict([wrong])


def test_unreadable_files_stop_or_are_told(runs, pixels, tmp_path):
    loaded = lightning_priors.load(runs("Pretrained")[1])
    broken, good = tmp_path / "broken.png", tmp_path / "good.png"
    broken.write_bytes(b"no picture")
    Image.fromarray(pixels).save(good)
    with pytest.raises(UnreadableImageError, match=r"broken\.png"):
        loaded.predict([good, broken])
    told: list[UnreadableImageError] = []
    said = list(loaded.stream([broken, good, tmp_path / "absent.png", good], 2, on_unreadable=told.append))
    assert [each.name for each in said] == [str(good)] * 2
    assert ["broken.png" in str(told[0]), "absent.png" in str(told[1])] == [True, True]


def test_a_stream_reads_only_a_little_ahead(runs, pixels):
    loaded, read = lightning_priors.load(runs("Pretrained")[1]), 0

    def many():
        nonlocal read
        for _ in range(1000):
            read += 1
            yield pixels

    answers = loaded.stream(many(), batch_size=4)
    next(answers)
    assert read <= 16


def test_bfloat16_is_asked_for_and_close(runs, pixels):
    loaded = lightning_priors.load(runs("Pretrained")[1], device="cpu")
    (exact,), (rough,) = loaded.predict(pixels), loaded.predict(pixels, precision="bfloat16")
    assert not torch.equal(exact.logits, rough.logits)
    torch.testing.assert_close(exact.logits, rough.logits, atol=0.1, rtol=0.1)


class Mine(Pretrained):
    pass


def test_a_technique_of_ones_own_is_found_in_an_imported_module(tmp_path):
    run = train(Mine(num_classes=2), tmp_path)
    assert isinstance(lightning_priors.load(run).technique, Mine)


def test_another_technique_is_given_by_its_class(tmp_path):
    class Hidden(Pretrained):
        pass

    run = train(Hidden(num_classes=2), tmp_path)
    with pytest.raises(PriorError, match="names the technique 'Hidden'; give its class as technique"):
        lightning_priors.load(run)
    assert isinstance(lightning_priors.load(run, technique=Hidden).technique, Hidden)


def test_a_project_without_our_data_module_numbers_its_classes(tmp_path):
    class Plain(L.LightningDataModule):
        def val_dataloader(self):
            return self.train_dataloader()

        def train_dataloader(self):
            rows = [{"image": torch.randn(3, 32, 48), "label": torch.tensor(number % 3)} for number in range(6)]
            return DataLoader(rows, batch_size=3)

    run = train(Pretrained(num_classes=3), tmp_path, Plain())
    loaded = lightning_priors.load(run)
    assert loaded.class_names == ["0", "1", "2"]
    assert loaded.image_size == (32, 48)
    assert loaded.facts["data"] == "Plain"


def test_a_module_that_learns_new_data_forgets_the_old(tmp_path):
    class Renamed(Kakapo):
        @property
        def classes(self):
            return ["a", "b"]

    run = train(Pretrained(num_classes=2), tmp_path / "first")
    module = Pretrained.load_from_checkpoint(checkpoint_of(run))
    assert module.facts["class_names"] == ["kakapo", "other bird"]
    data = PriorDataModule(Renamed(), batch_size=8, image_size=64, images_per_class=8, val_fraction=0.02)
    loaded = lightning_priors.load(train(module, tmp_path / "second", data))
    assert loaded.class_names == ["a", "b"]
    assert loaded.image_size == (64, 64)


def test_no_weights_file_is_needed(tmp_path):
    start = tmp_path / "start.pt"
    torch.save(Pretrained(num_classes=2).classifier.backbone.state_dict(), start)
    module = MAXL(num_classes=2, subclasses=2, weights=str(start))
    run = train(module, tmp_path)
    start.unlink()
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(lightning_priors.load(run)(image)[0], module.eval()(image))


def test_loading_draws_nothing_from_the_random_generator(runs):
    torch.manual_seed(3)
    expected = torch.rand(())
    torch.manual_seed(3)
    lightning_priors.load(runs("GlobalLocal")[1])
    assert torch.equal(torch.rand(()), expected)


def test_a_checkpoint_that_says_too_little_is_refused(runs, tmp_path):
    path = checkpoint_of(runs("Pretrained")[1])
    checkpoint = torch.load(path, weights_only=True)
    old = {name: value for name, value in checkpoint.items() if name != "facts"}
    torch.save(old, tmp_path / "old.ckpt")
    with pytest.raises(PriorError, match=r"old\.ckpt does not hold class names and image size"):
        lightning_priors.load(tmp_path / "old.ckpt")


def test_a_wrong_path_names_the_nearest(runs, tmp_path):
    run = runs("Pretrained")[1]
    with pytest.raises(PriorError, match=r"has no checkpoints/best.ckpt; choose from .*run"):
        lightning_priors.load(run.parent)
    with pytest.raises(PriorError, match=r"did you mean '.*checkpoints'"):
        lightning_priors.load(run / "checkpoint")
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(PriorError, match="is not a checkpoint of a training run"):
        lightning_priors.load(tmp_path / "text.ckpt")


def test_metrics_of_validation_are_in_the_checkpoint(runs):
    checkpoint = torch.load(checkpoint_of(runs("Auxiliary")[1]), weights_only=True)
    assert 0 <= checkpoint["metrics"]["val/acc"] <= 1
