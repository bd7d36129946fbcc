"""Recorded runs: list them, and rank those of a family."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import get_args

import gen_models
from gen_models.core.config import parse_object
from gen_models.core.errors import InputError, require
from pipelines.analysis.best_epoch import BEST_SETTINGS
from pipelines.analysis.comparability import comparison_key, short
from pipelines.catalog.abandoned import close_abandoned, resume_commands
from pipelines.catalog.conditions import RunCondition
from pipelines.config.labels import is_own_tag, parse_tags
from pipelines.config.objectives import Mode, Objective, known_mode, parse_mode
from pipelines.evaluation.metric_names import BEST_CURVE, matching
from pipelines.report.results import BestResult, RecordedRun, RunsResult
from pipelines.store.journal import RunKind
from pipelines.store.layout import Store
from pipelines.tracking.base import RunRow, find_backend, recorded_uri
from pipelines.tracking.queue import DeliveryQueue, pending_journals, warn_of_losses
from pipelines.tracking.rows import NOTE
from tune_spaces import space

_log = logging.getLogger(__name__)
_PATIENCE_SECONDS = 60.0
"""How long one delivery may take, the client's import included."""


def runs(
    *,
    store: str | Path | None = None,
    tracking_uri: str | None = None,
    experiment: str | None = None,
    kind: RunKind | None = None,
    family: str | None = None,
    tag: Sequence[str] = (),
    where: str | None = None,
    num: int = 30,
) -> RunsResult:
    """List recorded runs, the newest first; first deliver to MLflow what an outage held back, and
    record as interrupted what no command works on any more.

    `experiment`, `kind` (run, search, trial or confirmation), `family`: only such runs. `tag`:
    only runs with these tags, each NAME=VALUE as they were given. `where`: a condition, such as
    `metric < 25 and model.latent_dim <= 16` (`pipelines.catalog.conditions`).
    Raises `InputError` if nothing is recorded, or if there is no such experiment, kind or family.

    >>> import genpipe
    >>> [run.name for run in genpipe.runs(store="runs", kind="trial", where="metric < 25").runs]
    """
    require(num >= 1, "num", num, "an integer of at least 1")
    known = get_args(RunKind)
    require(kind is None or kind in known, "kind", kind, f"one of {', '.join(known)}")
    condition = None if where is None else RunCondition(where, _ranking_value)
    tags = {name: value for name, value in (("kind", kind), ("family", family)) if value}
    tags |= parse_tags(tag)
    place = Store.at(store)
    holds = condition.holds if condition else None
    rows = _list_runs(place, tracking_uri, experiment, tags, holds, num)
    if not rows and family:
        gen_models.space_module(family)  # raises if there is none, which a run of it need not have
    if not rows and condition:
        condition.require_known()
    listed = [_row(row, row.tags.get("metric", ""), place) for row in rows]
    return RunsResult(runs=tuple(listed), resume=resume_commands(place, listed))


def best(
    family: str,
    *,
    data: str | None = None,
    metric: str | None = None,
    key: str | None = None,
    num: int = 5,
    store: str | Path | None = None,
    tracking_uri: str | None = None,
) -> BestResult:
    """Rank the recorded runs and trials of a family by their best epoch; a config that has a seed
    study, by its mean over the seeds.

    Only runs of one comparison key can be compared (`pipelines.analysis.comparability`): without
    `key`, eight digits that `runs` shows, that of the newest run. `data`: only runs on this data
    set. `metric`: by default the family's own. Raises `InputError` if no such run is recorded.

    >>> import genpipe
    >>> genpipe.best("vae", data="digits", store="runs").ranking[0].params
    """
    require(num >= 1, "num", num, "an integer of at least 1")
    place = Store.at(store)
    rows = _list_runs(place, tracking_uri, tags={"family": family})
    wanted = f"best/{metric or space(family).metric}"
    rows = [row for row in _single_runs(rows) if matching(wanted, row.metrics)]
    rows = [row for row in rows if "data" in row.params]  # others' runs may have our tags
    rows = [row for row in rows if data in (None, row.params["data"])]
    by_key = _by_key(rows, wanted)
    if not rows or (key is not None and key not in map(short, by_key)):
        on = (f" on {data}" if data else "") + (f" of key {key}" if key else "")
        name = wanted.removeprefix("best/")
        raise InputError(f"no run of {family}{on} with {name} is recorded in {place.root}")
    chosen = next(each for each in by_key if key in (None, short(each)))  # the newest run's first
    rows = by_key.pop(chosen)
    metric = _metric(rows[0], wanted)
    objective = Objective(metric, _mode(family, rows, metric))
    valued = [(value, row) for row in rows if (value := _value(row, metric)) is not None]
    ranking = [row for _, row in sorted(valued, key=lambda pair: objective.cost(pair[0]))]
    shown = [_row(row, metric, place) for row in ranking[:num]]
    return BestResult(
        metric=metric,
        mode=objective.mode,
        data=rows[0].params["data"],
        ranking=tuple(shown),
        rerun=shown[0].rerun,
        comparable=chosen,
        key=short(chosen),
        left_out={short(each): len(others) for each, others in by_key.items()},
        resume=resume_commands(place, shown),
    )


def browse(
    *,
    store: str | Path | None = None,
    tracking_uri: str | None = None,
    port: int = 5000,
    auth: bool = False,
) -> None:
    """Serve MLflow's page on 127.0.0.1 until interrupted; with `auth` only to who gives the name
    and the password of the environment. Raises `InputError` if the port is in use."""
    require(0 < port < 65536, "port", port, "a number from 1 to 65535")
    place = Store.at(store)
    uri = recorded_uri(place, tracking_uri)
    _deliver_pending(place, uri)
    backend = find_backend(uri)
    with backend.settings():
        warn_of_losses(place, uri, backend)
    backend.serve(uri, place, port, auth=auth)


def _list_runs(
    store: Store,
    tracking_uri: str | None,
    experiment: str | None = None,
    tags: Mapping[str, str] | None = None,
    where: Callable[[RunRow], bool] | None = None,
    num: int | None = None,
) -> list[RunRow]:
    uri = recorded_uri(store, tracking_uri)
    _deliver_pending(store, uri)
    backend = find_backend(uri)
    with backend.settings():
        warn_of_losses(store, uri, backend)
        return backend.reader(uri, store).list_runs(experiment, tags, where=where, num=num)


def _deliver_pending(store: Store, uri: str) -> None:
    """Deliver what MLflow lacks of the store's ended runs and evaluations."""
    close_abandoned(store)
    backend = find_backend(uri)
    pending = list(pending_journals(store, uri, backend))
    if not pending:
        return
    with DeliveryQueue(backend, uri, store) as tracker:
        for journal in pending:
            tracker.sync(journal)
        if not tracker.drain(_PATIENCE_SECONDS):
            num, at = tracker.num_pending, backend.public_uri(uri)
            _log.warning("%d results of this store are not in %s at %s", num, backend.name, at)


def _metric(row: RunRow, wanted: str) -> str:
    """Return the name of the run's metric that `wanted`, of the form `best/val/fd`, means."""
    return matching(wanted, row.metrics)[0].removeprefix("best/")


def _by_key(rows: Sequence[RunRow], wanted: str) -> dict[str, list[RunRow]]:
    """Return the runs by their comparison keys, in the order of the newest run of each."""
    found: dict[str, list[RunRow]] = {}
    for row in rows:
        key = comparison_key(row.params, row.tags, _metric(row, wanted))
        found.setdefault(key, []).append(row)
    return found


def _single_runs(rows: Sequence[RunRow]) -> list[RunRow]:
    """Return runs and trials, without the seeds of seed studies."""
    studies = {row.search_id for row in rows if row.kind == "confirmation"}
    return [r for r in rows if r.kind in ("run", "trial") and r.search_id not in studies]


def _mode(family: str, rows: Sequence[RunRow], metric: str) -> Mode:
    recorded = [
        row.tags["mode"]
        for row in rows
        if row.tags.get("metric") == metric and row.tags.get("mode") in get_args(Mode)
    ]
    return parse_mode(recorded[0]) if recorded else known_mode(family, metric)


def _value(row: RunRow, metric: str) -> float | None:
    """Return the metric at the best epoch; with a seed study by this metric, the mean over
    seeds."""
    best = row.metrics.get(f"best/{metric}")
    return row.metrics.get("confirm/mean", best) if row.tags.get("metric") == metric else best


def _ranking_value(row: RunRow) -> float | None:
    """Return the value that a run is ranked by."""
    return _value(row, row.tags.get("metric", ""))


def _changed_settings(row: RunRow) -> Mapping[str, object]:
    """Return the settings of the best epoch that differ from the run's parameters; {} if the tag
    that holds them is not ours."""
    try:
        return parse_object(row.tags.get(BEST_SETTINGS, "{}"), BEST_SETTINGS)
    except InputError:
        return {}


def _row(row: RunRow, metric: str, store: Store) -> RecordedRun:
    changed = _changed_settings(row)
    command = row.tags.get("rerun", "")
    if changed and command:  # it repeats a recorded run, and must find it
        command = f"{command} --store {shlex.quote(str(store.root))}"
    key = comparison_key(row.params, row.tags, metric)
    return RecordedRun(
        run_id=row.run_id,
        name=row.name,
        experiment=row.experiment,
        kind=row.kind,
        search_id=row.search_id,
        trial_id=row.trial_id,
        status=row.status,
        outcome=row.outcome or row.status.lower(),
        epoch=row.epoch,
        metric=metric,
        value=_value(row, metric),
        params={**row.params, **{name: str(value) for name, value in changed.items()}},
        metrics={
            name: value
            for name, value in row.metrics.items()
            if name.startswith("best/") and name != BEST_CURVE
        },
        rerun=command,
        started=row.start_time.isoformat(),
        comparable=key,
        key=short(key),
        tags={name: value for name, value in row.tags.items() if not is_own_tag(name)},
        note=row.tags.get(NOTE, ""),
    )
