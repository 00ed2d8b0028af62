"""Runs every block of Python and of commands in the documents, on small data and with two batches of training."""

import contextlib
import functools
import io
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from sybil import Example, Sybil
from sybil.parsers.myst import CodeBlockParser, PythonCodeBlockParser, SkipParser
from torchvision.transforms.v2.functional import to_pil_image

from lightning_priors.__main__ import main
from lightning_priors.compare.plan import read_plan
from lightning_priors.data.sources import Kakapo

ROOT = Path(__file__).parent
collect_ignore = ["docs/serving", "docs/_build", "docs/notebooks"]  # a program with a test of its own, and copies
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/*.md", "docs/techniques/*.md")

SMALL = ("--data.source.train_size=16", "--data.source.val_size=8", "--data.source.test_size=8", "--data.batch_size=8")

torch.set_num_threads(1)


def run_commands(example: Example) -> str | None:
    """Runs the commands of a block as they are printed, and says which one fails."""
    for line in str(example.parsed).replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] != "lightning-priors":
            return f'{words[0]}: only lightning-priors is run here; put `<!-- skip: next "reason" -->` before the block'
        if words and (code := main(words[1:])):
            return f"exit code {code}: {line}"
    return None


def read_configuration(example: Example) -> str | None:
    """Has the command line read a configuration, or a comparison its plan, and says if it is refused."""
    path = Path("documented.yaml")
    path.write_text(str(example.parsed), encoding="utf-8")
    if "runs:" in example.parsed:
        read_plan(str(path))
        return None
    with contextlib.redirect_stdout(io.StringIO()), pytest.raises(SystemExit) as stop:
        main(["fit", "--model=Pretrained", "-c", str(path), "--print_config"])
    return f"exit code {stop.value.code}" if stop.value.code else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the documents first: a block needs those before it, and a process that is idle takes tests from the end."""
    items.sort(key=lambda item: item.path.suffix != ".md")


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes the folder in which the documents' commands work: configurations, pictures, and two trained runs."""
    folder = tmp_path_factory.mktemp("documents")
    for name in ("configs", "experiments", "docs"):
        (folder / name).symlink_to(ROOT / name)
    source = Kakapo(train_size=16, val_size=8, test_size=8, size=64)
    source.setup()
    for split in ("train", "val", "test"):
        for number, index in enumerate(source.indices(split)):
            sample = source.load(index)
            label = source.classes[sample["label"]].replace(" ", "_")
            pictures = {"my_birds": sample["image"], "my_birds/masks": sample["mask"], "birds": sample["image"]}
            for top, picture in pictures.items():
                path = folder / top / f"{split}_{number:03}.png"
                if top != "birds":
                    path = folder / top / split / label / f"{number:03}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                to_pil_image(picture).save(path)
    with contextlib.chdir(folder), briefly():
        for name in ("RUN", "RUN2"):
            assert main(["fit", "-c", "cam_restriction", *SMALL]) == 0
            next(folder.glob("runs/*/*")).rename(name)
    return folder


@contextlib.contextmanager
def briefly() -> Iterator[None]:
    """Cuts every training and evaluation to two batches of one epoch."""
    loops = {name: getattr(L.Trainer, name) for name in ("fit", "validate", "test", "predict")}

    def cut(name: str) -> Any:
        @functools.wraps(loops[name])
        def run(trainer: L.Trainer, *arguments: Any, **options: Any) -> Any:
            trainer.limit_train_batches = trainer.limit_val_batches = 2
            trainer.limit_test_batches = trainer.limit_predict_batches = 2
            trainer.fit_loop.max_epochs = trainer.check_val_every_n_epoch = 1
            return loops[name](trainer, *arguments, **options)

        return run

    with pytest.MonkeyPatch.context() as patch:
        for name in loops:
            patch.setattr(L.Trainer, name, cut(name))
        yield


@pytest.fixture
def brief_training() -> Iterator[None]:
    """Cuts every training and evaluation of a test to two batches of one epoch."""
    with briefly():
        yield


@pytest.fixture
def in_workspace(workspace: Path, request: pytest.FixtureRequest) -> Iterator[None]:
    """Runs a block in its document's own copy of the workspace."""
    document = request.path.relative_to(ROOT).with_suffix("")
    folder = workspace.with_name("-".join([workspace.name, *document.parts]))
    if not folder.exists():
        shutil.copytree(workspace, folder, symlinks=True)
    with contextlib.chdir(folder), briefly():
        yield


pytest_collect_file = Sybil(
    parsers=[
        SkipParser(),
        PythonCodeBlockParser(),
        CodeBlockParser(language="sh", evaluator=run_commands),
        CodeBlockParser(language="yaml", evaluator=read_configuration),
    ],
    patterns=DOCUMENTS,
    fixtures=["in_workspace"],
).pytest()
