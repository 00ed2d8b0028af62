"""The commands fit, validate, test and predict: Lightning's, with its traps closed and short errors."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ActionConfigFile, Namespace  # type: ignore[attr-defined]  # they are in its __all__
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from lightning_priors.callbacks import PredictionWriter, RunCheckpoint, StartReport, WholeFiles, run_folder
from lightning_priors.cli.class_paths import check_class_paths, not_a_class
from lightning_priors.cli.errors import explain
from lightning_priors.cli.interruption import plain_interruptions
from lightning_priors.cli.lightning import Command, import_path, make_optional, option_names, take_hyperparameters
from lightning_priors.cli.mistakes import mistake_of
from lightning_priors.cli.quiet import less_noise
from lightning_priors.cli.run_folders import remove_failed_start, run_of, unused
from lightning_priors.cli.short_help import help_text
from lightning_priors.cli.trainer_options import check_trainer
from lightning_priors.cli.user_modules import import_failure, watched_imports, working_folder_importable
from lightning_priors.cli.wandb_offline import go_offline_if_needed, session
from lightning_priors.cli.wandb_run import (
    asked_for_model,
    directions,
    log_classifier,
    propose,
    run_name,
    run_tags,
    summarise_by_best,
)
from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import Source
from lightning_priors.errors import PriorError
from lightning_priors.priors import Prior
from lightning_priors.shipped import config_folder, find_config
from lightning_priors.techniques import PriorModule
from lightning_priors.trained.checkpoint import changes, fits, read_checkpoint, trained_technique
from lightning_priors.whole_files import write_text
from lightning_priors.yaml_file import read_yaml

LINKED = ("num_classes", "aux_num_classes")
"""Arguments of the model that the data decides; a technique without such an argument is left alone."""

CHOICES = ("optimizer", "scheduler")
"""Arguments of the model that take a class. Naming one drops the arguments of the class that an earlier file named."""

CLASS_OPTIONS: Mapping[str, type] = {
    "model": PriorModule,
    "model.priors": Prior,
    "model.extra_metrics": Metric,
    "model.optimizer": Optimizer,
    "model.scheduler": LRScheduler,
    "data.source": Source,
    "trainer.callbacks": Callback,
    "trainer.logger": Logger,
}
"""The base class of each option that takes a class or a list of classes; error lines suggest its subclasses."""

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
        SystemExit: After ``--help-all`` and ``--print_config``.

    >>> main(["fit", "--model=Pretraind"])
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: --model: there is no class 'Pretraind'; did you mean 'Pretrained'?
    """
    with working_folder_importable(), less_noise(), session(), plain_interruptions():
        try:
            if text := help_text(arguments, CLASS_OPTIONS):
                print(text)
                return 0
            PriorCLI(["--help" if argument == "--help-all" else argument for argument in arguments])
        except MisconfigurationException as error:
            raise PriorError(" ".join(str(error).split())) from error
        except Exception as error:
            if mistake := mistake_of(error):
                raise mistake from error
            raise
    return 0


class Parser(LightningArgumentParser):
    """Lightning's parser, whose errors are one line."""

    class_options: Mapping[str, type] = CLASS_OPTIONS
    """The base class of each option that takes a class."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises a `PriorError` instead of printing the usage; a nested parser tells the parser above it."""
        if not self.exit_on_error:
            super().error(message, ex)
        raise PriorError(explain(message, option_names(self), self.class_options)) from ex

    def add_function_arguments(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> NoReturn:
        """Refuses a function where a configuration names a class; jsonargparse would call it to make the object."""
        raise ValueError(f"'{import_path(function)}' {not_a_class(function)}")


class ConfigFile(ActionConfigFile):
    """The option ``-c``: a later file wins over an earlier one, and an error line begins with the file's name.

    A shipped configuration can be given by its name alone.
    """

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Adds the entries of one file."""
        path, _ = find_config(str(values))
        try:
            for name in _choices_in(read_yaml(path)):
                if namespace.get(f"model.init_args.{name}") is not None:
                    namespace[f"model.init_args.{name}"] = None
            self.apply(parser, namespace, str(path), option_string)
        except PriorError as error:
            named = str(error).startswith(str(path))
            raise PriorError(str(error) if named else f"{values}: {error}") from error

    def apply(self, parser: Any, namespace: Any, values: Any, option_string: str | None) -> None:
        """Adds the entries of a file that exists."""
        super().__call__(parser, namespace, values, option_string)  # type: ignore[no-untyped-call]


class RunFolder(CSVLogger):
    """Writes metrics.csv into the folder of a run."""

    def log_hyperparams(self, params: dict[str, Any] | None = None) -> None:  # type: ignore[override]
        """Writes no hparams.yaml, because config.yaml has the hyper-parameters."""


class RunRecord(SaveConfigCallback):
    """Writes config.yaml into the run folder and the full configuration to W&B.

    Lightning's own callback writes to a folder that all runs share when the logger is not a file logger. Other loggers
    than W&B's get the module's hyper-parameters; W&B would have them twice.
    """

    def __init__(self, parser: LightningArgumentParser, config: Namespace) -> None:
        super().__init__(parser, config, save_to_log_dir=False)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes the configuration; Lightning calls this once, on rank zero, when the run starts."""
        text = self.parser.dump(self.config, skip_none=False)
        folder = run_folder(trainer)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "config.yaml", text)
        hyperparameters = take_hyperparameters(pl_module)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                linked = {name: hyperparameters[name] for name in LINKED if name in hyperparameters}
                logger.log_hyperparams({**yaml.safe_load(text), **linked, "run_folder": str(folder)})
                if isinstance(pl_module, PriorModule):
                    selection = self.config.checkpoint
                    summarise_by_best(logger.experiment, directions(pl_module, selection.monitor, selection.mode))
            elif hyperparameters:
                logger.log_hyperparams(hyperparameters)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the choice of optimizer and scheduler, which are no hyper-parameters of the module."""
        checkpoint["chosen"] = _chosen(self.config)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Says how to continue a run that was interrupted, and removes what a failed start has left."""
        last = run_folder(trainer) / "checkpoints" / "last.ckpt"
        if isinstance(exception, KeyboardInterrupt | SIGTERMException) and last.is_file():
            rank_zero_info(f"to continue after the last full epoch: the same command with --ckpt_path {last}")
        if trainer.is_global_zero:
            remove_failed_start(run_folder(trainer))


class PriorCLI(Command):
    """The commands fit, validate, test and predict for every technique.

    Args:
        arguments: The command and its options.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.command = arguments[0] if arguments else ""
        self.names_folder = any(argument.startswith("--trainer.default_root_dir") for argument in arguments)
        self.given: dict[str, Any] = {}
        self.checkpoint: dict[str, Any] | None = None
        super().__init__(
            PriorModule,
            PriorDataModule,
            subclass_mode_model=True,
            save_config_callback=RunRecord,
            # Lightning's `save_last` keeps a copy of the best checkpoint; a run that was interrupted needs the last one
            trainer_defaults={**TRAINER_DEFAULTS, "callbacks": [*self._reporters(), RunCheckpoint(filename="last")]},
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs={"allow_abbrev": False},
            auto_configure_optimizers=False,
            args=list(arguments),
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # Lightning's is static
        """Returns the given command alone: the parsers of all of them take a fifth of the time of a small run."""
        known = super().subcommands()
        return {self.command: known[self.command]} if self.command in known else known

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Makes the parser of a command."""
        parser = Parser(prog="lightning-priors", **kwargs)
        parser.add_argument("-c", "--config", action=ConfigFile, help="A configuration file; may be given repeatedly.")
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the default checkpoints and source, and what the data tells the model."""
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        parser.set_defaults({f"checkpoint.{name}": value for name, value in CHECKPOINT_DEFAULTS.items()})
        parser.set_defaults({"trainer.callbacks": DEFAULT_CALLBACKS})
        parser.set_defaults({"data.source": {"class_path": "lightning_priors.data.sources.Kakapo"}})
        make_optional(parser, "data.source")
        for name in LINKED:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the options, and notes the linked arguments that the user gave, because a link overrides them."""
        args = _reset_choices(args)
        with watched_imports() as failures:
            try:
                given = self._given(parser, args)
                self.config = parser.parse_args(args)
            except (Exception, SystemExit) as error:
                if line := import_failure(error, failures):
                    raise PriorError(line) from error
                raise
        check_class_paths(self.parser_of(self.config.subcommand), self.config[self.config.subcommand])
        init_args = given.get("model.init_args") or {}
        self.given = {name: init_args[name] for name in LINKED if init_args.get(name) is not None}

    def _given(self, parser: LightningArgumentParser, args: Sequence[str]) -> Namespace:
        """Parses without defaults; a source that the user names then gets no arguments of the default source."""
        config = parser.parse_args([arg for arg in args if not arg.startswith("--print_config")], defaults=False)
        given: Namespace = config[config.subcommand]
        if source := given.get("data.source.class_path"):
            self.parser_of(config.subcommand).set_defaults({"data.source": {"class_path": source}})
        return given

    def seed(self) -> None:
        """Seeds all random number generators, which take no more than 32 bits."""
        seed = self.config[self.subcommand].get("seed_everything")
        if not isinstance(seed, bool) and seed is not None and not 0 <= seed < 2**32:
            raise PriorError(f"--seed_everything is from 0 to {2**32 - 1}, not {seed}")
        super().seed()

    def before_instantiate_classes(self) -> None:
        """Reads the checkpoint before anything is built, and takes W&B offline where it cannot be reached."""
        config = self.config[self.config.subcommand]
        for path in map(str, config.config or []):
            if Path(path).is_relative_to(config_folder()):
                rank_zero_info(f"-c: the shipped configuration {path}")
        if config.ckpt_path is not None:
            self.checkpoint = read_checkpoint(config.ckpt_path)
            trained = trained_technique(self.checkpoint)
            asked = config.model.class_path.rpartition(".")[2]
            if trained and trained != asked:
                raise PriorError(f"{config.ckpt_path} is a checkpoint of {trained}, not of {asked}")
        if "WandbLogger" in str(config.trainer.logger) and not config.trainer.fast_dev_run:
            go_offline_if_needed()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Puts the run folder before the loggers that the user asked for.

        The first logger decides where checkpoints, panels and the configuration go.
        """
        options = self.built("trainer")
        check_trainer(options)
        if options.enable_checkpointing is False:
            self.parser_of(str(self.subcommand)).callback_keys.remove("checkpoint")
            self.trainer_defaults["callbacks"] = self._reporters()
        asked = options.logger
        folder = self._run_folder(options.default_root_dir)
        if asked is False:
            kwargs["default_root_dir"] = folder.log_dir
        else:
            loggers = [asked] if isinstance(asked, Logger) else [] if asked is None or asked is True else list(asked)
            own = [] if any(isinstance(logger, CSVLogger) for logger in loggers) else [folder]
            kwargs["logger"] = [*own, *loggers]
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (ValueError, TypeError) as error:  # a strategy, a plug-in or a number of devices that it does not know
            raise PriorError(" ".join(str(error).split())) from error
        if options.sync_batchnorm and trainer.strategy.root_device.type == "cpu":
            raise PriorError("--trainer.sync_batchnorm works on GPUs alone; leave it out")
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # not one that the user gave
            trainer.strategy.checkpoint_io = WholeFiles()
        return trainer

    def _run_folder(self, root: str) -> RunFolder:
        """Makes ``runs/<Technique>/version_<N>``, or in an evaluation ``RUN/test`` of the run of the checkpoint.

        A second evaluation goes to ``RUN/test_1``. A root on the command line is where the folder is.
        """
        checkpoint = self.config[self.subcommand].ckpt_path
        run = run_of(checkpoint) if checkpoint and self.subcommand != "fit" and not self.names_folder else None
        if run is None:
            return RunFolder(root, name=type(self.model).__name__)
        return RunFolder(run, name="", version=unused(run, str(self.subcommand)))

    @staticmethod
    def _reporters() -> list[Callback]:
        return [PredictionWriter(), StartReport()]

    def after_instantiate_classes(self) -> None:
        """Compares what the user gave with what the data and the checkpoint say."""
        for name, value in self.given.items():
            if value != (actual := getattr(self.datamodule, name)):
                raise PriorError(f"--model.{name} {value} contradicts the data, which has {actual}; leave it out")
        if self.checkpoint is not None:
            self._check_checkpoint(self.checkpoint)

    def _check_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses weights that do not fit, and a resumed run whose options have changed.

        Lightning restores the state of the optimizer and would silently ignore a new learning rate.
        """
        chosen = _chosen(self.config[self.subcommand])
        before = {**checkpoint.get("hyper_parameters", {}), **checkpoint.get("chosen", {})}
        changed = changes(before, {**self.model.hparams, **chosen})
        if not fits(self.model, checkpoint["state_dict"]):
            reason = f" ({changed})" if changed else ""
            raise PriorError(f"the checkpoint does not fit this model{reason}; give its run's config.yaml with -c")
        if self.subcommand == "fit" and changed:
            raise PriorError(
                f"a resumed run keeps its options ({changed}); for a new run from these weights use --model.weights"
            )

    def start(self) -> None:
        """Says what a W&B run is to be called, and starts."""
        seed = self.config[self.subcommand].seed_everything
        name = run_name(self.model, self.datamodule, seed)
        propose(self.trainer.loggers, name, str(self.subcommand), run_tags(self.model))
        super().start()

    def before_validate(self) -> None:
        """Says when there is nothing trained to evaluate."""
        if self.checkpoint is None:
            rank_zero_info(f"no --ckpt_path: {self.subcommand} uses the weights that the model starts from")

    before_test = before_predict = before_validate

    def before_fit(self) -> None:
        """Notes the W&B loggers that are to keep the classifier."""
        self.keepers = asked_for_model(self.trainer.loggers)

    def after_fit(self) -> None:
        """Says where the best checkpoint is and how good it was."""
        best = self.trainer.checkpoint_callback
        if isinstance(best, ModelCheckpoint) and best.best_model_score is not None:
            rank_zero_info(f"best {best.monitor} {best.best_model_score:.4f}: {_short(best.best_model_path)}")
            if self.trainer.is_global_zero:
                self.keep_classifier(best)

    def keep_classifier(self, best: ModelCheckpoint) -> None:
        """Gives the selected checkpoint to the W&B loggers that are to keep it."""
        about = {"monitor": best.monitor, "score": float(best.best_model_score or 0.0)}
        for logger in self.keepers:
            log_classifier(logger, self.model, best.best_model_path, run_folder(self.trainer), about)


def _reset_choices(arguments: Sequence[str]) -> list[str]:
    """Puts a reset before each ``--model.optimizer CLASS``, so that no argument of an earlier class stays.

    >>> _reset_choices(["fit", "--model.optimizer", "SGD", "--model.optimizer.lr", "1"])
    ['fit', '--model.optimizer=null', '--model.optimizer', 'SGD', '--model.optimizer.lr', '1']
    """
    options = [f"--model.{name}" for name in CHOICES]
    complete: list[str] = []
    for argument in arguments:
        name = argument.partition("=")[0]
        complete += [f"{name}=null", argument] if name in options else [argument]
    return complete


def _choices_in(content: object) -> list[str]:
    """Lists those of `CHOICES` for which a configuration file names a class.

    >>> _choices_in({"model": {"init_args": {"optimizer": {"class_path": "SGD"}, "lr": 1}}})
    ['optimizer']
    """
    model = content.get("model") if isinstance(content, dict) else None
    init_args = model.get("init_args") if isinstance(model, dict) else None
    if not isinstance(init_args, dict):
        return []
    return [
        name for name in CHOICES if isinstance(init_args.get(name), str) or "class_path" in (init_args.get(name) or ())
    ]


def _chosen(config: Namespace) -> dict[str, Any]:
    """Returns `CHOICES` with their arguments, as plain values that a checkpoint can hold."""
    given = {name: config.model.get(f"init_args.{name}") for name in CHOICES}
    return {name: value.as_dict() if isinstance(value, Namespace) else value for name, value in given.items()}


def _short(path: str) -> str:
    return str(Path(path).relative_to(Path.cwd())) if Path(path).is_relative_to(Path.cwd()) else path
