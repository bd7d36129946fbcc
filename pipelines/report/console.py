"""Results as a person reads them, on stdout."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from gen_models.core.config import flatten
from pipelines.config.run import Run, Search, to_dict
from pipelines.config.serialization import command

_WIDE = 160
console = Console(highlight=False)
if not console.is_terminal:
    console = Console(highlight=False, width=_WIDE)


def dry_run(run: Run) -> str:
    """The resolved config as JSON; of a search also what is searched."""
    content = to_dict(run)
    if isinstance(run, Search):
        from pipelines.tuning.space import domains

        searched = flatten(domains(run))
        content["searched"] = {k: _domain(v) for k, v in searched.items()}
        content["fusion"] = _fusion(run, searched)
    return json.dumps(content | {"command": command(run)}, indent=1)


def _fusion(run: Search, searched: Mapping[str, Any]) -> dict[str, Any]:
    """How trials are fused, as far as can be said without the cluster."""
    from pipelines.cluster.resources import local_devices
    from pipelines.training.preflight import load_data
    from pipelines.tuning.fused.placement import kept_apart, plan_fusion
    from pipelines.tuning.space import grid_size

    if not run.is_fused:
        why = "--fuse off" if run.fuse == "off" else f"{run.num_workers} workers a trial"
        return {"fused": False, "why": why}
    if run.chosen_searcher == "grid":
        run = replace(run, trials=grid_size(run))
    spec = load_data(run).spec
    apart = kept_apart(run, spec, searched)
    found: dict[str, Any] = {"fused": True, "trials": run.trials, "kept_apart_by": apart}
    here = local_devices(run)
    if here is None:
        return found | {"populations": "one on each of the cluster's devices"}
    fusion = plan_fusion(run, spec, here)
    return found | {
        "populations": fusion.populations,
        "members_of_each": fusion.members,
        "trials_at_once": fusion.at_once,
        "devices": "GPUs" if fusion.on_gpu else "CPU cores",
    }


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
    _ranking(result)
    if result["front"]:
        by = ", ".join(f"{each['metric']} ({each['mode']})" for each in result["objectives"])
        say(f"Pareto front (*): {len(result['front'])} trials, of {by}")
    champion = result["champion"]
    if champion:
        say(f"champion: trial {champion['trial_id']}, epoch {champion['best_epoch']}")
        if "of" in champion:
            say(f"the model of the seed in the middle, of the config of trial {champion['of']}")
        for name, value in champion["config"].items():
            say(f"  {name} = {value}")
        _metrics(champion["metrics"])
        if champion["version"]:
            say(f"model     models:/{result['experiment']}/{champion['version']}")
        say(f"samples   {result['samples']}")
    say(f"browse    {_genpipe()} browse --store {shlex.quote(str(store))}")


def show_confirmation(result: Mapping[str, Any], store: Path) -> None:
    """How the metric spreads over seeds, and where the confirmed run stands among them."""
    confirms, spread = result["confirms"], result["spread"]
    name = confirms["name"]
    if spread is None:
        say(f"{name}: fewer than two seeds have a value of {result['metric']}")
    else:
        lost = f", {spread['lost']} more were lost" if spread["lost"] else ""
        say(f"{name}: {result['metric']} ({result['mode']}) over {spread['seeds']} seeds{lost}")
        say(f"  mean      {spread['mean']:.6g}, standard error {spread['sem']:.2g}")
        for key in ("std", "best", "median", "worst"):
            say(f"  {key:<9} {spread[key]:.6g}")
    if result["beaten"] is not None:
        say(f"  recorded  {confirms['value']:.6g}, better than {result['beaten']} of these seeds")
    say(f"MLflow run  {result['run_id']} in {result['experiment']}, {result['tracking_uri']}")
    say(f"browse      {_genpipe()} browse --store {shlex.quote(str(store))}")


def show_evaluation(result: Mapping[str, Any]) -> None:
    """What the test split says of a model."""
    say(f"{result['name']}, run {result['run_id']}")
    for name, value in {**result["metrics"], **result["tags"]}.items():
        say(f"  {name} {_number(value)}")


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


def _ranking(result: Mapping[str, Any]) -> None:
    trials, front = result["trials"], result["front"]
    metric, *further = (each["metric"] for each in result["objectives"])
    settings = list(trials[0]["config"]) if trials else []
    spread = ["mean", "std"] if any(trial["confirmed"] for trial in trials) else []
    names = ["trial", "outcome", "epochs", metric, *further, *spread, *settings]
    table = Table("rank", *names, box=None)
    for rank, trial in enumerate(trials, 1):
        value = trial["value"]
        table.add_row(
            f"{rank} *" if trial["trial_id"] in front else str(rank),
            trial["trial_id"],
            trial["outcome"].replace("_", " "),
            str(trial["epochs"]),
            _number(value) if value is not None else trial["outcome"],
            *(_number(trial["values"][name]) for name in further),
            *(_number((trial["confirmed"] or {}).get(name)) for name in spread),
            *(_number(each) for each in trial["config"].values()),
        )
    console.print(table)


def _number(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value if value is not None else "")
