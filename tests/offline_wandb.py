"""What tests of offline runs of Weights & Biases share: no account, and reading back what was recorded."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import REPOSITORY

WANDB = ("-c", str(REPOSITORY / "configs" / "logger" / "wandb.yaml"))
NOBODY = "http://127.0.0.1:9"
"""The port of the discard service, which nobody answers."""


def without_account(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key anywhere, no server, and nothing in the user's home."""
    names = ("MODE", "SILENT", "API_KEY", "NAME", "RUN_GROUP", "JOB_TYPE", "TAGS", "DATA_DIR", "SWEEP_ID")
    for name in names:
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", NOBODY)
    monkeypatch.setenv("NETRC", str(folder / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(folder / "settings"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(folder / "cache"))


def _inspected(folder: Path, *options: str) -> str:
    command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", *options, "--json", str(folder)]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


def recorded(folder: Path) -> dict[str, Any]:
    """What an offline run has recorded: its configuration, summary and state."""
    return json.loads(_inspected(folder, "--summary"))


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The single records of a kind, such as ``run`` or ``artifact``."""
    lines = map(json.loads, _inspected(folder).splitlines())
    return [line[kind] for line in lines if line["type"] == kind]


def offline_runs(folder: Path) -> list[Path]:
    """The runs in a folder, in the order of their start."""
    return sorted(folder.glob("**/offline-run-*"), key=lambda path: path.stat().st_mtime)


def artifacts(folder: Path, kind: str) -> dict[str, dict[str, str]]:
    """The artifacts of a type that a run has, with the local copy of each of their files."""
    return {
        found["name"]: {entry["path"]: entry["local_path"] for entry in found["manifest"]["contents"]}
        for found in records(folder, "artifact")
        if found["type"] == kind
    }
