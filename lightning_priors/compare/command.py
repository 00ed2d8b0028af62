"""The command ``lightning-priors compare``: reads the plan, does the runs, writes and prints the summary."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from lightning_priors.compare.plan import Plan, read_plan, seed_list
from lightning_priors.errors import PriorError, nearest

DESCRIPTION = """\
Runs every config of a plan with every seed, on the same data, with the same budget and the same rule that selects the
checkpoint, and writes one row for each run (runs.csv) and a summary (summary.md, summary.csv).
Interrupted, it goes on where it was when it is called again; a run whose configuration has changed is done anew."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line with the nearest right option."""

    def error(self, message: str) -> NoReturn:
        """Raises the mistake instead of printing the usage."""
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            name = unknown.split()[0].partition("=")[0]
            raise PriorError(f"{self.command} has no option {name}; {nearest(name, self._option_string_actions)}")
        raise PriorError(f"{self.command}: {message}")

    @property
    def command(self) -> str:
        """The command's name, without the program's."""
        return self.prog.split()[-1]


def main(argv: Sequence[str]) -> int:
    """Runs a comparison.

    Args:
        argv: The options of the command.

    Returns:
        The exit code: 0, or 1 if a run failed.

    Raises:
        PriorError: For a mistake in the options, the plan or a configuration, before anything runs.
        KeyboardInterrupt: After Ctrl-C; what is finished is kept.

    >>> main(["--config", "no_such_plan.yaml"])
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: there is no file no_such_plan.yaml; ...
    """
    parser = Parser(prog="lightning-priors compare", description=DESCRIPTION, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "-c", "--config", required=True, metavar="PLAN", help="the plan: a file, or a shipped one such as demo"
    )
    parser.add_argument("--output", metavar="DIR", help="another folder than the plan's")
    parser.add_argument("--seeds", metavar="0,1,2", help="other seeds than the plan's")
    try:
        options = parser.parse_args(argv)
    except SystemExit:  # --help
        return 0
    plan = read_plan(options.config)
    if options.output is not None:
        plan = replace(plan, output=options.output)
    if options.seeds is not None:
        plan = replace(plan, seeds=seed_list(options.seeds))
    return _run(plan, Path(options.config).stem)


def _run(plan: Plan, title: str) -> int:
    # torch and Lightning take seconds to import: not before the plan is known to be right
    from lightning_priors.cli.user_modules import working_folder_importable
    from lightning_priors.compare.picture import draw_picture
    from lightning_priors.compare.report import markdown, summarise, summary_csv, text
    from lightning_priors.compare.resolve import resolve
    from lightning_priors.compare.run import compare

    output = Path(plan.output)
    with working_folder_importable():
        tasks = resolve(plan)
        rows, failures = compare(tasks, output)
        if rows:
            entries = summarise(rows, list(plan.runs))
            (output / "summary.csv").write_text(summary_csv(entries), encoding="utf-8")
            (output / "summary.md").write_text(markdown(title, entries, plan.columns), encoding="utf-8")
            print(f"\n{text(entries, plan.columns)}\n")
            for name in ("runs.csv", "summary.csv", "summary.md"):
                print(output / name)
            print(draw_picture(tasks, rows, output) or "no picture: the checkpoints of all runs have been deleted")
    for row in rows:
        panels = sorted(Path(row.folder, "panels").glob("*.png"))
        if panels:
            print(f"panel of {row.run}, seed {row.seed}: {panels[-1]}")
    for run, line in failures.items():
        print(f"failed: {run}: {line}", file=sys.stderr)
    return 1 if failures else 0
