"""What a run keeps to itself: no secret of the environment is written anywhere, and nothing is sent unasked."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import FIT, REPOSITORY, run_cli

SECRETS = {
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef0123planted",
    "HF_TOKEN": "hf_plantedplantedplantedplanted0",
    "HUGGING_FACE_HUB_TOKEN": "hf_plantedplantedplantedplanted1",
    "AWS_SECRET_ACCESS_KEY": "planted/aws/secret",
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDPLANTED",
    "COMET_API_KEY": "plantedcomet",
    "MY_PASSWORD": "planted password",
}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_no_secret_of_the_environment_is_written():
    """With W&B, whose files hold much about the machine; all that is written and said is searched."""
    environment = {**os.environ, **SECRETS, "WANDB_MODE": "offline", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "lightning_priors", *FIT, "--trainer.logger=WandbLogger"]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    files = [path for path in Path.cwd().rglob("*") if path.is_file()]
    assert {"config.yaml", "best.ckpt", "metrics.csv", "output.log"} <= {path.name for path in files}
    assert any(path.suffix == ".wandb" for path in files)
    for path in files:
        for name, secret in SECRETS.items():
            assert secret.encode() not in path.read_bytes(), f"{name} stands in {path}"
    for secret in SECRETS.values():
        assert secret.encode() not in done.stdout + done.stderr


def test_a_run_asks_no_computer_for_anything(monkeypatch):
    asked = []

    def refuse(*arguments: object, **options: object) -> None:
        asked.append(arguments)
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert run_cli(*FIT) == 0
    checkpoint = next(Path("runs").rglob("best.ckpt"))
    assert run_cli("predict", str(checkpoint), "runs", "--out", "said.csv") in (0, 2)
    assert run_cli("export", str(checkpoint), "--format", "safetensors") == 0
    assert asked == []


def test_wandb_reports_no_errors_to_its_makers_unless_asked(monkeypatch):
    from lightning_priors.cli.wandb_offline import session

    monkeypatch.delenv("WANDB_ERROR_REPORTING", raising=False)
    with session():
        assert os.environ["WANDB_ERROR_REPORTING"] == "false"
    assert "WANDB_ERROR_REPORTING" not in os.environ
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "true")
    with session():
        assert os.environ["WANDB_ERROR_REPORTING"] == "true"
