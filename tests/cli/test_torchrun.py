"""Two nodes under torchrun, here both on one machine, train what two processes of one node train."""

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import REPOSITORY, SCRIPT, SMALL, finish, run_cli
from processes import command_on_ranks

RUN = [word for word in SMALL if not word.startswith(("--trainer.devices", "--data.batch_size"))]


def fit_on(nodes: int, processes: int) -> list[str]:
    """The command that each process runs."""
    trainer = [f"--trainer.num_nodes={nodes}", f"--trainer.devices={processes}", "--trainer.strategy=ddp"]
    return ["fit", "--model=CAMRestriction", *RUN, *trainer, "--trainer.max_epochs=2", "--data.batch_size=4"]


def torchrun(folder: Path, node: int, port: int) -> "subprocess.Popen[str]":
    """Starts one of two nodes, each with one process."""
    folder.mkdir(exist_ok=True)
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nnodes=2",
        f"--node-rank={node}",
        "--nproc-per-node=1",
    ]
    launch += ["--master-addr=127.0.0.1", f"--master-port={port}"]
    return subprocess.Popen(
        [*launch, "-m", "lightning_priors", *fit_on(nodes=2, processes=1)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def metrics(folder: Path) -> list[dict[str, str]]:
    (path,) = folder.glob("runs/CAMRestriction/version_0/metrics.csv")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_two_nodes_train_what_two_processes_of_one_node_train(tmp_path, monkeypatch):
    one, two, port = tmp_path / "one", tmp_path / "two", free_port()
    apart = [torchrun(two, node, port) for node in (0, 1)]
    said = [finish(process)[0] for process in apart]
    assert [process.returncode for process in apart] == [0, 0], said
    one.mkdir()
    monkeypatch.chdir(one)
    command_on_ranks(2, str(SCRIPT), fit_on(nodes=1, processes=2), [])
    assert metrics(two) == metrics(one)
    assert len(metrics(two)) == 4
    assert os.listdir(two / "runs" / "CAMRestriction") == ["version_0"]


@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed_stage_2", "FSDPStrategy", "ModelParallelStrategy"])
def test_a_strategy_that_cuts_the_network_is_refused(strategy, capsys):
    assert run_cli("fit", "--model=CAMRestriction", *SMALL, f"--trainer.strategy={strategy}") == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert error == (
        f"error: --trainer.strategy={strategy.lower()} cuts a network into parts, "
        "and a prior needs its feature maps whole; use ddp"
    )
