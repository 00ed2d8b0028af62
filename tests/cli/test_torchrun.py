"""Two nodes under torchrun, here both on one machine, train what two processes of one node train."""

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import REPOSITORY, SMALL, finish, run_cli

RUN = [word for word in SMALL if not word.startswith(("--trainer.devices", "--data.batch_size"))]


def torchrun(folder: Path, nodes: int, node: int, processes: int, port: int) -> "subprocess.Popen[str]":
    """Starts one node of a training of two processes."""
    folder.mkdir(exist_ok=True)
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nnodes={nodes}",
        f"--node-rank={node}",
        f"--nproc-per-node={processes}",
    ]
    launch += ["--master-addr=127.0.0.1", f"--master-port={port}"]
    trainer = [f"--trainer.num_nodes={nodes}", f"--trainer.devices={processes}", "--trainer.strategy=ddp"]
    trainer += ["--trainer.max_epochs=2", "--data.batch_size=4"]
    return subprocess.Popen(
        [*launch, "-m", "lightning_priors", "fit", "--model=CAMRestriction", *RUN, *trainer],
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
def test_two_nodes_train_what_two_processes_of_one_node_train(tmp_path):
    one, two, port = tmp_path / "one", tmp_path / "two", free_port()
    apart = [torchrun(two, 2, node, 1, port) for node in (0, 1)]
    said = [finish(process)[0] for process in apart]
    assert [process.returncode for process in apart] == [0, 0], said
    together = torchrun(one, 1, 0, 2, free_port())
    assert (finish(together)[0], together.returncode)[1] == 0
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
