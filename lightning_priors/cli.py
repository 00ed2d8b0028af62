"""The command line for everything that trains or evaluates: Lightning's, with its traps closed and short errors."""

import logging
import pickle
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from jsonargparse import ActionConfigFile, Namespace  # type: ignore[attr-defined]  # they are in its __all__
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_priors.callbacks import PredictionWriter, run_folder
from lightning_priors.cli_errors import explain
from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import Source
from lightning_priors.errors import PriorError, nearest
from lightning_priors.interruption import plain_interruptions
from lightning_priors.techniques import PriorModule
from lightning_priors.tracking import go_offline_if_needed, session

LINKED = ("num_classes", "aux_num_classes")
"""What the data decides and a model must not contradict; a technique without such an argument is left alone."""

CHOSEN_ANEW = ("optimizer", "scheduler")
"""Naming the class of one of these drops the arguments of the class that an earlier file named."""

CLASS_OPTIONS: Mapping[str, type] = {
    "model": PriorModule,
    "model.optimizer": Optimizer,
    "model.scheduler": LRScheduler,
    "data.source": Source,
    "trainer.callbacks": Callback,
    "trainer.logger": Logger,
}

TRAINER_DEFAULTS = {
    "default_root_dir": "runs",
    "max_epochs": 10,  # Lightning's is 1000, with a warning
    "log_every_n_steps": 1,  # everything is logged once an epoch, so this costs nothing and no interval is too long
}

DEFAULT_CALLBACKS = [
    {"class_path": "lightning_priors.callbacks.CAMPanel"},
    {"class_path": "lightning_priors.callbacks.ConfusionMatrix"},
]

CHECKPOINT_DEFAULTS = {"monitor": "val/acc", "mode": "max", "filename": "best"}

UNHELPFUL_WARNINGS = (
    r"The '\w+' does not have many workers",  # the pictures are small; `num_workers` is an option
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning against the newest torch
    r"(?s)\n.*deprecat",  # jsonargparse about Lightning's calls
    r"The dirpath has changed from",  # a resumed run has a folder of its own
    r"You're using the WeightAveraging callback, but loading",  # the averaged weights are what is evaluated
)

NO_NEWS = ("💡 Tip", "TPU available", "HPU available", "Loading `train_dataloader` to estimate")
"""How the lines of Lightning's that are left out begin."""


def main(arguments: Sequence[str]) -> int:
    """Runs a command of Lightning's.

    Args:
        arguments: The command and its options.

    Returns:
        The exit code 0.

    Raises:
        PriorError: For a user's mistake, wherever in the run it shows.
        KeyboardInterrupt: After Ctrl-C, when Lightning has shut down.
        Terminated: After SIGTERM, likewise.
        SystemExit: After ``--help`` and ``--print_config``.
    """
    with _less_noise(), session(), plain_interruptions():
        try:
            PriorCLI(arguments)
        except MisconfigurationException as error:
            raise PriorError(" ".join(str(error).split())) from error
        except Exception as error:
            if mistake := _mistake_behind(error):
                raise mistake from error
            raise
    return 0


class Parser(LightningArgumentParser):
    """Lightning's parser, whose errors are one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises a `PriorError` instead of printing the usage; a nested parser reports to the one above it."""
        if not self.exit_on_error:
            super().error(message, ex)
        raise PriorError(explain(message, _options(self), CLASS_OPTIONS)) from ex


class ConfigFile(ActionConfigFile):
    """The option ``-c``: later files win, and what is wrong in a file is said with the file's name."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Adds the entries of one file."""
        path = Path(values)
        if not path.is_file():
            files = sorted(path.parent.glob("*.yaml")) or sorted(Path("configs").rglob("*.yaml"))
            raise PriorError(f"there is no file {values}; {nearest(str(values), map(str, files))}".rstrip("; "))
        try:
            for name in _classes_in(yaml.safe_load(path.read_text())):
                if namespace.get(f"model.init_args.{name}") is not None:
                    namespace[f"model.init_args.{name}"] = None
            super().__call__(parser, namespace, values, option_string)  # type: ignore[no-untyped-call]
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else "?"
            raise PriorError(f"{values}, line {line}: {error.problem}") from error
        except PriorError as error:
            raise PriorError(f"{values}: {error}") from error


class RunFolder(CSVLogger):
    """The folder of a run with its metrics.csv; config.yaml has the hyper-parameters already."""

    def log_hyperparams(self, params: dict[str, Any] | None = None) -> None:  # type: ignore[override]
        """Leaves out Lightning's hparams.yaml."""


class RunRecord(SaveConfigCallback):
    """Writes config.yaml into the run folder and the full configuration to W&B.

    Lightning's own callback writes to a folder that all runs share when the logger is not a file logger.
    """

    def __init__(self, parser: LightningArgumentParser, config: Namespace) -> None:
        super().__init__(parser, config, save_to_log_dir=False)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called once, on rank zero, when the run starts."""
        text = self.parser.dump(self.config, skip_none=False)
        folder = run_folder(trainer)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(text)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_hyperparams({**yaml.safe_load(text), "run_folder": str(folder)})

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keeps the choice of optimiser and schedule, which are no hyper-parameters of the module."""
        checkpoint["chosen"] = _chosen(self.config)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Says how to continue a run that was interrupted."""
        last = run_folder(trainer) / "checkpoints" / "last.ckpt"
        if isinstance(exception, KeyboardInterrupt | SIGTERMException) and last.is_file():
            rank_zero_info(f"to continue after the last full epoch: the same command with --ckpt_path {last}")


class PriorCLI(LightningCLI):
    """The commands fit, validate, test and predict for every technique.

    Args:
        arguments: The command and its options.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.given: dict[str, Any] = {}
        self.checkpoint: dict[str, Any] | None = None
        super().__init__(
            PriorModule,
            PriorDataModule,
            subclass_mode_model=True,
            save_config_callback=RunRecord,
            # Lightning's `save_last` keeps a copy of the best checkpoint; a run that was interrupted needs the last one
            trainer_defaults={**TRAINER_DEFAULTS, "callbacks": [PredictionWriter(), ModelCheckpoint(filename="last")]},
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs={"allow_abbrev": False},
            auto_configure_optimizers=False,
            args=list(arguments),
        )

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Makes the parser of a command."""
        parser = Parser(prog="lightning-priors", **kwargs)
        parser.add_argument("-c", "--config", action=ConfigFile, help="A configuration file; may be given repeatedly.")
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the default checkpoints and source, and what the data tells the model."""
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults({f"checkpoint.{name}": value for name, value in CHECKPOINT_DEFAULTS.items()})
        parser.set_defaults({"trainer.callbacks": DEFAULT_CALLBACKS})
        parser.set_defaults({"data.source": {"class_path": "lightning_priors.data.sources.Kakapo"}})
        for action in parser._actions:
            if action.dest == "data.source":
                action.required = False
        for name in LINKED:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses, and notes what the user gave for the linked arguments, which a link would override silently."""
        args = _classes_anew(args)
        self.config = parser.parse_args(args)
        given = parser.parse_args(args, defaults=False).get(f"{self.config.subcommand}.model.init_args") or {}
        self.given = {name: given[name] for name in LINKED if given.get(name) is not None}

    def _parse_ckpt_path(self) -> None:
        """Keeps to the command line, where Lightning would let the checkpoint's hyper-parameters override it."""

    def before_instantiate_classes(self) -> None:
        """Looks at the checkpoint before anything is built, and at W&B before it is asked for."""
        config = self.config[self.config.subcommand]
        if config.ckpt_path is not None:
            self.checkpoint = _read_checkpoint(config.ckpt_path)
            trained = self.checkpoint.get("hyper_parameters", {}).get("_class_path", "").rpartition(".")[2]
            asked = config.model.class_path.rpartition(".")[2]
            if trained and trained != asked:
                raise PriorError(f"{config.ckpt_path} is a checkpoint of {trained}, not of {asked}")
        if "WandbLogger" in str(config.trainer.logger) and not config.trainer.fast_dev_run:
            go_offline_if_needed()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Puts the run folder ``runs/<Technique>/version_<N>`` before the loggers that the user asked for.

        The first logger decides where checkpoints, panels and the configuration go.
        """
        options = self._get(self.config_init, "trainer")
        if options.enable_checkpointing is False:
            self._parser(self.subcommand).callback_keys.remove("checkpoint")
            self.trainer_defaults["callbacks"] = [PredictionWriter()]
        asked = options.logger
        folder = RunFolder(options.default_root_dir, name=type(self.model).__name__)
        if asked is False:
            kwargs["default_root_dir"] = folder.log_dir
        else:
            loggers = [asked] if isinstance(asked, Logger) else [] if asked is None or asked is True else list(asked)
            own = [] if any(isinstance(logger, CSVLogger) for logger in loggers) else [folder]
            kwargs["logger"] = [*own, *loggers]
        try:
            return super().instantiate_trainer(**kwargs)
        except ValueError as error:  # a strategy or a plug-in that it does not know
            raise PriorError(" ".join(str(error).split())) from error

    def after_instantiate_classes(self) -> None:
        """Compares what the user gave with what the data and the checkpoint say."""
        for name, value in self.given.items():
            if value != (actual := getattr(self.datamodule, name)):
                raise PriorError(f"--model.{name} {value} contradicts the data, which has {actual}; leave it out")
        if self.checkpoint is not None:
            self._check_checkpoint(self.checkpoint)

    def _check_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses weights that do not fit, and a resumption with other options than those of the run's start.

        Resuming restores the state of the optimiser, so a new learning rate would be ignored without a word.
        """
        chosen = _chosen(self.config[self.subcommand])
        before = {**checkpoint.get("hyper_parameters", {}), **checkpoint.get("chosen", {})}
        changes = _changes(before, {**self.model.hparams, **chosen})
        if not _fits(self.model, checkpoint["state_dict"]):
            reason = f" ({changes})" if changes else ""
            raise PriorError(f"the checkpoint does not fit this model{reason}; give its run's config.yaml with -c")
        if self.subcommand == "fit" and changes:
            raise PriorError(
                f"a resumed run keeps its options ({changes}); for a new run from these weights use --model.weights"
            )

    def before_validate(self) -> None:
        """Says when there is nothing trained to evaluate."""
        if self.checkpoint is None:
            rank_zero_info(f"no --ckpt_path: {self.subcommand} uses the weights that the model starts from")

    before_test = before_predict = before_validate

    def after_fit(self) -> None:
        """Says where everything is and how good the best checkpoint was."""
        best = self.trainer.checkpoint_callback
        if isinstance(best, ModelCheckpoint) and best.best_model_score is not None:
            rank_zero_info(f"best {best.monitor} {best.best_model_score:.4f}: {_short(best.best_model_path)}")


def _options(parser: LightningArgumentParser) -> list[str]:
    """The options of a parser and of its commands, without dashes."""
    options: dict[str, None] = {}
    for action in parser._actions:
        options |= dict.fromkeys(string[2:] for string in action.option_strings if string.startswith("--"))
        for command in action.choices.values() if isinstance(action.choices, dict) else ():
            options |= dict.fromkeys(_options(command))
    return list(options)


def _classes_anew(arguments: Sequence[str]) -> list[str]:
    """Puts a reset before each ``--model.optimizer CLASS``, so that no argument of an earlier class stays.

    >>> _classes_anew(["fit", "--model.optimizer", "SGD", "--model.optimizer.lr", "1"])
    ['fit', '--model.optimizer=null', '--model.optimizer', 'SGD', '--model.optimizer.lr', '1']
    """
    options = [f"--model.{name}" for name in CHOSEN_ANEW]
    complete: list[str] = []
    for argument in arguments:
        name = argument.partition("=")[0]
        complete += [f"{name}=null", argument] if name in options else [argument]
    return complete


def _classes_in(content: object) -> list[str]:
    """Which of `CHOSEN_ANEW` a configuration file names the class of.

    >>> _classes_in({"model": {"init_args": {"optimizer": {"class_path": "SGD"}, "lr": 1}}})
    ['optimizer']
    """
    model = content.get("model") if isinstance(content, dict) else None
    init_args = model.get("init_args") if isinstance(model, dict) else None
    if not isinstance(init_args, dict):
        return []
    return [
        name
        for name in CHOSEN_ANEW
        if isinstance(init_args.get(name), str) or "class_path" in (init_args.get(name) or ())
    ]


def _chosen(config: Namespace) -> dict[str, Any]:
    """The classes of `CHOSEN_ANEW` with their arguments, as plain values that a checkpoint can hold."""
    given = {name: config.model.get(f"init_args.{name}") for name in CHOSEN_ANEW}
    return {name: value.as_dict() if isinstance(value, Namespace) else value for name, value in given.items()}


def _read_checkpoint(path: str) -> dict[str, Any]:
    """Reads a checkpoint without copying its tensors into memory."""
    if not Path(path).is_file():
        files = sorted(Path(path).parent.glob("*.ckpt"))
        raise PriorError(f"there is no checkpoint {path}; {nearest(path, map(str, files))}".rstrip("; "))
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        checkpoint["state_dict"].keys()
    except (RuntimeError, pickle.UnpicklingError, KeyError, TypeError) as error:
        raise PriorError(f"{path} is not a checkpoint of a training run") from error
    return checkpoint


def _fits(model: LightningModule, state: Mapping[str, torch.Tensor]) -> bool:
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    return shapes == {name: tensor.shape for name, tensor in state.items()}


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two sets of hyper-parameters, of those that both have.

    >>> _changes({"lr": 0.1, "_class_path": "A"}, {"lr": 0.5, "backbone": "tiny"})
    'lr was 0.1, now 0.5'
    """
    both = [name for name in now if name in before and not name.startswith("_")]
    return ", ".join(f"{name} was {before[name]}, now {now[name]}" for name in both if before[name] != now[name])


def _mistake_behind(error: BaseException | None) -> PriorError | None:
    """The user's mistake among the causes of an error: the parser wraps what a constructor raises."""
    while error is not None and not isinstance(error, PriorError):
        error = error.__cause__
    return error


@contextmanager
def _less_noise() -> Iterator[None]:
    """Keeps advertisements, and warnings that no user can act on, off the terminal."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addFilter(_is_news)
    try:
        with warnings.catch_warnings():
            for message in UNHELPFUL_WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        logger.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(NO_NEWS)


def _short(path: str) -> str:
    return str(Path(path).relative_to(Path.cwd())) if Path(path).is_relative_to(Path.cwd()) else path
