"""A config as a job file, which `genpipe run` runs: the YAML text that does again what was done.

A run's folder and its MLflow run hold it as `job.yaml`, and `--save` writes it. It has what
departs from the family's defaults, and the whole space; `config.json` has all of the config.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from gen_models.core.config import flatten, nest
from pipelines.config.run import Run, defaults
from pipelines.config.search import Search
from pipelines.config.serialization import HERE, settings_from_python, to_dict
from pipelines.config.yaml_text import dump_yaml
from pipelines.store.secrets import redact

_STATED_APART = {"family", "metric", "mode", "resume"}


def dump_job(run: Run, job: str = "", *, left_out: Collection[str] = HERE) -> str:
    """Return a config as a job file, without secrets. `job`: the job's name; by default that of
    the file. `left_out`: settings that it does not have, by default those that are not
    recorded."""
    is_recorded = "store" in left_out  # else the file says which search is meant, and where
    if isinstance(run, Search) and run.seed_study:
        content: dict[str, Any] = {"command": "confirm", "run": run.seed_study.run}
        content |= {"seeds": run.trials}
        content |= {} if run.fuse == "auto" else {"fuse": run.fuse}
        content |= {} if is_recorded else {"store": str(run.store)}
    else:
        command = "search" if isinstance(run, Search) else "train"
        content = {"command": command, "family": run.family}
        content |= _metrics(run) | nest(_departures(run, left_out))
        if isinstance(run, Search) and run.resume and not is_recorded:
            content |= {"resume": run.resume}
    return redact(dump_yaml({"job": job, **content} if job else content))


def _metrics(run: Run) -> dict[str, Any]:
    if run.objectives == defaults(type(run), run.family).objectives:
        return {}
    metrics, modes = [o.metric for o in run.objectives], [o.mode for o in run.objectives]
    single = len(metrics) == 1
    return (
        {"metric": metrics[0], "mode": modes[0]} if single else {"metric": metrics, "mode": modes}
    )


def _departures(run: Run, left_out: Collection[str]) -> dict[str, Any]:
    """Return the settings that depart from the family's defaults, and the space, flat."""
    known = set(settings_from_python(type(run))) - _STATED_APART - set(left_out)
    base = flatten(to_dict(defaults(type(run), run.family)))
    return {
        name: [_text(each) for each in value] if isinstance(value, tuple) else value
        for name, value in flatten(to_dict(run)).items()
        if name.split(".")[0] in known
        and (name == "space" or _comparable(name, value) != _comparable(name, base[name]))
    }


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _comparable(name: str, value: Any) -> Any:
    return Path(value).absolute() if name == "data_root" else value
