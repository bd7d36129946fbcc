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
from typing import Any, NamedTuple
from uuid import uuid4

from gen_models.core.config import flatten
from gen_models.core.errors import DamagedError, InputError, require
from pipelines.analysis.champion import trial_with_best_mean
from pipelines.cluster import signals
from pipelines.cluster.connection import Cluster, connect
from pipelines.cluster.process import restored_process
from pipelines.cluster.resources import cluster_devices, local_devices, uses_gpu
from pipelines.cluster.shared_store import shared_store
from pipelines.config.command import resume_command
from pipelines.config.objectives import Objective, as_list, describe
from pipelines.config.search import PAUSES, Search, with_metrics
from pipelines.config.serialization import (
    HERE,
    LABELS,
    config_from_python,
    recorded_search,
    to_dict,
)
from pipelines.config.space import EMPTY, own_space, space_from_python
from pipelines.data.loading import is_moved
from pipelines.evaluation.metric_names import matching
from pipelines.report.console import ensure_logging
from pipelines.report.notices import EventName, notices_of
from pipelines.report.results import SearchResult
from pipelines.store.files import LeaseLostError, StoreError
from pipelines.store.layout import SearchFolder, Store
from pipelines.store.lease import holding, require_held
from pipelines.store.marker import StoreMarker
from pipelines.store.secrets import require_notice_url
from pipelines.store.stop_request import find_request, withdraw_request
from pipelines.tracking.base import check_recording
from pipelines.tracking.queue import open_tracker
from pipelines.training.payload import DatasetRef, TrainingPayload, share_dataset
from pipelines.training.precision import resolve_precision
from pipelines.training.preflight import (
    RunContext,
    check_run,
    preflight,
    require_recorded_data,
    require_same_data,
)
from pipelines.tuning import trainables
from pipelines.tuning.callbacks import events_go_to
from pipelines.tuning.fused.placement import (
    Placement,
    execution_notes,
    fused_workers,
    make_trainable,
    plan_placement,
)
from pipelines.tuning.node_metrics import metered_nodes
from pipelines.tuning.result import search_result
from pipelines.tuning.search_run import SearchRun
from pipelines.tuning.strategy.knowledge import (
    Earlier,
    Point,
    earlier_points,
    give_points,
    given_points,
    read_points,
)
from pipelines.tuning.strategy.searchers import Lesson
from pipelines.tuning.strategy.space import (
    grid_size,
    require_satisfiable,
    searched_space,
    widest_settings,
)
from pipelines.tuning.studies import ended_before, run_seed_studies, studies_are_complete
from pipelines.tuning.tuner import run_tuner

_log = logging.getLogger(__name__)

_TAKEN_ON_RESUME = (
    *HERE,
    *LABELS,
    *("tracking_uri", "data_root", "confirm", "seeds"),
    *("max_hours", "max_device_hours", "stop_when_flat"),
)
"""Settings that a resumed search takes from the command that resumes it, if they are given."""
_ERROR = 500
"""Characters of an error in a notice."""
_EVENTS: Mapping[str, EventName] = {"completed": "ended", "interrupted": "interrupted"}
"""The event of a search's end, by its outcome."""
_GROWS = ("trials", "epochs")
"""Settings of which a resumed search may be given more."""
_CHOSEN_AT_START = ("precision", "scheduler", "searcher")
"""Settings whose choice was recorded when the search started, if it was left open."""


def search(
    family: str,
    *,
    metric: str | Sequence[str] | None = None,
    mode: str | Sequence[str] | None = None,
    space: Mapping[str, Any] | Sequence[str] | None = None,
    **settings: Any,
) -> SearchResult:
    """Search over a family's configs, and record every trial.

    `metric`, `mode`: one, or several for a Pareto front. `space`: what is searched beside the
    family's own space, as a mapping in the config's shape of Ray Tune's domains or of texts, or as
    the texts that `--space` takes. The other settings are those of `genpipe search FAMILY --help`,
    with `_` in place of `-`; `model` and `optim` are mappings. A setting of the space that is
    given is not searched. Raises `InputError` at an unknown setting or a wrong value, before Ray
    starts.

    >>> import genpipe
    >>> from ray import tune
    >>> lr = tune.loguniform(1e-5, 1e-1)
    >>> result = genpipe.search("vae", data="digits", trials=24, space={"optim": {"lr": lr}})
    >>> result.champion.config, result.champion.metrics, result.ranking, result.pareto
    """
    ensure_logging()
    if space is not None:
        settings["space"] = space_from_python(space)
    run = config_from_python(Search, family, settings)
    run = with_metrics(run, as_list("metric", metric), as_list("mode", mode))
    given = {name for name, value in flatten(settings).items() if value is not None}
    given |= {"metric"} if metric is not None or mode is not None else set()
    return run_search(resolve_search(run, given))


def resolve_search(run: Search, given: Collection[str], search_id: str = "") -> Search:
    """Return the search that a command means: a new one without the given settings in its space,
    or the recorded one that it resumes.

    `given`: names of the settings that were given, flat. `search_id`: what a new search without a
    name is called. If a search of this name or id was begun, it is the one to resume. Raises
    `InputError` if the search to resume is unknown, or if a given setting differs from the
    recorded one and cannot be applied.
    """
    # An empty name is that of a shell's variable that is not set.
    require(bool(run.resume) or "resume" not in given, "resume", "", "the name of a search")
    if run.resume:
        return _resumed(run, given)
    require(bool(run.name) or "name" not in given, "name", "", "the name of a search")
    begun = Store.at(run.store).search_ids()
    if run.name in begun:
        return _resumed(replace(_new(run, given), resume=run.name), given)
    if not run.name and search_id in begun:
        # It was begun by these settings: those that it recorded hold every choice made since.
        return _resumed(replace(run, resume=search_id), set(given) & set(_TAKEN_ON_RESUME))
    return _new(run, given)


def _new(run: Search, given: Collection[str]) -> Search:
    """Return a new search without the given settings in its space."""
    if run.seed_study:
        return run
    own = {setting.name: setting for setting in own_space(run.family)}
    for setting in run.searched:
        if setting.name in given and setting != own.get(setting.name):
            one = "a value or a domain, and not both"
            raise InputError(f"{setting.name}: expected {one}: --space has {setting}")
    left = [str(setting) for setting in run.searched if setting.name not in given]
    return replace(run, space=(EMPTY, *left))


@restored_process()
def run_search(run: Search, search_id: str = "") -> SearchResult:
    """Search to the end, from where the search stands if it is resumed, and make the seed studies
    that are asked for. A budget that is used up, or `genpipe stop`, ends it before; what it has
    found counts. `search_id`: of a new search, its id; by default one that is generated."""
    require_notice_url(run.notify)
    folder = _folder(run, search_id)
    run = with_choices(run)
    context = preflight(run)
    checked = _check_context(run, context, folder)
    searched, points, earlier = checked.searched, checked.points, checked.earlier
    studies: dict[str, SearchRun] = {}
    with (
        holding(folder, "resume"),
        notices_of(run.notify) as notices,
        ExitStack() as at_end,
        open_tracker(context.uri, context.store) as tracker,
    ):
        withdraw_request(folder)
        extractor = context.extractor  # computed before Ray takes the cores
        give_points(folder, points)
        if earlier.best and not run.resume:  # a search that is resumed was given them
            give_points(folder, earlier.best)
            line = "search %s: the best configs of %d earlier searches are tried first"
            _log.info(line, folder.name, len(earlier.best))
        this = SearchRun(context, folder, tracker, searched, notices=notices)
        at_end.callback(_say_how_to_resume, this, studies)
        at_end.push(partial(_notify_of_error, this))
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
                        _run_trials,
                        cluster=cluster,
                        dataset=dataset,
                        marker=marker,
                        earlier=earlier.lessons,
                    )
                    run_trials(this)
                    if this.status == "completed" and this.run.confirm and not _is_asked(this):
                        run_seed_studies(this, studies, run_trials, at_end)
            ended = True
        finally:
            # Only now that Ray has gone, and with it every process that writes journals.
            with signals.deferred():
                _close_open(this, studies, ended=ended)
        _finish(this, studies)
        tracker.finish()
        result = search_result(this, studies)
        _notify_of_end(this, result)
        return result


def with_choices(run: Search) -> Search:
    """Return a search with the scheduler, the searcher and the number of trials that follow."""
    run = replace(run, scheduler=run.chosen_scheduler, searcher=run.chosen_searcher)
    return replace(run, trials=grid_size(run)) if run.chosen_searcher == "grid" else run


class _Checked(NamedTuple):
    """What the checks of a search find."""

    searched: list[str]
    """Flat names of the searched settings."""
    points: Sequence[Point]
    """Those to try first, of `--enqueue`."""
    earlier: Earlier
    """What `--warm-start` gives."""
    placement: Placement | None
    """Of fused trials on this machine; None without it."""


def check_search(run: Search) -> tuple[RunContext[Search], Placement | None]:
    """Make the checks that a search makes before it begins, writing nothing; return it with every
    choice made that needs no cluster, and how its trials are placed on this machine.

    Raises `InputError` as `run_search` does.
    """
    require_notice_url(run.notify)
    run = with_choices(run)
    context = check_run(run)
    check_recording(context.store, run.tracking_uri)
    return context, _check_context(run, context, _folder(run, "")).placement


def _check_context(run: Search, context: RunContext[Search], folder: SearchFolder) -> _Checked:
    """Check a search against its data, its space, its earlier trials and this machine. `run`: with
    the settings as they were given, which errors name."""
    dataset = context.dataset
    require_recorded_data(run, dataset, folder.journal)
    if study := run.seed_study:
        require_same_data(run, dataset, study.data_digest, study.name)
    space = searched_space(run)
    require_satisfiable(run, space)
    searched = [setting.name for setting in space]
    points = read_points(context.run, run.enqueue)
    given_points(folder)  # damage is found before Ray starts
    earlier = earlier_points(context.run, dataset, context.store)
    here = local_devices(run.address, run.device) if run.is_fused else None
    placement = plan_placement(run, dataset.spec, here) if here else None
    return _Checked(searched, points, earlier, placement)


def _run_trials(
    search: SearchRun,
    cluster: Cluster,
    dataset: DatasetRef,
    marker: StoreMarker,
    earlier: Sequence[tuple[Point, Lesson]] = (),
) -> None:
    """Have Tune run the trials of a search or a seed study, unless it is over."""
    signals.check()
    run, spec, folder = search.context.run, search.context.dataset.spec, search.folder
    on_gpu = uses_gpu(cluster, run.device, run.num_workers)
    run = resolve_precision(run, spec, cluster, on_gpu)
    search.start(run)
    if search.is_over:
        return
    run = replace(run, notify="")  # the URL is known to this process alone
    widest = widest_settings(run, spec)
    where, content = str(folder.path), to_dict(run)
    payload = TrainingPayload(content, where, dataset, on_gpu, marker, widest)
    known = () if run.seed_study else earlier
    with (
        events_go_to(search.search_id, search) as callback,
        metered_nodes(cluster) as search.node_metrics,
    ):
        if run.is_fused:
            placement = plan_placement(run, spec, cluster_devices(cluster, on_gpu))
            _log.info("search %s: %d trials; %s", folder.name, run.trials, placement.describe())
            search.workers = placement.workers
            with fused_workers(payload, placement) as workers:
                trainable = make_trainable(workers, run, placement, marker)
                trial_ids = run_tuner(run, folder, trainable, placement.at_once, [callback], known)
                for note in execution_notes(workers):
                    _log.info("fused workers: %s", note)
        else:
            num_devices = cluster.num_gpus if on_gpu else cluster.num_cpus
            concurrent = trainables.max_concurrent(run, num_devices)
            line = "search %s: %d trials, %d at once, not fused"
            _log.info(line, folder.name, run.trials, concurrent)
            trainable = trainables.make_trainable(payload)
            trial_ids = run_tuner(run, folder, trainable, concurrent, [callback], known)
        search.tune_ended(trial_ids)


def _is_asked(search: SearchRun) -> bool:
    """Return whether somebody has asked a search to stop: then no seed study is made."""
    return find_request(search.folder) is not None


def _notify_of_error(
    search: SearchRun, kind: object, error: BaseException | None, trace: object
) -> None:
    """Notify of the error that ends a search, if one does."""
    if isinstance(error, KeyboardInterrupt):
        search.notify("interrupted")
    elif error:
        search.notify("failed", f"{type(error).__name__}: {error}"[:_ERROR])


def _notify_of_end(search: SearchRun, result: SearchResult) -> None:
    """Notify of the end of a search, with why it ended and why trials failed."""
    failed = [f"{num} failed: {reason}" for reason, num in result.failures.items()]
    event = _EVENTS.get(result.outcome, "failed")
    search.notify(event, "; ".join([*filter(None, [result.ended_by]), *failed])[:_ERROR])


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
        if is_closed and ended_before(search, studies):
            return  # the result has the command
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


def _folder(run: Search, search_id: str) -> SearchFolder:
    """Return the search's folder: of a new search that of its name, that of `search_id`, or one
    with a new id."""
    store = Store.at(run.store)
    if known := run.resume or run.name or search_id:
        return store.search(known)
    what = f"{run.family}-confirm" if run.seed_study else run.family
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return store.search(f"{what}-{stamp}-{uuid4().hex[:4]}")


# -- resuming -----------------------------------------------------------------------------------
def _resumed(run: Search, given: Collection[str]) -> Search:
    """Return the recorded config of the search to resume, with the settings that it may take from
    this command."""
    before = recorded_search(Store.at(run.store), run.resume, "resume")
    expected = f"a search of {run.family}, and not of {before.family}"
    _require_resume(before.family == run.family, run, expected)
    _require_same_study(run, before)
    _require_same_objectives(run, before, given)
    recorded, wanted = flatten(to_dict(before)), flatten(to_dict(run))
    searched = set(before.searched.by_name)
    for name in sorted(given):
        if name in _GROWS:
            _require_growth(run, before, name)
        free = (
            name in _GROWS
            or name in (*_TAKEN_ON_RESUME, "resume", "metric", "mode")
            or name not in wanted
        )
        chosen = name in _CHOSEN_AT_START and wanted[name] in ("auto", None)
        moved = name == "data" and is_moved(run.data, before.data)  # digests are compared later
        if free or chosen or moved:
            continue
        if name in searched or wanted[name] != recorded[name]:
            was = "none, because it is searched" if name in searched else repr(recorded[name])
            other = ", and another --name begins a new one" if run.name else ""
            raise InputError(
                f"{name} = {wanted[name]!r}: expected {was}, as search {run.resume} was started; "
                f"a search keeps its settings when it is resumed{other}"
            )
    taken = {*HERE, *(n for n in (*_TAKEN_ON_RESUME, *_GROWS, "data") if n in given)}
    return replace(before, resume=run.resume, **{name: getattr(run, name) for name in taken})


def _require_growth(run: Search, before: Search, name: str) -> None:
    """Refuse to take from a search what it was given, and to give more to one that was planned as
    a whole: a grid, a seed study, brackets of hyperband, a population."""
    wanted, recorded = getattr(run, name), getattr(before, name)
    if wanted == recorded:
        return
    least = f"at least {recorded}, as search {run.resume} was started"
    require(wanted > recorded, name, wanted, least)
    whole = f"{recorded}, as search {run.resume} was started"
    is_whole = before.seed_study is not None or (
        name == "trials" and before.chosen_searcher == "grid"
    )
    require(not is_whole, name, wanted, f"{whole}: its points are all that there are")
    scheduler = before.chosen_scheduler
    planned = f"{whole}: {scheduler} plans for all trials when it starts"
    require(scheduler not in PAUSES, name, wanted, planned)


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


def _require_same_study(run: Search, before: Search) -> None:
    """Refuse to resume a seed study of another run, or a search as a seed study."""
    wanted, found = (each.seed_study.run if each.seed_study else "" for each in (run, before))
    expected = f"a confirmation of {wanted}" if wanted else "a search, and not a confirmation"
    _require_resume(wanted == found, run, expected)


def _require_resume(ok: bool, run: Search, expected: str) -> None:
    if not ok:
        raise InputError(f"resume = {run.resume!r}: expected {expected}")
