"""Weights & Biases from the command line, offline: when it is chosen, what is said, and what the run has recorded."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml
from command_line import FIT, finish, run_cli, start_new
from offline_wandb import NOBODY, WANDB, recorded, without_account

from lightning_priors.cli import wandb_offline


@pytest.fixture(autouse=True)
def _no_account(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    without_account(tmp_path, monkeypatch)


@pytest.fixture
def server():
    """A server that answers everything with 404."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(404)

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as answering:
        thread = threading.Thread(target=answering.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{answering.server_port}"
        answering.shutdown()
        thread.join()


class TestOfflineMode:
    def test_is_chosen_without_a_key(self, capsys, monkeypatch):
        with wandb_offline.session():
            wandb_offline.go_offline_if_needed()
            assert wandb_offline.os.environ["WANDB_MODE"] == "offline"
        assert capsys.readouterr().out == (
            "W&B: no API key for 127.0.0.1 (`wandb login` stores one), so this run is logged offline\n"
        )

    def test_is_chosen_without_a_network(self, capsys, monkeypatch):
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        with wandb_offline.session():
            wandb_offline.go_offline_if_needed()
            assert wandb_offline.os.environ["WANDB_MODE"] == "offline"
        assert capsys.readouterr().out == "W&B: no answer from 127.0.0.1, so this run is logged offline\n"

    def test_is_not_chosen_with_key_and_network(self, capsys, monkeypatch, server):
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", server)
        with wandb_offline.session():
            wandb_offline.go_offline_if_needed()
            assert "WANDB_MODE" not in wandb_offline.os.environ
        assert capsys.readouterr().out == ""

    def test_a_stored_key_counts(self, monkeypatch, server, tmp_path):
        (tmp_path / "netrc").write_text("machine 127.0.0.1\n  login user\n  password " + "k" * 40 + "\n")
        (tmp_path / "netrc").chmod(0o600)
        monkeypatch.setenv("WANDB_BASE_URL", server)
        assert wandb_offline.reason_to_be_offline(server) == ""
        assert "no API key for elsewhere" in wandb_offline.reason_to_be_offline("https://elsewhere")

    @pytest.mark.parametrize("mode", ["online", "disabled", "offline"])
    def test_leaves_the_users_own_choice(self, mode, monkeypatch, capsys):
        monkeypatch.setenv("WANDB_MODE", mode)
        with wandb_offline.session():
            wandb_offline.go_offline_if_needed()
            assert wandb_offline.os.environ["WANDB_MODE"] == mode
        assert wandb_offline.os.environ["WANDB_MODE"] == mode
        assert capsys.readouterr().out == ""

    def test_does_not_wait_for_a_server_that_is_silent(self, monkeypatch):
        given_up = threading.Event()

        def silent(url, timeout):
            given_up.wait()
            raise OSError

        monkeypatch.setattr(wandb_offline, "SECONDS_TO_ANSWER", 0.01)
        monkeypatch.setattr(wandb_offline.urllib.request, "urlopen", silent)
        assert not wandb_offline._answers(NOBODY)
        given_up.set()

    def test_ends_with_the_command(self):
        with wandb_offline.session():
            wandb_offline.go_offline_if_needed()
        assert "WANDB_MODE" not in wandb_offline.os.environ
        assert "WANDB_SILENT" not in wandb_offline.os.environ


@pytest.fixture
def run(tmp_path, capsys):
    """The folder of a finished offline run, and what was said."""
    assert run_cli(*FIT, *WANDB) == 0
    (folder,) = tmp_path.glob("runs/wandb/offline-run-*")
    return folder, capsys.readouterr().out


class TestRecord:
    def test_says_how_to_send_it(self, run):
        folder, said = run
        assert said.splitlines() == [
            "W&B: no API key for 127.0.0.1 (`wandb login` stores one), so this run is logged offline",
            f"W&B: logged offline; send it with: wandb sync runs/wandb/{folder.name}",
        ]

    def test_has_the_scalars_and_the_full_configuration(self, run):
        record = recorded(run[0])
        assert {"train/loss", "train/acc", "val/loss", "val/acc", "val/worst_group_acc", "val/epg"} <= set(
            record["summary"]
        )
        saved = yaml.safe_load(Path("runs/Pretrained/version_0/config.yaml").read_text())
        assert record["config"]["run_folder"] == "runs/Pretrained/version_0"
        for part in ("model", "data", "checkpoint", "trainer", "seed_everything"):
            assert record["config"][part] == saved[part]
        assert record["config"]["num_classes"] == 2

    def test_has_the_same_numbers_as_the_run_folder(self, run):
        import csv

        with Path("runs/Pretrained/version_0/metrics.csv").open() as file:
            (row,) = [row for row in csv.DictReader(file) if row["val/acc"]]
        assert recorded(run[0])["summary"]["val/acc"]["max"] == pytest.approx(float(row["val/acc"]))

    def test_has_the_panels(self, run):
        media = run[0] / "files" / "media" / "images"
        assert list(media.glob("val/panel_*.png"))
        assert list(media.glob("mask/val/images_*.mask.png"))
        assert list(Path("runs/Pretrained/version_0/panels").glob("*.png"))

    def test_each_run_is_a_run_of_its_own(self, run, tmp_path):
        """Neither does the second abort because the first has left a configuration, nor do they share a record."""
        assert run_cli(*FIT, *WANDB, "--model.lr=0.5") == 0
        folders = sorted(tmp_path.glob("runs/wandb/offline-run-*"), key=lambda folder: folder.stat().st_mtime)
        rates = {recorded(folder)["config"]["model"]["init_args"]["lr"] for folder in folders}
        assert len(folders) == 2
        assert rates == {0.001, 0.5}
        for version, rate in ((0, 0.001), (1, 0.5)):
            saved = yaml.safe_load(Path(f"runs/Pretrained/version_{version}/config.yaml").read_text())
            assert saved["model"]["init_args"]["lr"] == rate


def test_a_run_in_another_folder_is_recorded_there(tmp_path, monkeypatch):
    """W&B's background process would resolve its relative folder in the working folder of the run before."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert run_cli(*FIT, *WANDB) == 0
        assert len(list(Path("runs").glob("wandb/offline-run-*/run-*.wandb"))) == 1


def test_a_failed_run_is_ended_and_can_be_sent(capsys):
    arguments = ("--model.weights=nowhere.ckpt",)
    assert run_cli(*FIT, *WANDB, *arguments) == 2
    shown = capsys.readouterr()
    assert "send it with: wandb sync runs/wandb/offline-run-" in shown.out
    assert shown.err.splitlines()[-1].startswith("error: ")


def test_a_quick_run_neither_asks_nor_records(capsys):
    assert run_cli(*FIT, *WANDB, "--trainer.fast_dev_run=true") == 0
    assert capsys.readouterr().out == ""
    assert list(Path("runs").rglob("*")) == []


@pytest.mark.slow
def test_a_process_without_a_terminal_neither_waits_nor_fails():
    process = start_new(*FIT, *WANDB)
    out, err = finish(process)
    assert process.returncode == 0, err
    assert "send it with: wandb sync" in out
