"""Whatever is typed: a command line runs, or is refused in one line with exit code 2, and soon."""

import json
import random
import resource
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from command_line import FIT, SMALL, run_cli
from PIL import Image

from lightning_priors.cli.main import PriorCLI

pytestmark = pytest.mark.faults

SEEDS = range(300)
SECONDS = 100
MOST_MEMORY = 12 << 30


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a finished run and with files of many kinds."""
    folder = tmp_path_factory.mktemp("typed")
    assert run_cli(*FIT, f"--trainer.default_root_dir={folder / 'runs'}") == 0
    checkpoint = folder / "runs" / "Pretrained" / "version_0" / "checkpoints" / "best.ckpt"
    content = checkpoint.read_bytes()
    (folder / "half.ckpt").write_bytes(content[: len(content) // 2])
    (folder / "odd.ckpt").write_bytes(content[:5000] + bytes(2000) + content[7000:])
    Image.new("RGB", (8, 8)).save(folder / "bird.png")
    (folder / "pictures").mkdir()
    Image.new("RGB", (40, 40)).save(folder / "pictures" / "bird.png")
    (folder / "empty").mkdir()
    (folder / "notes.txt").write_text("a note\n")
    (folder / "nothing").write_bytes(b"")
    (folder / "list.yaml").write_text("- 1\n- 2\n")
    (folder / "plan.yaml").write_text("runs: {a: {configs: [nowhere.yaml]}}\nseeds: [0]\n")
    (folder / "table.csv").write_text("path,label\npictures/bird.png,a\n")
    return folder


@pytest.fixture(autouse=True)
def _bounded(place, monkeypatch) -> Iterator[None]:
    """In that folder, for a limited time, with less memory than the machine has."""
    monkeypatch.chdir(place)

    def ring(number: int, frame: object) -> None:
        raise TimeoutError(f"still busy after {SECONDS} seconds")

    before, memory = signal.signal(signal.SIGALRM, ring), resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, memory[1]))
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    resource.setrlimit(resource.RLIMIT_AS, memory)


def answer(capsys, arguments: Sequence[str]) -> tuple[int, str]:
    """The exit code, and the one line of a refusal."""
    try:
        code = run_cli(*arguments)
    except SystemExit as stop:  # of --help-all and --print_config
        code = int(stop.code or 0)
    shown = capsys.readouterr().err
    lines = [line for line in shown.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in shown
    if code == 0:
        return code, ""
    assert code == 2, shown
    assert len(lines) == 1, shown
    assert shown.splitlines()[-1] == lines[0]
    assert 12 < len(lines[0]) < 1000
    assert lines[0].isprintable()
    return code, lines[0].removeprefix("error: ")


REFUSED = {
    "a rate below 0": (["--model.lr=-1"], "lr is above 0, not -1.0"),
    "an infinite rate": (["--model.lr=1e400"], "lr is above 0, not inf"),
    "a schedule of no steps": (["--model.scheduler=StepLR", "--model.scheduler.step_size=0"], "scheduler: "),
    "a dilation below 0": (["--model=CAMRestriction", "--model.dilation=-1"], "dilation is 0 or more, not -1.0"),
    "a weight below 0": (["--model=CAMRestriction", "--model.weight=-1"], "weight is 0 or more, not -1.0"),
    "a warm-up below 0": (
        ["--model=CAMRestriction", "--model.weight_warmup_epochs=-3"],
        "weight_warmup_epochs is 0 or more, not -3.0",
    ),
    "no pixel of a crop": (["--model=GlobalLocal", "--model.crop_size=0"], "crop_size is at least 1, not 0"),
    "a crop below 0": (["--model=GlobalLocal", "--model.crop_size=-5"], "crop_size is at least 1, not -5"),
    "a huge crop": (["--model=GlobalLocal", "--model.crop_size=1000000"], "crop_size is at most 4,096, not 1,000,000"),
    "a crop without width": (["--model=GlobalLocal", "--model.crop_scale=0"], "crop_scale is above 0, not 0.0"),
    "no part": (["--model=GlobalLocal", "--model.num_parts=0"], "num_parts is at least 1, not 0"),
    "too many parts": (
        ["--model=GlobalLocal", "--model.num_parts=99"],
        "num_parts is 99, but the data has boxes of 1 parts",
    ),
    "pictures of a pixel": (["--data.image_size=1"], "image_size is at least 4, not 1"),
    "huge pictures": (["--data.image_size=1000000"], "image_size is at most 16,384, not 1,000,000"),
    "huge drawn pictures": (["--data.source.size=100000000"], "Kakapo: size must be at most 4096 pixels"),
    "too many workers": (["--data.num_workers=100000"], "num_workers is at most 256, not 100,000"),
    "a huge seed": (["--seed_everything=99999999999999999999"], "--seed_everything is from 0 to 4294967295, not "),
    "a seed below 0": (["--seed_everything=-1"], "--seed_everything is from 0 to 4294967295, not -1"),
    "a huge seed of the data": (["--data.seed=99999999999999999999"], "seed is at most "),
    "too many sub-classes": (["--model=MAXL", "--model.subclasses=100000000"], "200,000,000 sub-classes are more than"),
    "devices that are no number": (["--trainer.devices=x"], "should be an int > 0"),
    "devices below 0": (["--trainer.devices=-7"], "should be an int > 0"),
    "a machine that is not there": (["--trainer.accelerator=tpu"], "needs a package that is not installed"),
    "no batch to accumulate": (
        ["--trainer.accumulate_grad_batches=0"],
        "--trainer.accumulate_grad_batches is at least 1, not 0",
    ),
    "no epoch to validate after": (
        ["--trainer.check_val_every_n_epoch=0"],
        "--trainer.check_val_every_n_epoch is at least 1, not 0",
    ),
    "a validation after too many batches": (
        ["--trainer.val_check_interval=99999"],
        "`val_check_interval` (99999) must be less than or equal to the number of the training batches",
    ),
    "a validation after no batch": (["--trainer.val_check_interval=0"], "--trainer.val_check_interval is above 0"),
    "clipping below 0": (["--trainer.gradient_clip_val=-1"], "--trainer.gradient_clip_val is at least 0, not -1"),
    "a stop for a metric that is not there": (
        ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/nothing"],
        "Early stopping conditioned on metric `val/nothing` which is not available",
    ),
    "a monitor that is not there": (["--checkpoint.monitor=val/nothing"], "could not find the monitored key"),
    "a logger without its package": (["--trainer.logger=MLFlowLogger"], "needs a package that is not installed"),
    "options that are a list": (
        ["--model=Combined", "--model.tuning=[1]"],
        "an option of Combined takes a group of options by their names, not a list",
    ),
    "epochs of a probe below 0": (["--model=Combined", "--model.tuning.probe_epochs=-1"], "probe_epochs"),
    "a warm-up of the rate below 0": (["--model.warmup_epochs=-1"], "warmup_epochs is 0 or more, not -1.0"),
    "a decay below 0": (["--model=Combined", "--model.tuning.layer_decay=-1"], "layer_decay is above 0, not -1"),
    "a scheduler that is a file": (["--model.scheduler=notes.md"], "there is no class 'notes.md'"),
    "a picture as a configuration": (["-c", "bird.png"], "bird.png is not a text file in UTF-8"),
    "a folder as a configuration": (["-c", "pictures"], "pictures"),
    "a note as a configuration": (["-c", "notes.txt"], "notes.txt: "),
    "half a checkpoint": (["--ckpt_path=half.ckpt"], "half.ckpt is not a checkpoint of a training run"),
    "a picture as a checkpoint": (["--ckpt_path=bird.png"], "bird.png is not a checkpoint of a training run"),
    "a folder in a file": (["--trainer.default_root_dir=notes.txt"], "Not a directory"),
    "a folder where nothing is written": (["--trainer.default_root_dir=/proc/runs"], "No such file or directory"),
}
"""Command lines that once ended in a traceback, in a hang, or as if all were well."""


@pytest.mark.parametrize(("options", "said"), REFUSED.values(), ids=REFUSED)
def test_what_once_failed_is_one_line(options, said, capsys):
    base = [word for word in FIT if not any(word.startswith("--model=") and o.startswith("--model=") for o in options)]
    code, line = answer(capsys, [*base, *options])
    assert code == 2
    assert said in line


@pytest.mark.parametrize("command", ["predict", "explain", "export", "test", "fit"])
def test_an_odd_checkpoint_is_one_line(command, place, capsys):
    """Bytes of a tensor can be anything; a broken archive cannot be read."""
    odd = ["--model=Pretrained", "--ckpt_path=half.ckpt", *SMALL] if command in ("test", "fit") else ["half.ckpt"]
    further = {"export": ["--format=safetensors"], "predict": ["pictures"]}.get(command, [])
    code, line = answer(capsys, [command, *odd, *further])
    assert code == 2
    assert "half.ckpt is not a checkpoint of a training run" in line


@pytest.mark.slow
def test_nobody_reads_the_output(place):
    """As with ``| head -1``."""
    import subprocess
    import sys

    command = f"{Path(sys.executable).parent / 'lightning-priors'} fit --help-all | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


NUMBERS = ["-1", "0", "1", "1e400", "-1e400", "nan", "99999999999999999999", "0.5", "-0.0", "1e-300", "2147483648", "3"]
WORDS = ["", " ", "x", "null", "true", "[]", "{}", "[1, x]", "{a: 1}", "é\u202e", "\x1b[2J", "a" * 3000,
         "None", "'", '"', "!!python/name:os.system", "&a [*a]", "- 1", "=", "--", "%s", "{class_path: x}",
         '{"class_path": 3}', '{"class_path": "torch.optim.SGD", "init_args": 3}', "1,2", "$HOME", "\t"]  # fmt: skip
FILES = ["bird.png", "half.ckpt", "odd.ckpt", "notes.txt", "nothing", "list.yaml", "plan.yaml", "table.csv", "pictures",
         "empty", "nowhere", "/dev/null", "/proc/self/mem", "runs", "runs/Pretrained/version_0",
         "runs/Pretrained/version_0/config.yaml"]  # fmt: skip

MODELS = ["Pretrained", "CAMRestriction", "PriorAttention", "GlobalLocal", "Auxiliary", "MAXL", "Combined"]
OPTIONS = [
    "model.lr", "model.weight_decay", "model.warmup_epochs", "model.backbone", "model.weights", "model.num_classes",
    "model.tuning", "model.optimizer", "model.scheduler", "model.extra_metrics", "model.weight", "model.dilation",
    "model.crop_size", "model.crop_scale", "model.num_parts", "model.subclasses", "model.temperature", "model.priors",
    "model.loss", "model.aux_weight", "model.weighting", "model.prior", "model.fusion", "model", "data",
    "data.batch_size", "data.image_size", "data.augmentation", "data.val_fraction", "data.train_fraction",
    "data.images_per_class", "data.annotated_fraction", "data.balance", "data.held_out_fraction", "data.seed",
    "data.num_workers", "data.source", "data.source.size", "data.source.train_size", "data.source.bias",
    "data.source.root", "trainer.max_epochs", "trainer.devices", "trainer.accelerator", "trainer.strategy",
    "trainer.precision", "trainer.callbacks", "trainer.logger", "trainer.accumulate_grad_batches",
    "trainer.check_val_every_n_epoch", "trainer.val_check_interval", "trainer.limit_train_batches",
    "trainer.limit_val_batches", "trainer.gradient_clip_val", "trainer.gradient_clip_algorithm",
    "trainer.log_every_n_steps", "trainer.max_steps", "trainer.min_epochs", "trainer.max_time",
    "trainer.profiler", "trainer.plugins", "trainer.overfit_batches",
    "trainer.num_sanity_val_steps", "trainer.num_nodes", "trainer.inference_mode", "trainer.default_root_dir",
    "checkpoint.monitor", "checkpoint.mode", "checkpoint.save_top_k", "checkpoint.filename",
    "checkpoint.every_n_epochs",
    "ckpt_path", "seed_everything", "config", "print_config", "model.help", "data.source.help", "optimizer", "unknown",
]  # fmt: skip
OTHERS: dict[str, list[str]] = {
    "predict": ["RUN", "PICTURES", "out", "panels", "unreadable", "batch-size", "device"],
    "explain": ["RUN", "split", "against", "timm", "weights", "out", "device", "data.source", "data.batch_size"],
    "export": ["RUN", "format", "out"],
    "inspect-data": ["config", "data.source", "data.source.size", "data.image_size", "output", "pictures"],
    "annotate": ["config", "data.source", "by", "out", "min_score", "splits", "judge"],
    "compare": ["config", "output", "seeds", "splits", "split-by", "only", "jobs", "minutes"],
    "init": ["FOLDER", "data"],
    "configs": ["WORD"],
    "typo": [],
}


def given(draw: random.Random, name: str) -> list[str]:
    """An option, or a word that stands alone, with a value that nobody expects."""
    value = draw.choice(draw.choice((NUMBERS, WORDS, FILES)))
    if name.isupper():
        return [value]
    return draw.choice(([f"--{name}={value}"], [f"--{name}", value], [f"--{name}"], [f"--{name}={value}"]))


def typed(seed: int) -> list[str]:
    """A command line that begins as a right one does."""
    draw = random.Random(seed)
    if draw.random() < 0.7:
        command = draw.choice(("fit", "fit", "fit", "validate", "test", "predict"))
        base = [command, f"--model={draw.choice(MODELS)}", *SMALL, "--trainer.max_epochs=1"]
        base += ["--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1"]
        wrong = draw.sample(OPTIONS, draw.choice((1, 1, 2, 3)))
    else:
        command = draw.choice(list(OTHERS))
        base, wrong = [command], draw.sample(OTHERS[command], min(len(OTHERS[command]), draw.choice((1, 2, 3))))
    arguments = [*base, *(word for name in wrong for word in given(draw, name))]
    if draw.random() < 0.1:  # a word gets lost
        del arguments[draw.randrange(len(arguments))]
    return arguments


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_is_typed(seed, capsys, monkeypatch):
    start = PriorCLI.start

    def cut_off(command: PriorCLI) -> None:
        """An epoch in this process; others would start the suite again."""
        command.trainer.fit_loop.max_epochs = min(1, command.trainer.max_epochs % 2**62)
        if command.trainer.world_size == 1:
            start(command)

    monkeypatch.setattr(PriorCLI, "start", cut_off)
    answer(capsys, typed(seed))


def test_the_fuzzer_types_many_things():
    lines = [json.dumps(typed(seed)) for seed in SEEDS]
    assert len(set(lines)) > 280
    for word in (*OTHERS, *MODELS):
        assert any(word in line for line in lines)
