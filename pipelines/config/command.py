"""The command line that trains a config again, as text for people."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from gen_models.core.config import flatten
from pipelines.config.run import Run, defaults
from pipelines.config.search import Search
from pipelines.config.serialization import WHERE, WHICH, to_dict
from pipelines.config.space import fixed_settings

_LEFT_OUT = {"family", "metric", "mode", "further", "space", *WHICH, *WHERE} - {"data_root"}
"""Settings that the command does not repeat, or states apart."""


def rerun_command(run: Run) -> str:
    """Return the command that runs this config again: what departs from the family's defaults."""
    if isinstance(run, Search) and run.seed_study:
        return shlex.join(["genpipe", "confirm", run.seed_study.run, "--seeds", str(run.trials)])
    default = defaults(type(run), run.family)
    base = flatten(to_dict(default))
    base["data_root"] = str(Path(base["data_root"]).absolute())
    words = ["genpipe", "search" if isinstance(run, Search) else "train", run.family]
    if run.objectives != default.objectives:
        for objective in run.objectives:
            words += ["--metric", objective.metric, "--mode", objective.mode]
    settings = flatten(to_dict(run)) | {"data_root": str(run.data_root.absolute())}
    fixed = fixed_settings(run.family, run.searched) if isinstance(run, Search) else set()
    for name, value in settings.items():
        given = value != base[name] or name in (fixed or ())
        if given and name not in _LEFT_OUT:
            words += _flag(name, value)
    if isinstance(run, Search) and fixed is None:
        words += _flag("space", run.space)
    return shlex.join(words)


def resume_command(run: Run, search_id: str = "") -> str:
    """Return the command that resumes a run, or the search or seed study of this id, where it
    was."""
    name = search_id if isinstance(run, Search) else getattr(run, "name", "")
    return resumed(rerun_command(run), name, run.store, run.tracking_uri, run.address)


def resumed(
    rerun: str, name: str, store: Path, tracking_uri: str | None = None, address: str | None = None
) -> str:
    """Return the command that resumes a run, a search or a seed study of this name. `rerun`: the
    command that `rerun_command` made of its config. A search knows its settings and its tracking
    URI, so the command does not repeat them."""
    words = shlex.split(rerun)
    if words[1:2] == ["train"]:
        words += [*_given("name", name), *_given("tracking_uri", tracking_uri)]
    else:
        words = [*words[:3], "--resume", name]
    return shlex.join([*words, "--store", str(store), *_given("address", address)])


def _given(name: str, value: str | None) -> list[str]:
    return _flag(name, value) if value else []


def _flag(name: str, value: Any) -> list[str]:
    *groups, last = name.replace("_", "-").split(".")
    if value is False:
        last = f"no-{last}"  # --no-drop-last, --model.no-spectral-norm
    flag = "--" + ".".join([*groups, last])
    if isinstance(value, bool):
        return [flag]
    values = value if isinstance(value, tuple) else [value]
    return [flag, *(str(each) for each in values)]
