"""Records everything anew from the journals, which hold all that MLflow is to show."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from gen_models.core.errors import require
from pipelines.catalog.abandoned import close_abandoned
from pipelines.report.console import ensure_logging
from pipelines.report.results import Failure, SyncResult
from pipelines.store.layout import Store
from pipelines.store.secrets import hide
from pipelines.tracking.base import find_backend
from pipelines.tracking.base import tracking_uri as find_tracking_uri
from pipelines.tracking.queue import reason

_SHOW_EVERY = 100
_log = logging.getLogger(__name__)


def sync(*, store: str | Path | None = None, tracking_uri: str | None = None) -> SyncResult:
    """Record every run, search, trial and evaluation of a store that MLflow lacks, with its
    points, pictures, models and the alias `champion`.

    For a database that was deleted or replaced, and to move to another `tracking_uri`. What MLflow
    holds already stays as it is, and a run that somebody has deleted there stays deleted. MLflow
    chooses new ids for its runs; the earlier ones are recorded with them, and still name them.
    Raises `InputError` if the store has no journals, or nothing answers at the URI.

    >>> import genpipe
    >>> genpipe.sync(store="runs", tracking_uri="http://127.0.0.1:5000").runs
    """
    ensure_logging()
    place = Store.at(store)
    close_abandoned(place)
    going_on = place.open_journals()  # first: one that ends meanwhile is among the ended
    journals = [*place.ended_journals(), *going_on]
    require(bool(journals), "store", str(place.root), "a folder with journals of runs")
    uri = find_tracking_uri(place, tracking_uri)
    backend, failed, counts = find_backend(uri), list[Failure](), {"runs": 0, "evaluations": 0}

    def deliver(kind: str, folder: Path, work: Callable[[], None]) -> None:
        name = str(folder.relative_to(place.root))
        try:
            work()
        except Exception as error:  # one that is damaged, or that MLflow refuses, stops no other
            failed.append(Failure(name=name, reason=reason(error)))
            _log.debug("%s", name, exc_info=True)
        else:
            counts[kind] += 1
            if sum(counts.values()) % _SHOW_EVERY == 0:
                _log.info("%d recorded", sum(counts.values()))

    with backend.settings():
        writer = backend.writer(uri, place)
        writer.prepare()
        for journal in journals:
            deliver("runs", journal.run_folder, partial(writer.deliver, journal, anew=True))
        for evaluation in sorted(place.evaluations(), key=lambda each: each.recorded_ms()):
            work = partial(writer.deliver_evaluation, evaluation, anew=True)
            deliver("evaluations", evaluation.folder, work)
    return SyncResult(tracking_uri=hide(uri), failed=tuple(failed), **counts)
