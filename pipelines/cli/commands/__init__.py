"""The commands: a module here is a command of the same name.

A module has a docstring, whose first line the help shows, `ORDER, USAGE = …`, its place in the
help and its call, and `main(args) -> int`, which returns the exit code. The help reads them from
the source. A module is imported when its command is called; torch, Ray and MLflow are imported
in `main`, after the arguments were checked.

One that has `run` and `show` as well can be a stage of a job file (`pipelines/cli/stages.py`).
"""

import pkgutil


def names() -> list[str]:
    """Return the names of the commands."""
    return [module.name for module in pkgutil.iter_modules(__path__)]
