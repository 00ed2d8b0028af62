"""The picture of what the compared networks look at."""

from pathlib import Path

import pytest
import torch
from command_line import SMALL
from PIL import Image

from lightning_priors.compare.picture import draw_picture, evenly_chosen
from lightning_priors.compare.plan import Plan, Variant
from lightning_priors.compare.resolve import resolve
from lightning_priors.compare.run import compare


def sample(index: int, label: int, group: int) -> dict[str, torch.Tensor]:
    return {"index": torch.tensor(index), "label": torch.tensor(label), "group": torch.tensor(group)}


def test_every_group_is_shown_before_any_is_shown_twice() -> None:
    groups = [0, 0, 0, 1, 3, 3, 2, 0, 1]
    samples = [sample(index, group // 2, group) for index, group in enumerate(groups)]
    chosen = evenly_chosen(samples, 4)
    assert [int(each["group"]) for each in chosen] == [0, 1, 2, 3]
    assert {int(each["index"]) for each in chosen} >= {3, 6}


@pytest.mark.slow
def test_the_picture_has_a_column_for_each_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--trainer.max_epochs=1", *SMALL)
    runs = {"plain": Variant("plain", (), ("--model=Pretrained",)),
            "restricted": Variant("restricted", (), ("--model=CAMRestriction",))}  # fmt: skip
    tasks = resolve(Plan(runs, options=options))
    output = Path("compared")
    rows, failures = compare(tasks, output)
    assert not failures
    capsys.readouterr()
    sizes = []
    for finished in (rows[:1], rows):
        with Image.open(draw_picture(tasks, finished, output)) as picture:
            sizes.append(picture.size)
    one, both = sizes
    assert both[0] > one[0]
    assert both[1] == one[1]
    assert capsys.readouterr() == ("", ""), "what Lightning reports goes to comparison.log"
    Path(rows[0].checkpoint).unlink()
    with Image.open(draw_picture(tasks, rows, output)) as picture:
        assert picture.size == one, "the run whose checkpoint was deleted is left out"
    assert draw_picture(tasks, rows[:1], output) is None
