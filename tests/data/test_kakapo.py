"""The drawn birds: reproducible, known exactly, and placed as the bias says."""

from collections import Counter
from math import sqrt

import numpy as np
import pytest
import torch

from lightning_priors.data.sources import Kakapo, RawSample
from lightning_priors.data.sources import kakapo as kakapo_module
from lightning_priors.data.sources.kakapo_birds import SPECIES, hatch
from lightning_priors.data.sources.kakapo_drawing import PLACES, Layers, Streams, compose, draw, draw_layers, paint
from lightning_priors.errors import PriorError

KINDS = [kind for kinds in PLACES for kind in kinds]


def streams(number: int) -> Streams:
    ground, bird, rest = (np.random.default_rng((5, number, stream)) for stream in range(3))
    return ground, bird, rest


def scenes(count: int, size: int = 64) -> list[Layers]:
    """Scenes that go through all species and kinds of background."""
    return [draw_layers(streams(i), SPECIES[i % len(SPECIES)], KINDS[i % 4], size)[0] for i in range(count)]


def assert_same(one: RawSample, other: RawSample) -> None:
    assert one.keys() == other.keys()
    for key in one:
        torch.testing.assert_close(torch.as_tensor(one[key]), torch.as_tensor(other[key]), rtol=0, atol=0)


def near(count: int, total: int, share: float) -> bool:
    """Whether a count lies within four standard deviations of what its share lets expect."""
    return abs(count - share * total) <= 4 * sqrt(total * share * (1 - share))


def test_a_picture_depends_on_seed_and_index_alone() -> None:
    first, second = Kakapo(seed=3), Kakapo(seed=3, train_size=7, val_size=9, test_size=4)
    indices = [second.indices(split)[2] for split in ("train", "val", "test")]
    assert indices == [first.indices(split)[2] for split in ("train", "val", "test")]
    forward = [first.load(index) for index in indices]
    backward = [second.load(index) for index in reversed(indices)][::-1]
    for one, other in zip(forward, backward, strict=True):
        assert_same(one, other)
    pictures = [*(sample["image"] for sample in forward), Kakapo(seed=4).load(indices[0])["image"]]
    assert not any(pictures[i].equal(pictures[j]) for i in range(4) for j in range(i))


def test_a_picture_is_drawn_once_and_cannot_be_spoilt(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Kakapo(size=32)
    first, untouched = source.load(0), Kakapo(size=32).load(0)
    monkeypatch.setattr(kakapo_module, "draw", None)
    for value in first.values():
        if isinstance(value, torch.Tensor):
            value.zero_()
    assert_same(source.load(0), untouched)
    assert source.label(1) in (0, 1)  # neither is a label a reason to draw


def test_the_mask_is_the_share_of_the_bird_in_each_pixel() -> None:
    for layers in scenes(18):
        white = np.repeat(layers.bird[..., 3:], 4, axis=2)
        black = layers.front * (0, 0, 0, 1)
        dark, even = np.zeros_like(layers.ground), np.ones_like(layers.light)
        pixels = compose(Layers(dark, white, black.astype(np.float32), even, dark))
        assert (pixels[..., :3] == pixels[..., 3:]).all()


def test_the_scene_without_its_bird_differs_where_the_mask_is() -> None:
    seen, changed = 0, 0
    for layers in scenes(18):
        pixels, empty = compose(layers), compose(layers._replace(bird=np.zeros_like(layers.bird)))
        differs = (pixels[..., :3] != empty[..., :3]).any(axis=2)
        mask = pixels[..., 3]
        assert not empty[..., 3].any()
        # an opacity of half of 1/255 rounds to 0 and may still shift a colour by one
        assert not differs[mask == 0].any() or np.abs(pixels[mask == 0] - empty[mask == 0].astype(int)).max() <= 1
        assert 0.02 < (mask == 255).mean() < 0.6
        seen, changed = seen + (mask == 255).sum(), changed + differs[mask == 255].sum()
    assert changed > 0.98 * seen  # a bird may have the colour of its background here and there


def test_a_twig_takes_its_part_from_the_mask() -> None:
    hidden = 0
    for layers in scenes(18):
        mask, bird, front = compose(layers)[..., 3], layers.bird[..., 3], layers.front[..., 3]
        assert not mask[front == 255].any()
        assert (mask == np.rint(bird))[front == 0].all()
        hidden += ((front == 255) & (bird == 255)).sum()
    assert hidden > 100


def test_mist_hides_the_place_next_to_the_bird() -> None:
    beside, away = 0.0, 0.0
    for number in range(12):
        (forest, bird), (sky, _) = (
            draw_layers(streams(number), SPECIES[number % 9], kind, 64) for kind in ("forest", "sky")
        )
        points = 64 * np.concatenate([patch.outline for patch in bird.body + bird.head])
        centre, reach = (points.min(axis=0) + points.max(axis=0)) / 2, np.ptp(points, axis=0) / 2
        rows, columns = np.mgrid[:64, :64] + 0.5
        distance = np.hypot((columns - centre[0]) / reach[0], (rows - centre[1]) / reach[1])
        difference = np.abs(forest.ground - sky.ground).mean(axis=2)
        beside, away = beside + difference[distance < 1].mean(), away + difference[distance > 1.4].mean()
    assert 0 < beside < 0.15 * away


@pytest.mark.parametrize("size", [24, 64])
def test_the_box_encloses_the_head_and_little_more(size: int) -> None:
    for number in range(36):
        species = SPECIES[number % len(SPECIES)]
        bird = hatch(streams(number)[1], species)
        left, top, right, bottom = draw(streams(number), species, "sky", size).head_box.tolist()
        assert 0 <= left < right <= size
        assert 0 <= top < bottom <= size
        rows, columns = np.nonzero(paint(bird.head, size)[..., 3])
        # a pixel that holds some head reaches into the box, and no side lies a whole pixel off the head
        assert left < columns.min() + 1
        assert top < rows.min() + 1
        assert right > columns.max()
        assert bottom > rows.max()
        slack = (columns.min() - left, rows.min() - top, right - columns.max() - 1, bottom - rows.max() - 1)
        assert max(slack) < 1


def test_keypoints_lie_on_the_head_and_know_what_hides_them() -> None:
    shown = Counter[bool]()
    for number in range(60):
        species = SPECIES[number % len(SPECIES)]
        picture = draw(streams(number), species, "water", 64)
        layers, bird = draw_layers(streams(number), species, "water", 64)
        left, top, right, bottom = picture.head_box
        assert ((picture.keypoints >= (left, top)) & (picture.keypoints <= (right, bottom))).all()
        tip, eye, crown = bird.keypoints
        assert abs(tip[0] - eye[0]) > abs(crown[0] - eye[0])  # the beak points ahead, the crown is above
        for (x, y), seen in zip(picture.keypoints, picture.keypoint_seen, strict=True):
            opacity = layers.front[min(int(y), 63), min(int(x), 63), 3]
            assert bool(seen) == (opacity < 127.5)
            shown[bool(seen)] += 1
        x, y = picture.keypoints[1].astype(int)
        assert layers.bird[y, x, 3] == 255
    assert min(shown[True], shown[False]) > 3


@pytest.mark.parametrize("bias", [0.0, 0.5, 0.95, 1.0])
def test_the_place_agrees_with_the_label_as_often_as_asked(bias: float) -> None:
    source = Kakapo(train_size=2000, bias=bias)
    agrees = [(scene := source.scene(index)).place == scene.label for index in source.indices("train")]
    assert near(sum(agrees), 2000, bias)


@pytest.mark.parametrize("split", ["val", "test"])
def test_place_and_label_are_independent_in_evaluation(split: str) -> None:
    source = Kakapo(val_size=2000, test_size=2000, bias=0.95)
    groups = Counter(2 * (scene := source.scene(index)).label + scene.place for index in source.indices(split))
    assert all(near(groups[group], 2000, 0.25) for group in range(4))


def test_the_bias_moves_birds_and_changes_nothing_else() -> None:
    free, biased = Kakapo(bias=0.5, size=48), Kakapo(bias=1.0, size=48)
    moved = [free.scene(index).place != biased.scene(index).place for index in range(40)]
    assert 5 < sum(moved) < 35
    for index, place_changes in enumerate(moved):
        one, other = free.load(index), biased.load(index)
        assert one["image"].equal(other["image"]) != place_changes
        for key in ("mask", "part_boxes", "keypoints", "keypoint_valid"):
            assert one[key].equal(other[key])
        assert one["aux_labels"] == other["aux_labels"]


def test_the_species_is_the_kakapo_where_the_label_is() -> None:
    source = Kakapo(train_size=3200)
    indices = source.indices("train")
    every = [source.scene(index) for index in indices]
    species = Counter(scene.species for scene in every)
    assert source.aux_classes == {"species": [s.name for s in SPECIES]}
    assert source.aux_classes["species"][0] == source.classes[0] == "kakapo"
    assert all((scene.species == 0) == (scene.label == 0) for scene in every)
    assert near(species[0], 3200, 0.5)
    assert all(near(species[k], 3200, 0.5 / 8) for k in range(1, 9))
    assert all(scene.kind in PLACES[scene.place] for scene in every)
    assert all(near(count, 3200, 0.25) for count in Counter(scene.kind for scene in every).values())


def test_a_sample_says_what_its_scene_holds() -> None:
    source = Kakapo(size=32)
    assert source.group_names[2 * 1 + 0] == "other bird on land"
    assert source.group_names[2 * 0 + 1] == "kakapo in the open"
    for index in [*range(12), *source.indices("test")[:4]]:
        scene, sample = source.scene(index), source.load(index)
        assert sample["label"] == source.label(index) == scene.label
        assert sample["aux_labels"] == [scene.species]
        assert sample["group"] == 2 * scene.label + scene.place
        assert sample["part_boxes"].shape == (len(source.part_names), 4)
        assert sample["keypoints"].shape == (len(source.keypoint_names), 2)


def test_splits_have_their_sizes_and_share_no_picture() -> None:
    source = Kakapo(train_size=30, val_size=20, test_size=10)
    splits = [source.indices(split) for split in ("train", "val", "test")]
    assert [len(split) for split in splits] == [30, 20, 10]
    assert len(set().union(*splits)) == 60


@pytest.mark.parametrize("size", [16, 50, 96])
def test_any_size_shows_the_same_scene(size: int) -> None:
    for index in range(4):
        large, small = Kakapo(size=2 * size).load(index), Kakapo(size=size).load(index)
        assert small["image"].shape == (3, size, size)
        assert small["mask"].shape == (1, size, size)
        halved = torch.nn.functional.avg_pool2d(large["mask"].as_subclass(torch.Tensor), 2)
        assert (halved - small["mask"]).abs().mean() < 0.03
        halved = torch.nn.functional.avg_pool2d(large["image"].as_subclass(torch.Tensor).float(), 2)
        assert (halved - small["image"]).abs().mean() < 8
        torch.testing.assert_close(large["keypoints"], 2 * small["keypoints"])
        assert (large["part_boxes"] - 2 * small["part_boxes"]).abs().max() < 1


def test_bodies_do_not_tell_the_species() -> None:
    """With the same randomness, two species have the same body but for where the frame puts it, and the legs."""
    legs = 4

    def shape(species: int, seed: int) -> np.ndarray:
        bird = hatch(np.random.default_rng(seed), SPECIES[species])
        body = np.concatenate([patch.outline for patch in bird.body[legs:]])
        facing = np.sign(bird.keypoints[0, 0] - bird.keypoints[1, 0])
        centred = (body - body.mean(axis=0)) * (facing, 1)
        return centred / centred.std()

    for seed in range(5):
        assert all(np.allclose(shape(0, seed), shape(species, seed)) for species in range(1, len(SPECIES)))
    assert not any(len(shape(0, 0)) == len(shape(0, s)) and np.allclose(shape(0, 0), shape(0, s)) for s in range(1, 5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bias": 1.5}, "Kakapo: bias is a share from 0 to 1, not 1.5"),
        ({"train_size": -1}, "Kakapo: train_size must be from 0 to 1000000, not -1"),
        ({"val_size": 1_000_001}, "Kakapo: val_size must be from 0 to 1000000, not 1000001"),
        ({"test_size": -3}, "Kakapo: test_size must be from 0 to 1000000, not -3"),
        ({"size": 8}, "Kakapo: size must be at least 16 pixels, not 8"),
        ({"seed": -1}, "Kakapo: seed must not be negative, not -1"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(PriorError, match=f"^{message}$"):
        Kakapo(**options).setup()
