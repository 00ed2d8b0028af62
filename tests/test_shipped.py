"""The shipped configurations: found by name from any folder, listed, and inside the wheel."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from command_line import REPOSITORY, SMALL, run_cli

from lightning_priors.errors import PriorError
from lightning_priors.shipped import find_config, shipped_configs


@pytest.fixture(autouse=True)
def _another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "cam_restriction",
        "cam_restriction.yaml",
        "techniques/cam_restriction",
        "configs/techniques/cam_restriction.yaml",
    ],
)
def test_is_found_by_every_name_from_every_folder(name):
    path, shipped = find_config(name)
    assert shipped
    assert path.samefile(REPOSITORY / "configs" / "techniques" / "cam_restriction.yaml")


def test_a_file_of_the_working_folder_wins():
    Path("cam_restriction.yaml").write_text("model: MAXL\n")
    assert find_config("cam_restriction.yaml") == (Path("cam_restriction.yaml"), False)
    assert find_config("cam_restriction")[1]


def test_plans_and_configurations_may_share_a_name():
    assert find_config("stampbirds")[0].parent.name == "data"
    assert find_config("stampbirds", plan=True)[0].parent.name == "compare"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("maxl_restricte", "maxl_restricted"), ("data/kakpo.yaml", "data/kakapo"), ("ddpp", "ddp")],
)
def test_a_nearby_name_is_suggested(name, nearest):
    with pytest.raises(PriorError, match=f"there is no file {name}; did you mean '.*{nearest}"):
        find_config(name)


def test_the_list_has_a_line_for_each(capsys):
    assert run_cli("configs") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(shipped_configs())
    assert all(len(line.split()) > 4 for line in lines)
    assert {path.resolve() for path in shipped_configs().values()} == set((REPOSITORY / "configs").rglob("*.yaml"))


def test_the_list_can_be_searched(capsys):
    assert run_cli("configs", "keypoints") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["techniques/prior_attention_vit"]
    assert run_cli("configs", "--all") == 2


def test_a_run_says_which_file_was_taken(caplog):
    caplog.set_level("INFO")
    assert run_cli("fit", "-c", "cam_restriction", *SMALL, "--trainer.fast_dev_run=1") == 0
    said = [record.getMessage() for record in caplog.records if "-c: the shipped" in record.getMessage()]
    assert said == [f"-c: the shipped configuration {shipped_configs()['techniques/cam_restriction']}"]


@pytest.mark.slow
def test_the_wheel_has_every_configuration_and_finds_it(tmp_path):
    copy = tmp_path / "copy"
    names = ("lightning_priors", "configs", "pyproject.toml", "setup.cfg", "setup.py", "README.md", "LICENSE")
    copy.mkdir()
    for name in names:
        path = REPOSITORY / name
        shutil.copytree(path, copy / name) if path.is_dir() else shutil.copy(path, copy / name)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", "wheels", "./copy"]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    shutil.rmtree(copy)
    inside = {path.relative_to(tmp_path / "site" / "lightning_priors" / "configs").with_suffix("").as_posix()
              for path in (tmp_path / "site" / "lightning_priors" / "configs").rglob("*.yaml")}  # fmt: skip
    assert inside == set(shipped_configs())
    show = "from lightning_priors.shipped import main, config_folder; main(['kakapo']); print(config_folder())"
    shown = subprocess.run(
        [sys.executable, "-c", show], cwd=tmp_path, env={"PYTHONPATH": "site"}, check=True, capture_output=True,
        text=True,
    ).stdout  # fmt: skip
    assert shown.startswith("data/kakapo ") or "\ndata/kakapo " in shown
    assert Path(shown.splitlines()[-1]).samefile(tmp_path / "site" / "lightning_priors" / "configs")
