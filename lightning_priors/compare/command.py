"""The command ``lightning-priors compare``: reads the plan, does the runs, writes and prints the summary."""

import argparse
import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lightning_priors.compare.plan import Plan, option_texts, read_plan, seed_list, whole_number
from lightning_priors.errors import PriorError, nearest
from lightning_priors.parser import Parser

DESCRIPTION = """\
Runs every config of a plan with every seed, on the same data, with the same budget and the same rule that selects the
checkpoint, and writes one row for each run (runs.csv) and a summary (summary.md, summary.csv).
Options after -- go to all runs and win over those of the plan.
Interrupted, it goes on where it was when it is called again; a run whose configuration has changed is done anew."""


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
    parser.add_argument("--splits", type=int, metavar="K", help="another number of drawn splits than the plan's")
    parser.add_argument("--split-by", metavar="TASK", help="the auxiliary task whose classes are held out as a whole")
    parser.add_argument("--only", action="append", metavar="RUN", help="run this config alone; may be given repeatedly")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs side by side, which share the machine")
    parser.add_argument("--minutes", type=float, default=math.inf, metavar="M", help="start no run after so long")
    own = list(argv)[: list(argv).index("--")] if "--" in argv else list(argv)
    try:
        options = parser.parse_args(own)
    except SystemExit:  # --help
        return 0
    plan = read_plan(options.config)
    if further := tuple(argv)[len(own) + 1 :]:
        plan = replace(plan, options=(*plan.options, *option_texts("--", list(further))))
    if options.output is not None:
        plan = replace(plan, output=options.output)
    if options.seeds is not None:
        plan = replace(plan, seeds=seed_list(options.seeds))
    if options.splits is not None:
        plan = replace(plan, splits=whole_number("--splits", options.splits, least=1))
    if options.split_by is not None:
        plan = replace(plan, split_by=options.split_by)
    for name in options.only or ():
        if name not in plan.runs:
            raise PriorError(f"--only: the plan has no run {name!r}; {nearest(name, plan.runs)}")
    whole_number("--jobs", options.jobs, least=1)
    return _run(plan, Path(options.config).stem, options, shlex.join(["lightning-priors", "compare", *argv]))


def _run(plan: Plan, title: str, options: argparse.Namespace, command: str) -> int:
    # torch and Lightning take seconds to import: not before the plan is known to be right
    from lightning_priors.cli.user_modules import working_folder_importable
    from lightning_priors.compare.page.write import write_report
    from lightning_priors.compare.picture import draw_picture
    from lightning_priors.compare.report import summarise, text
    from lightning_priors.compare.resolve import resolve
    from lightning_priors.compare.run import compare, with_details
    from lightning_priors.compare.tracking import grouped, record_summary, settle_mode

    output = Path(plan.output)
    with working_folder_importable(), grouped(title):
        tasks = resolve(plan)
        settle_mode(tasks)
        rows, failures = compare(tasks, output, plan.monitors, options.jobs, options.minutes, options.only)
        if rows:
            rows = with_details(rows, tasks, output)
            entries = summarise(rows, list(plan.runs))
            print(f"\n{text(entries, plan.columns)}\n")
            print(draw_picture(tasks, rows, output) or "no picture: the checkpoints of all runs have been deleted")
            record_summary(title, tasks, rows, entries, output)
            for path in write_report(plan, title, command, tasks, rows, entries):
                print(path)
    for run, line in failures.items():
        print(f"failed: {run}: {line}", file=sys.stderr)
    return 1 if failures else 0
