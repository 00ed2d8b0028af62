"""The sweep of the documentation, run once as W&B's agent would run it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import REPOSITORY, SMALL
from offline_wandb import offline_runs, recorded, records, without_account
from wandb.sdk.launch.sweeps import utils

SWEEP = yaml.safe_load((REPOSITORY / "docs" / "sweep.yaml").read_text())


def drawn(parameters: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """One value of each parameter, as W&B's server sends them to the agent."""

    def value(parameter: dict[str, Any]) -> Any:
        if parameter.get("distribution") == "log_uniform_values":
            return (parameter["min"] * parameter["max"]) ** 0.5
        return parameter["values"][-1] if "values" in parameter else parameter["value"]

    return {name: {"value": value(parameter)} for name, parameter in parameters.items()}


def command_of(sweep: dict[str, Any], chosen: dict[str, dict[str, Any]]) -> list[str]:
    """The command line, with the macros replaced by W&B's own functions, as its agent does."""
    macros = utils.create_sweep_command_args({"args": chosen})
    words: list[str] = []
    for word in utils.create_sweep_command(list(sweep["command"])):
        is_macro = word.startswith("${") and word.endswith("}")
        words += macros[word[2:-1]] if is_macro else [word]
    return words


def run_by_agent(command: list[str], chosen: dict[str, dict[str, Any]], folder: Path) -> None:
    """Starts the command with what the agent puts into the environment."""
    parameters = folder / "config-abc.yaml"
    parameters.write_text(yaml.safe_dump({"wandb_version": 1, **chosen}))
    environment = {
        **os.environ,
        "WANDB_SWEEP_ID": "sweep1",
        "WANDB_RUN_ID": "abc",
        "WANDB_DIR": str(folder),
        "WANDB_SWEEP_PARAM_PATH": str(parameters),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_agent_runs_a_fit(tmp_path, monkeypatch):
    without_account(tmp_path, monkeypatch)
    chosen = drawn(SWEEP["parameters"])
    command = command_of(SWEEP, chosen)
    assert command[0] == "lightning-priors"
    assert f"--model.weight={chosen['model.weight']['value']}" in command
    run_by_agent([*command, *SMALL, "--trainer.max_epochs=2"], chosen, tmp_path)
    (run,) = offline_runs(tmp_path)
    (record,) = records(run, "run")
    assert (record["run_id"], record["job_type"], record["sweep_id"]) == ("abc", "fit", "sweep1")
    found = recorded(run)
    used = found["config"]["model"]["init_args"]
    assert (used["lr"], used["weight"]) == (chosen["model.lr"]["value"], chosen["model.weight"]["value"])
    assert found["config"]["seed_everything"] == chosen["seed_everything"]["value"]
    # what the sweep maximises is in the history under its own name, and in the summary as the best
    name = SWEEP["metric"]["name"]
    values = [entry["item"][name] for entry in records(run, "history") if name in entry["item"]]
    assert len(values) == 2
    assert found["summary"][name] == {"max": pytest.approx(max(values))}
