"""Modules of the user's in the working folder: they are found, come last, and what is wrong in them is said."""

import sys
from pathlib import Path

import pytest
import yaml
from command_line import FIT, SMALL, TOY, console, console_new, run_cli

from lightning_priors.cli.user_modules import watched_imports, working_folder_importable
from lightning_priors.import_path import failure_line

MINE = f'''{TOY}

from lightning.pytorch import Callback
from torchmetrics import Metric, SumMetric

from lightning_priors.data.sources import Kakapo
from lightning_priors.priors import Prior, Terms


class Images(SumMetric):
    """A metric of a callback."""


class Kakapos(SumMetric):
    """A metric of a technique."""

    def update(self, target: Tensor) -> None:
        super().update((target == 0).float())


class Confident(Prior):
    """A prior."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def terms(self, batch, seen, memory) -> Terms:
        return Terms({{"largest_logit": -self.weight * seen.logits.amax(1).mean()}})


def outside(saliency: Tensor, prior: Tensor) -> Tensor:
    """A guidance loss: the positive evidence outside the prior."""
    return (saliency.clamp(min=0) * (1 - prior)).mean((1, 2))


class Counter(Callback):
    """A callback that has a metric."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.metric.update(len(batch["image"]))

    def on_train_end(self, trainer, pl_module) -> None:
        print(f"{{int(self.metric.compute())}} images, {{type(self.metric).__name__}}")


class Birds(Kakapo):
    """A source."""

    def __init__(self, train_size: int = 16, val_size: int = 8, test_size: int = 8, size: int = 32) -> None:
        super().__init__(train_size=train_size, val_size=val_size, test_size=test_size, size=size)
'''

QUICK = (*SMALL, "--trainer.max_epochs=1", "--trainer.callbacks=[]")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "helper", "birds", "birds.heads"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def error_line(capsys, *arguments: str) -> str:
    assert run_cli(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


@pytest.mark.slow
class TestConsoleScript:
    def test_finds_all_that_can_be_named_in_the_working_folder(self):
        Path("mine.py").write_text(MINE)
        for name in ("torchmetrics", "yaml", "lightning"):  # an installed package comes first
            Path(f"{name}.py").write_text("raise RuntimeError('the wrong module')\n")
        counter = '[{"class_path": "mine.Counter", "init_args": {"metric": "mine.Images"}}]'
        options = (*SMALL[4:], "--trainer.max_epochs=1", f"--trainer.callbacks={counter}")
        run = console_new("fit", "--model=mine.Toy", "--data.source=mine.Birds", *options)
        assert run.returncode == 0, run.stderr
        assert "16 images, Images" in run.stdout
        config = yaml.safe_load(Path("runs/Toy/version_0/config.yaml").read_text())
        assert config["model"]["class_path"] == "mine.Toy"
        assert config["data"]["source"]["class_path"] == "mine.Birds"
        repeated = console("test", "-c", "runs/Toy/version_0/config.yaml")
        assert repeated.returncode == 0, repeated.stderr

    def test_finds_priors_and_metrics_of_a_technique(self):
        Path("mine.py").write_text(MINE)
        model = {
            "class_path": "Combined",
            "init_args": {
                "priors": [{"class_path": "mine.Confident", "init_args": {"weight": 0.5}}],
                "extra_metrics": {"kakapos": {"class_path": "mine.Kakapos"}},
            },
        }
        Path("model.yaml").write_text(yaml.safe_dump({"model": model}))
        run = console("fit", "-c", "model.yaml", *QUICK)
        assert run.returncode == 0, run.stderr
        header = Path("runs/Combined/version_0/metrics.csv").read_text().splitlines()[0].split(",")
        assert {"train/loss_largest_logit", "val/kakapos"} <= set(header)
        run = console(
            "validate", "-c", "model.yaml", *QUICK, "--ckpt_path=runs/Combined/version_0/checkpoints/best.ckpt"
        )
        assert run.returncode == 0, run.stderr

    def test_finds_guidance_losses(self):
        """In a technique, in a prior, and in the checkpoint that is evaluated."""
        Path("mine.py").write_text(MINE)
        restricted = ("--model=CAMRestriction", "--model.loss=mine.outside")
        attentive = '--model.priors=[{"class_path": "GuidedAttention", "init_args": {"loss": "mine.outside"}}]'
        for options, term in ((restricted, "restriction"), (("--model=Combined", attentive), "attention")):
            run = console("fit", *options, *QUICK)
            assert run.returncode == 0, run.stderr
            folder = Path("runs") / options[0].partition("=")[2] / "version_0"
            assert f"train/loss_{term}" in (folder / "metrics.csv").read_text()
            run = console("test", "-c", f"{folder}/config.yaml", f"--ckpt_path={folder}/checkpoints/best.ckpt")
            assert run.returncode == 0, run.stderr

    def test_shows_an_import_error_as_it_is(self):
        Path("mine.py").write_text('"""A technique."""\n\nimport nosuchthing\n')
        run = console("fit", "--model=mine.Toy", *QUICK)
        assert (run.returncode, run.stdout) == (2, "")
        assert run.stderr == "error: mine.py, line 3: ModuleNotFoundError: No module named 'nosuchthing'\n"

    def test_compares_what_stands_in_the_working_folder(self):
        Path("mine.py").write_text(MINE)
        plan = {"runs": {"toy": {"options": ["--model=mine.Toy"]}}, "options": list(QUICK), "output": "out"}
        Path("plan.yaml").write_text(yaml.safe_dump(plan))
        run = console("compare", "-c", "plan.yaml")
        assert run.returncode == 0, run.stderr
        assert Path("out/summary.md").is_file()
        Path("mine.py").write_text("import nosuchthing\n")
        run = console("compare", "-c", "plan.yaml")
        assert (run.returncode, run.stdout) == (2, "")
        assert run.stderr == "error: run 'toy': mine.py, line 1: ModuleNotFoundError: No module named 'nosuchthing'\n"


OPTIONS = {
    "technique": ["--model=mine.Toy"],
    "technique in a file": ["-c", "model.yaml"],
    "source": ["--model=Pretrained", "--data.source=mine.Birds"],
    "callback": ["--model=Pretrained", "--trainer.callbacks=mine.Counter"],
    "another callback": ["--model=Pretrained", "--trainer.callbacks+=mine.Counter"],
    "logger": ["--model=Pretrained", "--trainer.logger=mine.Logger"],
    "optimizer": ["--model=Pretrained", "--model.optimizer=mine.Adam"],
    "function": [
        "--model=Pretrained", "--model.scheduler=LambdaLR", "--model.scheduler.lr_lambda=mine.halve",
    ],
    "nested": [
        "--model=Pretrained",
        '--trainer.callbacks={"class_path": "BackboneFinetuning", "init_args": {"lambda_func": "mine.halve"}}',
    ],
    "prior": ["--model=Combined", '--model.priors=[{"class_path": "mine.Confident"}]'],
    "guidance loss": ["--model=CAMRestriction", "--model.loss=mine.outside"],
    "loss of a prior": [
        "--model=Combined", '--model.priors=[{"class_path": "Restriction", "init_args": {"loss": "mine.outside"}}]',
    ],
    "metric": ["--model=Pretrained", '--model.extra_metrics={"kakapos": {"class_path": "mine.Kakapos"}}'],
    "help": ["--model.help=mine.Toy"],
}  # fmt: skip

FAILURES = {
    "module": ("\n\nimport nosuchthing\n", "mine.py, line 3: ModuleNotFoundError: No module named 'nosuchthing'"),
    "name": ("from math import sin, sine\n", "mine.py, line 1: ImportError: cannot import name 'sine' from 'math'"),
    "syntax": ("x = 1\ndef f(:\n", "mine.py, line 2: SyntaxError: invalid syntax"),
    "indentation": ("def f():\nx = 1\n", "mine.py, line 2: IndentationError: expected an indented block"),
    "error": ("x = 1\nx / 0\n", "mine.py, line 2: ZeroDivisionError: division by zero"),
    "key": ("{}['bird']\n", "mine.py, line 1: KeyError: 'bird'"),
    "value": ("raise ValueError('two\\nlines')\n", "mine.py, line 1: ValueError: two lines"),
    "type": ("'a' + 1\n", 'mine.py, line 1: TypeError: can only concatenate str (not "int") to str'),
    "attribute": ("import math\nmath.sine\n", "mine.py, line 2: AttributeError: module 'math' has no attribute 'sine'"),
    "exit": ("import sys\nsys.exit(3)\n", "mine.py, line 2: SystemExit: 3"),
    "library": ("import json\njson.loads('{')\n", "mine.py, line 2: JSONDecodeError: Expecting property name"),
    "function": ("def f():\n    1 / 0\nf()\n", "mine.py, line 2: ZeroDivisionError: division by zero"),
    "helper": ("import helper\n", "helper.py, line 2: ModuleNotFoundError: No module named 'nosuchthing'"),
    "package": ("import birds.heads\n", "birds/heads.py, line 1: ZeroDivisionError: division by zero"),
}


class TestImportErrors:
    @pytest.fixture(autouse=True)
    def _files(self):
        Path("model.yaml").write_text("model:\n  class_path: mine.Toy\n")
        Path("helper.py").write_text("\nimport nosuchthing\n")
        Path("birds").mkdir()
        Path("birds/__init__.py").touch()
        Path("birds/heads.py").write_text("1 / 0\n")

    @pytest.mark.parametrize(("source", "said"), FAILURES.values(), ids=FAILURES)
    def test_say_file_line_and_reason(self, source, said, capsys):
        Path("mine.py").write_text(source)
        assert error_line(capsys, "fit", *OPTIONS["technique"]).startswith(said)

    @pytest.mark.parametrize("failure", ["module", "syntax", "key", "value"])
    @pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
    def test_are_said_wherever_the_module_is_named(self, options, failure, capsys):
        source, said = FAILURES[failure]
        Path("mine.py").write_text(source)
        assert error_line(capsys, "fit", *options).startswith(said)

    def test_of_a_module_in_a_package(self, capsys):
        line = error_line(capsys, "fit", "--model=birds.heads.Toy")
        assert line == "birds/heads.py, line 1: ZeroDivisionError: division by zero"

    def test_that_the_module_handles_itself_are_not_blamed(self, capsys):
        Path("mine.py").write_text(f"try:\n    import helper\nexcept ImportError:\n    helper = None\n{TOY}")
        line = error_line(capsys, "fit", "--model=mine.Toy", "--model.smothing=0.2")
        assert line == "Toy has no option 'smothing' (--model.smothing); did you mean 'smoothing'?"


class TestHints:
    @pytest.fixture(autouse=True)
    def _files(self):
        Path("mine.py").write_text(MINE)
        Path("birds").mkdir()
        Path("birds/__init__.py").touch()
        Path("birds/heads.py").write_text("class Head: pass\n")

    @pytest.mark.parametrize(
        ("option", "said"),
        [
            ("--model=mien.Toy", "--model: there is no module 'mien'; did you mean 'mine'?"),
            ("--model=bird.heads.Toy", "--model: there is no module 'bird'; did you mean 'birds'?"),
            ("--model=birds.head.Toy", "--model: there is no module 'birds.head'; did you mean 'birds.heads'?"),
            (
                "--model=lightning_prior.techniques.MAXL",
                "--model: there is no module 'lightning_prior'; did you mean 'lightning_priors'?",
            ),
            ("--model=mine.Tyo", "--model: there is no class 'mine.Tyo'; did you mean 'mine.Toy'?"),
            ("--model=mine.Zebra", "--model: there is no class 'mine.Zebra'; choose from mine.Toy"),
            (
                "--model=birds.heads.Haed",
                "--model: there is no class 'birds.heads.Haed'; it has no subclass of PriorModule",
            ),
            (
                "--model=lightning_priors.Pretraind",
                "--model: there is no class 'lightning_priors.Pretraind'; did you mean 'Pretrained'?",
            ),
            ("--data.source=mine.Bird", "--data.source: there is no class 'mine.Bird'; did you mean 'mine.Birds'?"),
            (
                "--trainer.callbacks=mine.Countr",
                "--trainer.callbacks: there is no class 'mine.Countr'; did you mean 'mine.Counter'?",
            ),
            (
                "--model.priors+=mine.Confidnt",
                "--model.priors: there is no class 'mine.Confidnt'; did you mean 'mine.Confident'?",
            ),
            (
                '--model.priors=["Restrictio"]',
                "--model.priors: there is no class 'Restrictio'; did you mean 'Restriction'?",
            ),
            (
                '--model.extra_metrics={"a": {"class_path": "mine.Kakapo"}}',
                "--model.extra_metrics takes a Metric; choose from ",
            ),
            (
                '--model.extra_metrics={"a": {"class_path": "mine.Kakapoz"}}',
                "--model.extra_metrics: there is no class 'mine.Kakapoz'; did you mean 'mine.Kakapos'?",
            ),
            ("--model.optimizer=mien.Adam", "--model.optimizer: there is no module 'mien'; did you mean 'mine'?"),
            (
                "--model.optimizer=torch.optim.Adan",
                "--model.optimizer: there is no class 'torch.optim.Adan'; did you mean 'torch.optim.Adam'?",
            ),
            ("--model=nothing.like.It", "--model: there is no class 'nothing.like.It'; choose from "),
        ],
    )
    def test_name_the_nearest_module_or_class(self, option, said, capsys):
        model = () if option.startswith("--model=") else ("--model=Combined",)
        assert error_line(capsys, "fit", *model, option).startswith(said)

    @pytest.mark.parametrize(
        ("loss", "said"),
        [
            ("energi", "there is no guidance loss 'energi'; did you mean 'energy'?"),
            ("mine.outsid", "the module mine has no 'outsid'; did you mean 'outside'?"),
            ("mien.outside", "there is no module mien; did you mean 'mine'?"),
            ("os.system", "os.system may not be named here: it could run commands, load code or change files"),
            ("mine.Toy", "guidance loss mine.Toy: a function of two tensors is wanted"),
        ],
    )
    def test_of_a_guidance_loss(self, loss, said, capsys):
        assert error_line(capsys, "fit", "--model=CAMRestriction", f"--model.loss={loss}").startswith(said)

    def test_of_a_nested_class(self, capsys):
        nested = '{"class_path": "mine.Counter", "init_args": {"metric": "%s"}}'
        callbacks = "--trainer.callbacks"
        line = error_line(capsys, *FIT, f"{callbacks}={nested % 'mine.Image'}")
        assert line == "--trainer.callbacks.metric: there is no class 'mine.Image'; did you mean 'mine.Images'?"
        line = error_line(capsys, *FIT, f"{callbacks}={nested % 'mien.Images'}")
        assert line == "--trainer.callbacks.metric: there is no module 'mien'; did you mean 'mine'?"
        line = error_line(capsys, *FIT, f"{callbacks}={nested % 'nothing.Images'}")
        assert line == "--trainer.callbacks.metric: there is no class 'nothing.Images'"


class TestSearchPath:
    def test_has_the_working_folder_last_and_only_within(self, tmp_path):
        before = list(sys.path)
        with working_folder_importable():
            assert sys.path == [*before, str(tmp_path)]
        assert sys.path == before

    def test_keeps_a_folder_that_is_there_already(self, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(str(tmp_path))
        before = list(sys.path)
        with working_folder_importable():
            assert sys.path == before
        assert sys.path == before

    def test_is_restored_after_a_command(self):
        before = list(sys.path), list(sys.meta_path)
        Path("mine.py").write_text("import nosuchthing\n")
        assert run_cli("fit", "--model=mine.Toy") == 2
        assert (sys.path, sys.meta_path) == before


def test_watching_collects_what_nobody_handles(tmp_path, monkeypatch):
    Path("mine.py").write_text("try:\n    import helper\nexcept ValueError:\n    pass\n")
    Path("helper.py").write_text("raise ValueError('handled')\n")
    with working_folder_importable(), watched_imports() as failures:
        import mine  # noqa: F401

        assert failures == []
        with pytest.raises(ValueError, match="handled"):
            import helper  # noqa: F401
    assert [failure_line(error) for error in failures] == ["helper.py, line 1: ValueError: handled"]
