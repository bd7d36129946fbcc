"""The one command that runs a config again, and the config that such a command means."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from gen_models.core.config import flatten
from gen_models.core.errors import InputError
from pipelines.cli.main import parse_run
from pipelines.config.run import NOT_REPEATED, Run, Search, Train, defaults, to_dict


def command(run: Run) -> str:
    """The one command that runs this config again: what departs from the family's defaults."""
    if isinstance(run, Search) and run.confirms:
        return shlex.join(["genpipe", "confirm", run.confirms.run, "--seeds", str(run.trials)])
    base = flatten(to_dict(defaults(type(run), run.family)))
    base["data_root"] = str(Path(base["data_root"]).absolute())
    words = ["genpipe", "search" if isinstance(run, Search) else "train", run.family]
    if run.objectives != defaults(type(run), run.family).objectives:
        for metric, mode in run.objectives:
            words += ["--metric", metric, "--mode", mode]
    settings = flatten(to_dict(run)) | {"data_root": str(run.data_root.absolute())}
    for name, value in settings.items():
        given = value != base[name] or name in getattr(run, "fixed", ())
        if given and name not in NOT_REPEATED:
            words += _flag(name, value)
    return shlex.join(words)


def config_of(rerun: str) -> Train:
    """The config that was trained, from the command that its run is recorded with.

    Raises `InputError` where it is not one of this version's commands.
    """
    program, name, *args = shlex.split(rerun) or ["", ""]
    try:
        run = parse_run(name, args) if (program, name) == ("genpipe", "train") else None
    except SystemExit:  # tyro has said what is wrong
        run = None
    if not isinstance(run, Train):
        raise InputError(f"rerun = {rerun!r}: expected a `genpipe train` command of this version")
    return run


def _flag(name: str, value: Any) -> list[str]:
    flag = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return [flag if value else "--no-" + flag[2:]]
    values = value if isinstance(value, tuple) else [value]
    return [flag, *(str(each) for each in values)]
