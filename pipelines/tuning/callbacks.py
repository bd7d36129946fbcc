"""Tune's callback and stopper: they pass Tune's events to the search that this process runs, and
its end to Tune.

Tune pickles both, and brings the pickled ones back when a search is resumed. So they hold the
search's id and nothing else, and find the search of this process by it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from ray import tune
from ray.tune.experiment import Trial

from gen_models.core.config import nest
from pipelines.store.files import StoreError
from pipelines.store.journal import EpochRecord
from pipelines.tuning.recorder import Event, TrialEnded, TrialReported, TrialStarted


class EventHandler(Protocol):
    """What the callback needs of a search."""

    metric: str
    """The metric that ranks."""

    def handle(self, event: Event) -> None:
        """Record an event."""

    def step(self, now: float, running: Callable[[], Collection[str]]) -> None:
        """Look whether the search is to end. `now`: seconds of a monotonic clock. `running`:
        returns the ids of the trials that train now."""

    @property
    def may_end(self) -> bool:
        """Whether Tune is to end, with the trials that have not ended."""

    def last_record(self, trial_id: str) -> EpochRecord | None:
        """Return a trial's last recorded epoch."""

    def given_points(self) -> dict[str, Mapping[str, Any]]:
        """Return the points that were given for the search to try, flat, by the name of their
        file."""


_HANDLERS: dict[str, EventHandler] = {}
"""The searches that this process runs now, by id."""


@contextmanager
def events_go_to(search_id: str, handler: EventHandler) -> Iterator[TuneEvents]:
    """Give the callback of a search, for as long as Tune runs it."""
    _HANDLERS[search_id] = handler
    try:
        yield TuneEvents(search_id)
    finally:
        del _HANDLERS[search_id]


def given_points(search_id: str) -> dict[str, Mapping[str, Any]]:
    """Return the points that were given for a search of this process to try."""
    handler = _HANDLERS.get(search_id)
    return handler.given_points() if handler else {}


class TuneEvents(tune.Callback):
    """Passes Tune's events on, with what the trial's journal says."""

    def __init__(self, search_id: str) -> None:
        self.search_id = search_id

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        def running() -> list[str]:
            return [trial.trial_id for trial in trials if trial.status == Trial.RUNNING]

        _HANDLERS[self.search_id].step(time.monotonic(), running)

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        handler = _HANDLERS[self.search_id]
        last = handler.last_record(trial.trial_id)
        config, epoch = nest(trial.config), last.epoch if last else 0
        handler.handle(TrialStarted(trial.trial_id, config, epoch))

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        handler = _HANDLERS[self.search_id]
        value, diverged = float(result[handler.metric]), bool(result["diverged"])
        epoch, now = int(result["epoch"]), time.monotonic()
        handler.handle(TrialReported(trial.trial_id, epoch, value, diverged, now))

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._ended(trial, None)

    def on_trial_recover(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        _end_if_unusable(_error_text(trial))

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        _end_if_unusable(_error_text(trial))
        lines = (_error_text(trial) or "its process died without an error message").strip()
        self._ended(trial, lines.splitlines()[-1])

    def _ended(self, trial: Trial, error: str | None) -> None:
        handler = _HANDLERS[self.search_id]
        last = handler.last_record(trial.trial_id)
        reported = int((trial.last_result or {}).get("epoch", 0))
        handler.handle(
            TrialEnded(
                trial.trial_id,
                reported_epoch=reported,
                recorded_epoch=last.epoch if last else 0,
                diverged=bool(last and last.metrics["diverged"]),
                error=error,
            )
        )


class SearchStopper(tune.Stopper):
    """Ends Tune when the search is to end. Tune then takes its trials for ended, those too that
    could go on: a search that is resumed begins with a new Tune."""

    def __init__(self, search_id: str) -> None:
        self.search_id = search_id

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return _HANDLERS[self.search_id].may_end


def _end_if_unusable(error: str) -> None:
    """Raise `StoreError` if that was a trial's error. It ends the search."""
    if unusable := StoreError.found_in(error):
        raise unusable


def _error_text(trial: Trial) -> str:
    """Return the trace of a trial's latest error. Tune has it in a file of this process, which it
    copies to the search's folder some time later, where `Trial.get_error` looks."""
    try:
        return Path(trial.error_file or "").read_text()
    except OSError:
        return str(trial.get_error() or "")
