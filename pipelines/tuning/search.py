"""Search over configs: Ray Tune chooses them and stops bad trials, the journals record them.

A trial of one worker is fused (`pipelines.tuning.fused`); a trial of several workers runs a
`TorchTrainer` (`pipelines.tuning.trainables`). What a trial reports to Tune decides how the search
goes on; what is recorded comes from the trial's journal.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any
from uuid import uuid4

from gen_models.core.config import flatten
from gen_models.core.errors import DamagedError, InputError
from pipelines.analysis.champion import trial_with_best_mean
from pipelines.cluster import signals
from pipelines.cluster.connection import Cluster, connect
from pipelines.cluster.process import restored_process
from pipelines.cluster.resources import cluster_devices, local_devices, uses_gpu
from pipelines.cluster.shared_store import shared_store
from pipelines.config.command import resume_command
from pipelines.config.objectives import Objective, as_list, describe
from pipelines.config.search import Search, with_metrics
from pipelines.config.serialization import HERE, config_from_python, load_config, to_dict
from pipelines.data.loading import is_moved
from pipelines.evaluation.metric_names import matching
from pipelines.report.console import ensure_logging
from pipelines.report.results import SearchResult
from pipelines.store.files import LeaseLostError, StoreError
from pipelines.store.layout import SearchFolder, Store
from pipelines.store.lease import holding, require_held
from pipelines.store.marker import StoreMarker
from pipelines.tracking.queue import open_tracker
from pipelines.training.payload import DatasetRef, TrainingPayload, share_dataset
from pipelines.training.precision import resolve_precision
from pipelines.training.preflight import preflight, require_recorded_data, require_same_data
from pipelines.tuning import trainables
from pipelines.tuning.callbacks import events_go_to
from pipelines.tuning.fused.placement import (
    execution_notes,
    fused_workers,
    make_trainable,
    plan_placement,
)
from pipelines.tuning.result import search_result
from pipelines.tuning.search_run import SearchRun
from pipelines.tuning.space import domains, grid_size, widest_settings
from pipelines.tuning.studies import run_seed_studies, studies_are_complete
from pipelines.tuning.tuner import run_tuner
from tune_spaces import space

_log = logging.getLogger(__name__)

_TAKEN_ON_RESUME = (
    *HERE,
    *("tracking_uri", "data_root", "confirm", "seeds"),
)
"""Settings that a resumed search takes from the command that resumes it, if they are given."""
_CHOSEN_AT_START = ("precision", "scheduler", "searcher")
"""Settings whose choice was recorded when the search started, if it was left open."""


def search(
    family: str,
    *,
    metric: str | Sequence[str] | None = None,
    mode: str | Sequence[str] | None = None,
    **settings: Any,
) -> SearchResult:
    """Search over a family's configs, and record every trial.

    `metric`, `mode`: one, or several for a Pareto front. The other settings are those of `genpipe
    search FAMILY --help`, with `_` in place of `-`; `model` and `optim` are mappings. A setting of
    the space that is given is not searched. Raises `InputError` at an unknown setting or a wrong
    value, before Ray starts.

    >>> import genpipe
    >>> result = genpipe.search("vae", data="digits", trials=24, model={"hidden": (256,)})
    >>> result.champion.config, result.champion.metrics, result.ranking, result.pareto
    """
    ensure_logging()
    run = config_from_python(Search, family, settings)
    run = with_metrics(run, as_list("metric", metric), as_list("mode", mode))
    given = {name for name, value in flatten(settings).items() if value is not None}
    given |= {"metric"} if metric is not None or mode is not None else set()
    return run_search(resolve_search(run, given))


def resolve_search(run: Search, given: Collection[str]) -> Search:
    """Return the search that a command means: a new one without the given settings in its space,
    or the recorded one that it resumes.

    `given`: names of the settings that were given, flat. Raises `InputError` if the search to
    resume is unknown, or if a given setting differs from the recorded one and cannot be applied.
    """
    if run.resume:
        return _resumed(run, given)
    fixed = tuple(name for name in flatten(space(run.family).domains) if name in given)
    return replace(run, fixed=fixed)


@restored_process()
def run_search(run: Search) -> SearchResult:
    """Search to the end, from where the search stands if it is resumed, and make the seed studies
    that are asked for."""
    folder = _folder(run)
    run = replace(run, scheduler=run.chosen_scheduler, searcher=run.chosen_searcher)
    if run.chosen_searcher == "grid":
        run = replace(run, trials=grid_size(run))
    context = preflight(run)
    require_recorded_data(run, context.dataset, folder.journal)
    if study := run.seed_study:
        require_same_data(run, context.dataset, study.data_digest, study.name)
    searched = list(flatten(domains(run)))
    if run.is_fused and (here := local_devices(run.address, run.device)):
        plan_placement(run, context.dataset.spec, here)  # raises if it does not fit into memory
    studies: dict[str, SearchRun] = {}
    with (
        holding(folder, "resume"),
        ExitStack() as at_end,
        open_tracker(context.uri, context.store) as tracker,
    ):
        extractor = context.extractor  # computed before Ray takes the cores
        this = SearchRun(context, folder, tracker, searched)
        at_end.callback(_say_how_to_resume, this, studies)
        ended = False
        try:
            if this.is_over and not run.confirm:
                this.start(run)
            else:
                # Of trials that are not fused, the dashboard frees the workers' placement groups.
                with connect(run.address, dashboard=not run.is_fused) as cluster:
                    marker = shared_store(context.store.root, folder.marker, cluster)
                    dataset = share_dataset(context.dataset, extractor)
                    run_trials = partial(
                        _run_trials, cluster=cluster, dataset=dataset, marker=marker
                    )
                    run_trials(this)
                    if this.status == "completed" and this.run.confirm:
                        run_seed_studies(this, studies, run_trials, at_end)
            ended = True
        finally:
            # Only now that Ray has gone, and with it every process that writes journals.
            with signals.deferred():
                _close_open(this, studies, ended=ended)
        _finish(this, studies)
        tracker.finish()
        return search_result(this, studies)


def _run_trials(
    search: SearchRun, cluster: Cluster, dataset: DatasetRef, marker: StoreMarker
) -> None:
    """Have Tune run the trials of a search or a seed study, unless it is over."""
    signals.check()
    run, spec, folder = search.context.run, search.context.dataset.spec, search.folder
    on_gpu = uses_gpu(cluster, run.device, run.num_workers)
    run = resolve_precision(run, spec, cluster, on_gpu)
    search.start(run)
    if search.is_over:
        return
    widest = widest_settings(run, spec)
    where, content = str(folder.path), to_dict(run)
    payload = TrainingPayload(content, where, dataset, on_gpu, marker, widest)
    with events_go_to(search.search_id, search) as callback:
        if run.is_fused:
            placement = plan_placement(run, spec, cluster_devices(cluster, on_gpu))
            _log.info("search %s: %d trials; %s", folder.name, run.trials, placement.describe())
            with fused_workers(payload, placement) as workers:
                trainable = make_trainable(workers, run, placement, marker)
                trial_ids = run_tuner(run, folder, trainable, placement.at_once, [callback])
                for note in execution_notes(workers):
                    _log.info("fused workers: %s", note)
        else:
            num_devices = cluster.num_gpus if on_gpu else cluster.num_cpus
            concurrent = trainables.max_concurrent(run, num_devices)
            line = "search %s: %d trials, %d at once, not fused"
            _log.info(line, folder.name, run.trials, concurrent)
            trainable = trainables.make_trainable(payload)
            trial_ids = run_tuner(run, folder, trainable, concurrent, [callback])
        search.tune_ended(trial_ids)


def _close_open(search: SearchRun, studies: Mapping[str, SearchRun], *, ended: bool) -> None:
    """Close what is open.

    `ended`: False if an error ended the search, which is then interrupted wherever it stood.
    """
    for each in (search, *studies.values()):
        with nullcontext() if ended else suppress(StoreError):  # that ended the search
            each.close_open_trials(ended=ended)


def _say_how_to_resume(search: SearchRun, studies: Mapping[str, SearchRun]) -> None:
    """Log the command that resumes a search, if anything is left to do."""
    with suppress(DamagedError, LeaseLostError):  # lost: another command goes on with it
        require_held(search.folder)
        outcome = search.folder.journal.outcome()
        is_closed = outcome is not None and outcome.ending == "completed"
        if search.has_started and not (is_closed and studies_are_complete(search, studies)):
            reason = "every trial failed" if search.status == "failed" else "interrupted"
            command = resume_command(search.run, search.search_id)
            _log.warning("%s: `%s` resumes from the last checkpoints", reason, command)


def _finish(search: SearchRun, studies: Mapping[str, SearchRun]) -> None:
    """Close what is complete. The alias `champion` is claimed for the best trial; if seed studies
    were asked for, for the config with the best mean; by `genpipe confirm`, for nothing."""
    run = search.run
    complete = studies_are_complete(search, studies)
    best = trial_with_best_mean(search.ranking(), complete=complete)
    for trial_id, study in studies.items():
        study.finish(register=trial_id == best)
    search.finish(register=not (run.confirm or run.seed_study))


def _folder(run: Search) -> SearchFolder:
    """Return the search's folder: of a new search one with a new id."""
    store = Store.at(run.store)
    if run.resume:
        return store.search(run.resume)
    what = f"{run.family}-confirm" if run.seed_study else run.family
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return store.search(f"{what}-{stamp}-{uuid4().hex[:4]}")


# -- resuming -----------------------------------------------------------------------------------
def _resumed(run: Search, given: Collection[str]) -> Search:
    """Return the recorded config of the search to resume, with the settings that it may take from
    this command."""
    before = recorded_search(Store.at(run.store), run.resume)
    expected = f"a search of {run.family}, and not of {before.family}"
    _require_resume(before.family == run.family, run, expected)
    _require_same_study(run, before)
    _require_same_objectives(run, before, given)
    recorded, wanted = flatten(to_dict(before)), flatten(to_dict(run))
    searched = set(flatten(domains(before)))
    for name in sorted(given):
        free = name in (*_TAKEN_ON_RESUME, "resume", "metric", "mode") or name not in wanted
        chosen = name in _CHOSEN_AT_START and wanted[name] in ("auto", None)
        moved = name == "data" and is_moved(run.data, before.data)  # digests are compared later
        if free or chosen or moved:
            continue
        if name in searched or wanted[name] != recorded[name]:
            was = "none, because it is searched" if name in searched else repr(recorded[name])
            raise InputError(
                f"{name} = {wanted[name]!r}: expected {was}, as search {run.resume} was started; "
                "a search keeps its settings when it is resumed"
            )
    taken = {*HERE, *(name for name in (*_TAKEN_ON_RESUME, "data") if name in given)}
    return replace(before, resume=run.resume, **{name: getattr(run, name) for name in taken})


def _require_same_objectives(run: Search, before: Search, given: Collection[str]) -> None:
    """Refuse other objectives than the recorded ones; a metric may be the beginning of its full
    name, as `val/fd` of `val/fd/lenet-digits/2k`."""
    if not {"metric", "mode"} & set(given):
        return

    def is_meant(wanted: Objective, recorded: Objective) -> bool:
        same_metric = bool(matching(wanted.metric, [recorded.metric]))
        return same_metric and wanted.mode == recorded.mode

    pairs = list(zip(run.objectives, before.objectives, strict=False))
    same = len(run.objectives) == len(before.objectives)
    if not (same and all(is_meant(*pair) for pair in pairs)):
        raise InputError(
            f"metric = {describe(run.objectives)}: expected {describe(before.objectives)}, as "
            f"search {run.resume} was started; a search keeps its settings when it is resumed"
        )


def recorded_search(store: Store, search_id: str) -> Search:
    """Return the config of a recorded search. Raises `InputError` if there is none of this id."""
    folder = store.search(search_id)
    for path in (folder.config, folder.legacy_config):
        if store.files.exists(path):
            found = load_config(store.files.read(path), str(path))
            if isinstance(found, Search):
                return found
    known = ", ".join(store.search_ids()) or "there is none"
    raise InputError(f"resume = {search_id!r}: expected a search of {store.searches}: {known}")


def _require_same_study(run: Search, before: Search) -> None:
    """Refuse to resume a seed study of another run, or a search as a seed study."""
    wanted, found = (each.seed_study.run if each.seed_study else "" for each in (run, before))
    expected = f"a confirmation of {wanted}" if wanted else "a search, and not a confirmation"
    _require_resume(wanted == found, run, expected)


def _require_resume(ok: bool, run: Search, expected: str) -> None:
    if not ok:
        raise InputError(f"resume = {run.resume!r}: expected {expected}")
