"""The way to the Hub and back, without a network."""

import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import HfApi, ModelCard, constants

import lightning_priors
from lightning_priors.errors import PriorError
from lightning_priors.trained import hub


def test_what_is_pushed_is_what_is_loaded(runs, tmp_path, monkeypatch):
    pushed = tmp_path / "pushed"

    def upload(self, *, repo_id: str, folder_path: Path, **options: object) -> str:
        shutil.copytree(folder_path, pushed)
        return f"https://huggingface.co/{repo_id}/commit/1"

    def created(self, repo_id: str, **options: object) -> huggingface_hub.RepoUrl:
        return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

    monkeypatch.setattr(HfApi, "create_repo", created)
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    loaded = lightning_priors.load(runs("GlobalLocal")[1], device="cpu")
    loaded.push_to_hub("kakapo/finder")
    assert sorted(path.name for path in pushed.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert ModelCard.load(pushed / "README.md").data.library_name == "lightning-priors"

    asked = []
    monkeypatch.setattr(hub, "snapshot_download", lambda name, **options: asked.append(name) or str(pushed))
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        again = lightning_priors.load("kakapo/finder", device="cpu")
        assert all(map(torch.equal, loaded(image), again(image)))
    assert asked == ["kakapo/finder"]


def test_a_name_that_is_nowhere_gets_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    Path("runs/kakapo").mkdir(parents=True)
    with pytest.raises(PriorError, match=r"^there is no run or checkpoint runs/kakapoo, .*did you mean 'runs/kakapo'"):
        lightning_priors.load("runs/kakapoo")
    with pytest.raises(PriorError, match=r"the Hub has not given it \(HF_HUB_OFFLINE is set\): \w+Error$"):
        lightning_priors.load("nobody/nothing")


def test_a_repository_of_another_kind_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "snapshot_download", lambda name, **options: str(tmp_path))
    with pytest.raises(PriorError, match=r"^the repository nobody/nothing of the Hub has no config.json"):
        lightning_priors.load("nobody/nothing")


@pytest.mark.parametrize("path", ["no/such/run", "/nobody/nothing", "run/best.ckpt", "./nothing"])
def test_only_what_has_the_form_of_a_repository_is_looked_for(monkeypatch, path):
    monkeypatch.setattr(hub, "snapshot_download", lambda *given, **options: pytest.fail("asked the Hub"))
    with pytest.raises(PriorError, match="there is no run or checkpoint"):
        lightning_priors.load(path)
