"""How far runs and searches are, from their journals and leases alone: no lease is taken, and
neither torch, Ray nor MLflow is imported."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from gen_models.core.config import parse_object
from gen_models.core.errors import DamagedError, InputError, require
from pipelines.analysis.budgets import budget_left, seconds_of_budgets
from pipelines.catalog.abandoned import recorded_resume_command
from pipelines.catalog.stop import find_folder, leased_paths, recorded_end
from pipelines.config.objectives import Objective
from pipelines.report.results import RunProgress, StatusResult
from pipelines.store.journal import Journal
from pipelines.store.layout import RunFolder, SearchFolder, Store
from pipelines.store.lease import newest_holder, seems_held
from pipelines.store.stop_request import find_request
from pipelines.store.usage import Usage, read_usage

WINDOW_SECONDS = 300.0
"""Over which the rate is measured."""
_SAMPLED = 200
"""Epochs of the window whose training time is read."""
_ENDED = ("completed", "stopped_early", "diverged")


def status(search: str | None = None, *, store: str | Path | None = None) -> StatusResult:
    """Return how far the searches and runs are on which a process works, or the one that is named:
    the id of a search or a seed study, or the name of a run.

    Raises `InputError` if there is none of this name, or no such store.

    >>> import genpipe
    >>> [(each.name, each.trials_done, each.until) for each in genpipe.status(store="runs").runs]
    """
    place = Store.at(store)
    if search is not None:
        folders = [find_folder(place, search)]
    else:
        recorded = "a folder in which runs are recorded"
        require(place.root.is_dir(), "store", str(place.root), recorded)
        leased = [RunFolder(path.parent, place.files) for path in leased_paths(place)]
        folders = [folder for folder in leased if seems_held(folder)]
    return StatusResult(runs=tuple(_progress(place, folder) for folder in folders))


@dataclass
class _Trials:
    """What the journals of a search, or of one run, hold."""

    done_epochs: list[int] = field(default_factory=list)
    """Epochs of the trials that have ended for good."""
    failed: int = 0
    open_epochs: list[int] = field(default_factory=list)
    """Epochs of the trials that are running."""
    paused_epochs: list[int] = field(default_factory=list)
    """Epochs of the trials that were interrupted, and are taken up again."""
    best: tuple[str, float] | None = None
    times: list[tuple[float, Journal, int]] = field(default_factory=list)
    """When epochs of the window were recorded, in seconds since 1970."""
    has_older: bool = False
    """Whether an epoch was recorded before the window."""

    @property
    def epochs(self) -> int:
        return sum(self.done_epochs) + sum(self.open_epochs) + sum(self.paused_epochs)


def _progress(store: Store, folder: RunFolder) -> RunProgress:
    now = time.time()
    config = _config(folder)
    is_search = folder.path.parent == store.searches
    objective = Objective(str(config.get("metric", "")), config.get("mode", "min"))
    search = SearchFolder(folder.path, folder.files)
    journals = [each.journal for each in search.trials()] if is_search else [folder.journal]
    trials = _read_trials(journals, objective, now)
    num, epochs = int(config.get("trials", 1)), int(config.get("epochs", 1))
    running = seems_held(folder)
    usage = read_usage(search) if is_search else Usage(devices=int(config.get("num_workers", 1)))
    holder = newest_holder(folder) if running else None
    span, recorded = _window(trials, now)
    rate = 60.0 * len(recorded) / span if running and span else None
    share = _device_share(recorded, span, usage.devices, config) if rate else None
    left = budget_left(config, usage)
    seconds, assumes = _estimate(trials, num, epochs, rate, usage.devices, left)
    outcome, ended_by = ("", "") if running else recorded_end(folder)
    request = find_request(folder) if running else None
    done = len(trials.done_epochs) + trials.failed
    return RunProgress(
        name=folder.name,
        running=running,
        host=holder.host if holder else "",
        process=holder.pid if holder else 0,
        since=_iso(holder.since) if holder else "",
        outcome="" if running else outcome or "interrupted",
        ended_by=request.describe() if request else ended_by,
        metric=objective.metric,
        value=trials.best[1] if trials.best else None,
        best_trial=trials.best[0] if trials.best and is_search else "",
        trials=num,
        trials_done=done,
        trials_running=len(trials.open_epochs) if running else 0,
        trials_left=max(0, num - done - (len(trials.open_epochs) if running else 0)),
        epochs=trials.epochs,
        epochs_per_minute=rate,
        device_share=share,
        hours=usage.hours,
        device_hours=usage.device_hours,
        hours_left=left.get("max_hours"),
        device_hours_left=left.get("max_device_hours"),
        flat_trials_left=int(left["stop_when_flat"]) if "stop_when_flat" in left else None,
        seconds_left=seconds,
        until=_iso(now + seconds) if seconds is not None else "",
        assumes=assumes,
        resume="" if running else recorded_resume_command(store, folder),
    )


def _config(folder: RunFolder) -> Mapping[str, Any]:
    """Return a recorded config as plain values; {} before it is there, or if it is damaged. Its
    family is not imported."""
    with suppress(FileNotFoundError, InputError):
        content = parse_object(folder.files.read(folder.config), str(folder.config))
        config = content.get("config")
        if isinstance(config, dict):
            return config
    return {}


# -- the journals ---------------------------------------------------------------------------------
def _read_trials(journals: Sequence[Journal], objective: Objective, now: float) -> _Trials:
    """Read the outcomes of trials that have ended, and the epochs of the others."""
    found = _Trials()
    for journal in journals:
        try:
            outcome = journal.outcome()
        except DamagedError:
            found.failed += 1
            continue
        ending = outcome.ending if outcome else ""
        if ending == "superseded":
            continue
        if outcome and ending in _ENDED:
            found.done_epochs.append(outcome.last_epoch)
            value = outcome.summary.get(f"best/{objective.metric}")
            _take_best(found, objective, journal, value)
            if now - journal.files.modified_ms(journal.outcome_file) / 1000 < WINDOW_SECONDS:
                _add_times(found, journal, outcome.last_epoch, now)
            else:
                found.has_older = True
            continue
        last = _read_open(found, objective, journal, now)
        if ending == "failed":
            found.failed += 1
        else:
            (found.paused_epochs if ending else found.open_epochs).append(last)
    return found


def _read_open(found: _Trials, objective: Objective, journal: Journal, now: float) -> int:
    """Read a trial that has not ended for good; return its last epoch."""
    epochs = journal.epochs()
    for epoch in epochs:
        with suppress(DamagedError, FileNotFoundError):
            metrics = journal.record(epoch).metrics
            if not metrics.get("diverged"):
                _take_best(found, objective, journal, metrics.get(objective.metric))
    last = max(epochs, default=0)
    _add_times(found, journal, last, now)
    return last


def _take_best(
    found: _Trials, objective: Objective, journal: Journal, value: float | None
) -> None:
    if value is not None and (found.best is None or objective.better(value, found.best[1])):
        found.best = (journal.run_folder.name, value)


def _add_times(found: _Trials, journal: Journal, last: int, now: float) -> None:
    """Add when the epochs of a trial were recorded, the latest first, back to the window's
    beginning."""
    for epoch in range(last, 0, -1):
        with suppress(FileNotFoundError):
            at = journal.recorded_ms(epoch) / 1000
            if now - at > WINDOW_SECONDS:
                found.has_older = True
                return
            found.times.append((at, journal, epoch))


def _window(trials: _Trials, now: float) -> tuple[float, list[tuple[float, Journal, int]]]:
    """Return the seconds of the window, and the epochs that were recorded in it. It begins with
    the first epoch, if that is not older: before it processes start."""
    times = sorted(trials.times, key=lambda each: each[0])
    if trials.has_older or not times:
        return WINDOW_SECONDS if times else 0.0, times
    return max(0.0, now - times[0][0]), times[1:]


def _device_share(
    recorded: Sequence[tuple[float, Journal, int]],
    span: float,
    devices: int,
    config: Mapping[str, Any],
) -> float | None:
    """Return the share of the devices' time that is training, from the newest epochs."""
    seconds = []
    for _, journal, epoch in recorded[-_SAMPLED:]:
        with suppress(DamagedError, FileNotFoundError):
            seconds.append(journal.record(epoch).metrics.get("epoch_seconds", 0.0))
    if not seconds or not devices:
        return None
    trained = fmean(seconds) * len(recorded) * int(config.get("num_workers", 1))
    return min(1.0, trained / (devices * span))


# -- what is left ---------------------------------------------------------------------------------
def _estimate(
    trials: _Trials,
    num: int,
    epochs: int,
    rate: float | None,
    devices: int,
    left: Mapping[str, float],
) -> tuple[float | None, str]:
    """Return the seconds until the end, and what that assumes."""
    if not rate:
        return None, ""
    mean = fmean(trials.done_epochs) if trials.done_epochs else float(epochs)
    waiting = num - len(trials.done_epochs) - trials.failed - len(trials.open_epochs)
    begun = [*trials.open_epochs, *trials.paused_epochs]
    new = max(0, waiting - len(trials.paused_epochs))
    rest = new * mean + sum(max(0.0, mean - each) for each in begun)
    source = "those that have ended" if trials.done_epochs else "each may take at most"
    found = [(60.0 * rest / rate, f"trials take {mean:.3g} epochs, as {source}, at this rate")]
    held = {"max_device_hours": f", with {devices} devices"}
    for name, seconds in seconds_of_budgets(left, devices).items():
        flag = f"--{name.replace('_', '-')}"
        found.append((seconds, f"{flag} ends it{held.get(name, '')}"))
    return min(found)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
