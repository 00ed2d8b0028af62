"""Which finished runs an update of the library leaves as they are."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_priors.compare.recognise import recognised, unchanged, write_config
from lightning_priors.compare.resolve import Task, digest
from lightning_priors.compare.rows import Row

CONFIG = {"model": {"class_path": "Pretrained", "init_args": {"lr": 0.1, "decay": 0.0}}, "seed_everything": 0}
GIVEN = ("model", "model.lr")


def changed(**arguments: object) -> dict[str, object]:
    model = {"class_path": "Pretrained", "init_args": {**CONFIG["model"]["init_args"], **arguments}}  # type: ignore[index]
    return {**CONFIG, "model": model}


@pytest.mark.parametrize(
    ("now", "given", "same"),
    [
        (CONFIG, GIVEN, True),
        (changed(added=7), GIVEN, True),  # a new option at its default
        (changed(added=7), (*GIVEN, "model.added"), False),  # which somebody has set
        (changed(lr=0.2), GIVEN, False),
        (changed(decay=0.5), GIVEN, False),  # a default that has changed
        ({**CONFIG, "seed_everything": 1}, GIVEN, False),
        ({**CONFIG, "model": {**changed()["model"], "class_path": "Other"}}, GIVEN, False),  # type: ignore[dict-item]
    ],
)
def test_what_an_update_may_change(now: dict[str, object], given: tuple[str, ...], same: bool) -> None:
    assert unchanged(CONFIG, GIVEN, now, given) is same
    backwards = unchanged(now, given, CONFIG, GIVEN)  # an option that is gone
    assert backwards is same


def test_a_row_takes_the_present_name_of_its_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "plain" / "split_0-seed_0-old"
    folder.mkdir(parents=True)
    write_config(folder, Task("plain", 0, [], "old", CONFIG, GIVEN))
    row = Row("plain", 0, {"test/acc": 0.5}, str(folder), "best.ckpt", "old")
    updated = Task("plain", 0, [], digest(changed(added=1)), changed(added=1), GIVEN)
    assert recognised([row], [updated]) == [replace(row, digest=updated.digest)]
    other = Task("plain", 0, [], digest(changed(lr=1)), changed(lr=1), GIVEN)
    assert recognised([row], [other]) == [row]
    for elsewhere in (updated._replace(seed=1), updated._replace(split=1), updated._replace(run="told")):
        assert recognised([row], [elsewhere]) == [row]
    assert json.loads((tmp_path / "plain" / "split_0-seed_0-old.json").read_text())["config"] == CONFIG


def test_a_run_whose_configuration_was_not_kept_is_not_recognised(tmp_path: Path) -> None:
    row = Row("plain", 0, {}, str(tmp_path / "gone"), "best.ckpt", "old")
    assert recognised([row], [Task("plain", 0, [], "new", CONFIG, GIVEN)]) == [row]
