"""`--dry-run` and `--save`: what a command would do, after the checks that it makes before Ray
starts, as a job file or as JSON; the job file of its settings."""

from __future__ import annotations

import json
from typing import Any

from gen_models.core.errors import require
from pipelines.config.command import rerun_command
from pipelines.config.job_text import dump_job
from pipelines.config.run import Run, Train
from pipelines.config.search import Search
from pipelines.config.serialization import to_dict
from pipelines.store.files import LOCAL
from pipelines.training.preflight import RunContext
from pipelines.training.run import check_train
from pipelines.tuning.fused.placement import Placement
from pipelines.tuning.search import check_search
from pipelines.tuning.strategy.space import searched_space, settings_kept_apart

HEAD = "# Run it with `genpipe run`; docs/job.schema.json is the schema.\n"
"""First line of a job file that `--save` writes."""
_NOT_IN_FILE = ("dry_run", "save", "json", "notify")


def describe_or_save(run: Run) -> int:
    """Check a config and print it, or write it as a job file, as its settings ask for; return the
    exit code. Raises `InputError` at what a run would refuse; if it is only written, at a search
    that has nothing to search."""
    if run.save is not None:
        a_file = "the path of a file, which is no folder"
        require(not run.save.is_dir(), "save", str(run.save), a_file)
        if isinstance(run, Search):
            searched_space(run)
        LOCAL.write(run.save, HEAD + dump_job(run, left_out=_NOT_IN_FILE))
        print(run.save)
    elif isinstance(run, Search):
        context, placement = check_search(run)
        fusion = _describe_fusion(context, placement)
        _print(run, context, fusion, placement.describe() if placement else _why_not_fused(run))
    else:
        assert isinstance(run, Train)
        _print(run, check_train(run), None, "")
    return 0


def _print(
    given: Run, context: RunContext[Any], fusion: dict[str, Any] | None, placement: str
) -> None:
    """Print a config that was checked: as JSON, or as a job file with comments."""
    run: Run = context.run
    command = rerun_command(given)
    if given.json:
        content = to_dict(run)
        if isinstance(run, Search):
            searched = searched_space(run)
            content["searched"] = dict(str(setting).split("=", 1) for setting in searched)
            content["fusion"] = fusion
        print(json.dumps(content | {"command": command}, indent=1))
        return
    dataset = context.dataset
    images = f"{len(dataset.train)} training and {len(dataset.validation)} validation images"
    lines = [f"{run.data}: {images}, digest {dataset.digest}"]
    lines += [placement] if placement else []
    lines.append(command)
    print(HEAD + "".join(f"# {line}\n" for line in lines), end="")
    print(dump_job(run, left_out=_NOT_IN_FILE), end="")


def _why_not_fused(run: Search) -> str:
    if run.is_fused:
        return "trials fused, by a fused worker on each of the cluster's devices"
    why = "--fuse off" if run.fuse == "off" else f"{run.num_workers} workers a trial"
    return f"trials not fused: {why}"


def _describe_fusion(context: RunContext[Search], placement: Placement | None) -> dict[str, Any]:
    """Return how trials are fused, as far as that is known without the cluster."""
    run = context.run
    if not run.is_fused:
        return {"fused": False, "why": _why_not_fused(run).partition(": ")[2]}
    apart = settings_kept_apart(run, context.dataset.spec, list(run.searched.by_name))
    fusion: dict[str, Any] = {"fused": True, "trials": run.trials, "kept_apart_by": apart}
    if placement is None:
        return fusion | {"fused_workers": "one on each of the cluster's devices"}
    return fusion | {
        "fused_workers": placement.workers,
        "trials_per_worker": placement.trials_per_worker,
        "trials_at_once": placement.at_once,
        "devices": "GPUs" if placement.on_gpu else "CPU cores",
    }
