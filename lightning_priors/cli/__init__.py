"""The command line for everything that trains or evaluates: Lightning's, with its traps closed and short errors.

`main` is imported here at once: the submodule has the same name and would hide the function if it were imported later.
"""

from lightning_priors.cli.main import PriorCLI, RunFolder, main

__all__ = ["PriorCLI", "RunFolder", "main"]
