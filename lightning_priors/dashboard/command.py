"""The command ``lightning-priors dashboard``: makes the workspace and the report, and sends them or writes them."""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

from lightning_priors.errors import PriorError
from lightning_priors.parser import Parser

DESCRIPTION = """\
Makes a workspace and a report of Weights & Biases for the runs of a project: outcome by config, worst group against
evidence inside the prior, the same pictures across runs, cost, generated labels, and the curves of training.
Given the group of a comparison it shows that comparison; without one, all runs of the project by technique.
Calling it again makes another workspace and another report."""


def main(argv: Sequence[str]) -> int:
    """Makes a dashboard.

    Args:
        argv: The options of the command.

    Returns:
        The exit code 0.

    Raises:
        PriorError: For a mistake in the options, without the extra ``dashboard``, or if W&B cannot be reached or
            refuses.

    >>> main(["--grup", "demo"])
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: dashboard has no option --grup; did you mean '--group'?
    """
    parser = Parser(prog="lightning-priors dashboard", description=DESCRIPTION, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--entity", metavar="NAME", help="the account or team; by default that of `wandb login`")
    parser.add_argument("--project", default="lightning-priors", metavar="NAME", help="by default lightning-priors")
    parser.add_argument("--group", default="", metavar="TITLE", help="the comparison: the name of its plan")
    parser.add_argument("--out", metavar="FILE", help="write both as JSON, with no network, instead of sending them")
    try:
        options = parser.parse_args(list(argv))
    except SystemExit:  # --help
        return 0
    entity = options.entity or os.environ.get("WANDB_ENTITY", "")
    if options.out is not None:
        _write(Path(options.out), entity, options.project, options.group)
    else:
        _send(entity, options.project, options.group)
    return 0


def _write(path: Path, entity: str, project: str, group: str) -> None:
    _require_extra()
    from lightning_priors.dashboard.views import report, serialised, workspace

    made = {"workspace": workspace(entity, project, group), "report": report(entity, project, group)}
    content = {name: serialised(view) for name, view in made.items()}
    try:
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise PriorError(f"cannot write {path}: {error.strerror}") from error
    print(path)


def _send(entity: str, project: str, group: str) -> None:
    _require_extra()
    import wandb

    from lightning_priors.cli.wandb_offline import reason_to_be_offline
    from lightning_priors.dashboard.views import report, workspace

    reason = reason_to_be_offline(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    if reason:
        raise PriorError(f"W&B: {reason}; --out FILE writes the dashboard instead of sending it")
    try:
        entity = entity or wandb.Api().default_entity or ""
        for view in (workspace(entity, project, group), report(entity, project, group, to_send=True)):
            print(view.save().url)
    except (wandb.Error, ValueError) as error:  # the second for a project that there is not
        raise PriorError(f"W&B: {' '.join(str(error).split())}") from error


def _require_extra() -> None:
    try:
        import wandb_workspaces  # noqa: F401
    except ModuleNotFoundError as error:
        raise PriorError(
            "dashboard needs wandb-workspaces, which is not installed: pip install 'lightning-priors[dashboard]'"
        ) from error
