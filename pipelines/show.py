"""Results as a person reads them, on stdout."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from gen_models.core.config import flatten
from pipelines.config import Run, Search, command, to_dict

_WIDE = 160
console = Console(highlight=False)
if not console.is_terminal:
    console = Console(highlight=False, width=_WIDE)


def dry_run(run: Run) -> str:
    """The resolved config as JSON; of a search also what is searched."""
    content = to_dict(run)
    if isinstance(run, Search):
        from pipelines.choosing import domains

        content["searched"] = {k: _domain(v) for k, v in flatten(domains(run)).items()}
    return json.dumps(content | {"command": command(run)}, indent=1)


def _domain(domain: Any) -> str:
    sampler = type(domain.get_sampler()).__name__.strip("_").lower()
    inside = domain.categories if hasattr(domain, "categories") else [domain.lower, domain.upper]
    return f"{type(domain).__name__.lower()} {sampler} {inside}"


def show_train(result: Mapping[str, Any]) -> None:
    """How a lone run ended."""
    say(f"{result['name']}: {result['outcome']} at epoch {result['epoch']}")
    if result["value"] is not None:
        say(f"best {result['metric']} {result['value']:.6g} at epoch {result['best_epoch']}")
        _metrics(result["metrics"])
    say(f"checkpoint  {result['checkpoint']}")
    say(f"samples     {result['samples']}")
    say(f"MLflow run  {result['run_id']} in {result['experiment']}, {result['tracking_uri']}")


def show_search(result: Mapping[str, Any], store: Path) -> None:
    """The ranking of a search, its champion, and where to look further."""
    _ranking(result["trials"], result["metric"])
    champion = result["champion"]
    if champion:
        say(f"champion: trial {champion['trial_id']}, epoch {champion['best_epoch']}")
        for name, value in champion["config"].items():
            say(f"  {name} = {value}")
        _metrics(champion["metrics"])
        if champion["version"]:
            say(f"model     models:/{result['experiment']}/{champion['version']}")
        say(f"samples   {result['samples']}")
    say(f"browse    {_genpipe()} browse --store {shlex.quote(str(store))}")


def show_runs(found: Sequence[Mapping[str, Any]]) -> None:
    """A table of recorded runs."""
    if not found:
        say("nothing is recorded here yet")
        return
    table = Table(box=None)
    for column in ("run", "name", "experiment", "kind", "outcome", "epoch", "metric", "value"):
        table.add_column(column, overflow="fold")
    for row in found:
        table.add_row(
            row["run_id"],
            row["name"],
            row["experiment"],
            row["kind"],
            row["outcome"],
            str(row["epoch"]),
            row["metric"],
            _number(row["value"]),
        )
    console.print(table)


def show_best(result: Mapping[str, Any]) -> None:
    """The best runs of a family, the first in full."""
    table = Table("run", "name", result["metric"], box=None)
    for row in result["ranking"]:
        table.add_row(row["run_id"], row["name"], _number(row["value"]))
    console.print(table)
    best = result["ranking"][0]
    for name, value in best["params"].items():
        if name.startswith(("model.", "optim.")):
            say(f"  {name} = {value}")
    _metrics(best["metrics"])
    say(f"run it again:  {best['rerun']}")


def say(text: str) -> None:
    """One line of a result."""
    console.print(text, markup=False, soft_wrap=True)


def _genpipe() -> str:
    """How this command is called here: by its name, if the shell would find it."""
    if shutil.which("genpipe"):
        return "genpipe"
    return shlex.join([os.path.relpath(sys.executable), "-m", "pipelines"])


def _metrics(metrics: Mapping[str, float]) -> None:
    for name, value in sorted(metrics.items()):
        if name.startswith(("val/", "best/val/")):
            say(f"  {name} {value:.6g}")


def _ranking(trials: Sequence[Mapping[str, Any]], metric: str) -> None:
    settings = list(trials[0]["config"]) if trials else []
    table = Table("rank", "trial", "outcome", "epochs", metric, *settings, box=None)
    for rank, trial in enumerate(trials, 1):
        value = trial["value"]
        table.add_row(
            str(rank),
            trial["trial_id"],
            trial["outcome"].replace("_", " "),
            str(trial["epochs"]),
            _number(value) if value is not None else trial["outcome"],
            *(_number(each) for each in trial["config"].values()),
        )
    console.print(table)


def _number(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value if value is not None else "")
