"""Runs a job file, stage after stage, from where it was stopped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gen_models.core.errors import InputError
from pipelines.cli.jobs.definition import Job, Stage, read_job
from pipelines.cli.jobs.references import has_references
from pipelines.cli.jobs.state import JobState
from pipelines.cli.stages import Call
from pipelines.config.run import Run
from pipelines.config.search import Search
from pipelines.report.console import ensure_logging
from pipelines.report.results import JobFileResult, Result, StageResult
from pipelines.store.layout import Store
from pipelines.store.lease import holding

_log = logging.getLogger(__name__)
_STOPPED = "%s failed or was interrupted: the job stops here; the same command goes on with it"


def run_job(
    path: str | Path, overrides: Mapping[str, Any] | None = None, *, anew: bool = False
) -> JobFileResult:
    """Run the stages of a job file, from where the job was stopped.

    `overrides`: other values of some settings, by dotted names: `{"search.trials": 4}`. `anew`:
    begin with the first stage, whatever has ended. Raises `InputError` at whatever is wrong with
    the file, before Ray starts.

    >>> import genpipe
    >>> result = genpipe.run_job("examples/search.yaml", {"store": "runs"})
    >>> result.stages["search"].result["champion"]
    """
    ensure_logging()
    return run_stages(read_job(Path(path), overrides), anew=anew)


def run_stages(
    job: Job, *, anew: bool = False, show: Callable[[Stage, Result, Any], None] | None = None
) -> JobFileResult:
    """Run a job's stages. `show` is called with each that ends, its result and its settings.

    Raises `InputError` if another command runs the job, or a stage that has begun has changed.
    """
    store = Store.at(job.store)
    folder = store.job(job.name)
    _check(job, JobState(job, folder, anew=anew))  # before anything is written
    ended: dict[str, StageResult] = {}
    with holding(folder, "job"):
        state = JobState(job, folder, anew=anew)
        state.require_unchanged()
        state.open()
        for number, stage in enumerate(job.stages, start=1):
            place = f"stage {stage.name} ({number} of {len(job.stages)})"
            if before := state.ended(stage):
                _log.info("%s ended before", place)
                ended[stage.name] = before
                continue
            _log.info("%s: %s", place, stage.command.name)
            settings = stage.settings(job.shared, {n: s.result for n, s in ended.items()})
            try:
                result = _run_stage(stage, settings, state, store)
            except KeyboardInterrupt:
                _log.warning(_STOPPED, place)
                raise
            ended[stage.name] = state.end(stage, result)
            if show:
                show(stage, result, settings)
            if state.ended(stage) is None:
                _log.warning(_STOPPED, place)
                break
    left = tuple(stage.name for stage in job.stages if stage.name not in ended)
    return JobFileResult(job=job.name, store=str(job.store), stages=ended, left=left)


def _run_stage(stage: Stage, settings: Any, state: JobState, store: Store) -> Result:
    """Run a stage's command. A stage that is refused may be given other settings, unless it has
    begun a search, which is there to be resumed."""
    given = stage.given | set(state.job.shared)
    search_id = state.begin(stage).search_id
    try:
        with stage.errors_placed():
            return stage.command.run(settings, Call(given, search_id))
    except InputError:
        if search_id not in store.search_ids():
            state.forget(stage)
        raise


def _check(job: Job, state: JobState) -> None:
    """Check what is left to run against the data and this machine, as far as that is known before
    the stages before have ended."""
    for stage in job.stages:
        if state.ended(stage):
            continue
        settings = stage.settings(job.shared, None)
        if isinstance(settings, Run) and not has_references(dict(stage.content)):
            with stage.errors_placed():
                _check_run(settings, stage)


def _check_run(run: Run, stage: Stage) -> None:
    from pipelines.training.preflight import preflight  # light: imports torch
    from pipelines.tuning.search import resolve_search  # light: imports torch and Ray
    from pipelines.tuning.strategy.space import searched_space  # light: imports Ray

    if isinstance(run, Search):
        searched_space(resolve_search(run, stage.given))
    preflight(run)
