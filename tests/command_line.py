"""What the tests of the command line share: running it here or in a process of its own, and small things to run."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from processes import Started, start_command

import lightning_priors
from lightning_priors.__main__ import main

REPOSITORY = Path(lightning_priors.__file__).parents[1]
SCRIPT = Path(sys.executable).parent / "lightning-priors"

SMALL = (
    "--data.source.train_size=16",
    "--data.source.val_size=8",
    "--data.source.test_size=8",
    "--data.source.size=32",
    "--data.image_size=32",
    "--data.batch_size=8",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--trainer.devices=1",
)
"""A run of a second or two; the options of the source are those of Kakapo."""

FIT = ("fit", "--model=Pretrained", *SMALL, "--trainer.max_epochs=1")

TOY = '''
"""A seventh technique: the label is smoothed outside of the prior's certainty."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_priors.batch import PriorBatch
from lightning_priors.errors import PriorError
from lightning_priors.techniques import PriorModule, PriorStep


class Toy(PriorModule):
    """Classifies by colour alone."""

    def __init__(
        self, num_classes: int = 2, aux_num_classes: list[int] = [], smoothing: float = 0.1, crash: str = "",
        lr: float = 0.1,
    ) -> None:
        super().__init__(num_classes=num_classes, lr=lr)
        self.save_hyperparameters()
        self.smoothing, self.crash, self.aux_num_classes = smoothing, crash, aux_num_classes
        self.head = nn.Conv2d(3, num_classes, 1)

    def explain(self, image: Tensor) -> tuple[Tensor, Tensor]:
        cam = self.head(F.avg_pool2d(image, 8))
        return cam.mean((2, 3)), cam

    def step(self, batch: PriorBatch) -> PriorStep:
        if self.crash == "mistake":
            raise PriorError("the toy is broken")
        if self.crash == "defect":
            raise RuntimeError("a defect of the program")
        logits, _ = self.explain(batch["image"])
        return PriorStep(F.cross_entropy(logits, batch["label"], label_smoothing=self.smoothing), logits, {})
'''
"""The module of a technique that the package does not know; given by its dotted class path."""

BROKEN_SOURCE = """
from lightning_priors.data.sources import Kakapo
from lightning_priors.errors import PriorError


class Broken(Kakapo):
    def __init__(self, where: str = "load") -> None:
        super().__init__(train_size=16, val_size=8, test_size=8, size=32)
        self.where = where

    def setup(self):
        if self.where == "setup":
            raise PriorError("there is no folder birds; did you mean 'bird'?")
        super().setup()

    def load(self, index):
        if self.where == "load":
            raise PriorError(f"row {index}: bird.png is broken")
        return super().load(index)
"""
"""A source with a mistake in its files."""


def run_cli(*arguments: str) -> int:
    """Runs the command line in this process and gives its exit code."""
    return main(list(arguments))


def start(*arguments: str) -> Started:
    """Starts the command line in a process of its own."""
    paths = [str(REPOSITORY), os.getcwd()]
    return start_command(str(SCRIPT), arguments, _environment(paths), paths)


def start_new(*arguments: str) -> "subprocess.Popen[str]":
    """Starts the command line in a new interpreter."""
    return subprocess.Popen(
        [sys.executable, "-m", "lightning_priors", *arguments],
        env=_environment([str(REPOSITORY), os.getcwd()]),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell starts its background jobs deaf to Ctrl-C, and the suite may be one
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finish(process: "subprocess.Popen[str] | Started", timeout: float = 300) -> tuple[str, str]:
    """Waits for a process and gives what it printed; one that does not end is killed before the test fails."""
    try:
        return process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"no end after {timeout} s\n{out}\n{err}") from None


def console(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs a command as the console script does, which does not search the working folder for modules."""
    process = start_command(str(SCRIPT), arguments, _environment([str(REPOSITORY)]), [])
    out, err = finish(process)
    return subprocess.CompletedProcess([str(SCRIPT), *arguments], process.returncode, out, err)


def console_new(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs the console script itself."""
    environment = _environment([str(REPOSITORY)])
    return subprocess.run([str(SCRIPT), *arguments], env=environment, capture_output=True, text=True, timeout=300)


def _environment(paths: list[str]) -> dict[str, str]:
    """The variables of a process that searches these folders for modules, before those that this one was given."""
    given = filter(None, [os.environ.get("PYTHONPATH")])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, *given]), "OMP_NUM_THREADS": "1"}
