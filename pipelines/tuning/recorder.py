"""What is recorded of a search, as a state machine without I/O: events in, actions out.

`pipelines.tuning.search_run` turns Tune's callbacks into events and performs the actions, and
nothing else writes the journals' ends. So every event in every state is a plain unit test.

    state of a trial    Started    Reported            Ended    Closed
    unknown             open       -                   close    -
    running             open       deliver (seldom)    close    close: interrupted
    ended               open       -                   -        -

`Started` in the state ended is a trial that Tune starts again: after a failure, or when the search
is resumed.

`EndDue` changes no trial: the search goes on until each trial that was running has reported once
more, or has ended (`may_end`). Trials that are open then are closed as interrupted, with the
reason, and go on if the search is resumed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.config.objectives import Objective
from pipelines.store.journal import RunStatus

DELIVER_SECONDS = 3.0
"""Epochs of a trial, and ends of a search's trials, that follow each other faster are delivered
together."""
FOR_NOW: tuple[RunStatus, ...] = ("interrupted", "superseded")
"""Ends of trials that are tried again."""
_COUNTED: tuple[RunStatus, ...] = ("completed", "stopped_early", "diverged", "failed")


# -- events -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class TrialStarted:
    """Tune has started a trial, or started it again."""

    trial_id: str
    config: Mapping[str, Any]
    """The searched settings, in the config's shape."""
    epoch: int
    """The last recorded epoch; 0 for a new trial."""


@dataclass(frozen=True)
class TrialReported:
    """Tune has received a report of an epoch."""

    trial_id: str
    epoch: int
    value: float
    """The metric that ranks."""
    diverged: bool
    time: float
    """Seconds, of a monotonic clock."""


@dataclass(frozen=True)
class TrialEnded:
    """Tune has ended a trial."""

    trial_id: str
    reported_epoch: int
    """The last epoch that Tune received; 0 for none."""
    recorded_epoch: int
    """The last epoch in the journal; 0 for none."""
    diverged: bool
    """Whether the last recorded epoch diverged."""
    error: str | None = None
    """Why the trial failed; None if it did not."""


@dataclass(frozen=True)
class TuneEnded:
    """Tune has ended, after it has run what it could of the trials that it knows."""

    known: Collection[str]
    """Ids of the trials that Tune knows."""
    recorded: Mapping[str, int]
    """The trials that have a journal, with their last recorded epoch."""


@dataclass(frozen=True)
class Closed:
    """The processes that write journals have gone."""

    open: Mapping[str, int]
    """The trials that have no outcome, with their last recorded epoch."""


@dataclass(frozen=True)
class EndDue:
    """The search is to end before all its trials have."""

    reason: str
    running: Collection[str]
    """Ids of the trials that train now, whose epochs are to be finished."""


Event = TrialStarted | TrialReported | TrialEnded | EndDue | TuneEnded | Closed


# -- actions ----------------------------------------------------------------------------------
@dataclass(frozen=True)
class OpenTrial:
    """Record that a trial starts, and deliver it."""

    trial_id: str
    config: Mapping[str, Any]


@dataclass(frozen=True)
class DeliverTrial:
    """Deliver a trial's journal up to an epoch."""

    trial_id: str
    upto: int


@dataclass(frozen=True)
class CloseTrial:
    """Record how a trial ended, prune its checkpoints, and deliver it."""

    trial_id: str
    status: RunStatus
    last_epoch: int
    message: str = ""


Action = OpenTrial | DeliverTrial | CloseTrial


# -- state ------------------------------------------------------------------------------------
@dataclass
class RunningTrial:
    """A trial that is going on."""

    epoch: int
    delivered_at: float = float("-inf")


@dataclass
class SearchState:
    """The state of a search. `handle` alone changes it."""

    objective: Objective
    epochs: int
    """The most that a trial may run."""
    running: dict[str, RunningTrial] = field(default_factory=dict)
    ended: dict[str, RunStatus] = field(default_factory=dict)
    ended_epochs: dict[str, int] = field(default_factory=dict)
    """The last epoch of each trial that is not running."""
    started: set[str] = field(default_factory=set)
    """Trials that this process has started."""
    best: tuple[str, float] | None = None
    """The trial with the best value so far, and the value."""
    ending: str = ""
    """Why the search ends before all its trials have; "" if it does not."""
    awaited: set[str] = field(default_factory=set)
    """Trials whose running epoch is waited for before the search ends."""

    def handle(self, event: Event) -> list[Action]:
        """Change the state by an event, and return what is to be done."""
        match event:
            case TrialStarted():
                return self._start(event)
            case TrialReported():
                return self._report(event)
            case TrialEnded():
                return self._end(event)
            case EndDue():
                return self._await_running(event)
            case TuneEnded():
                return self._supersede(event)
            case Closed():
                return self._interrupt(event)

    def count(self, status: RunStatus) -> int:
        """Return how many trials ended so."""
        return Counter(self.ended.values())[status]

    @property
    def num_ended(self) -> int:
        """Trials that have ended for good: not interrupted, nor superseded."""
        return sum(each not in FOR_NOW for each in self.ended.values())

    @property
    def num_epochs(self) -> int:
        """Epochs that its trials have trained."""
        running = sum(trial.epoch for trial in self.running.values())
        return running + sum(self.ended_epochs.values())

    def progress(self) -> dict[str, float]:
        """Return how far the search is, as metrics."""
        ends = Counter(self.ended.values())
        counted = {
            "trials/ended": self.num_ended,
            "trials/running": len(self.running),
            **{f"trials/{each}": ends[each] for each in _COUNTED},
            "epochs_trained": self.num_epochs,
        }
        return {name: float(num) for name, num in counted.items()}

    @property
    def may_end(self) -> bool:
        """Whether the search is to end, and the epochs have ended that ran when it was due."""
        return bool(self.ending) and not self.awaited

    def restore(
        self,
        ended: Mapping[str, RunStatus],
        best: tuple[str, float] | None,
        epochs: Mapping[str, int] | None = None,
    ) -> None:
        """Take over what an earlier process recorded, when a search is resumed. `epochs`: the last
        one of each trial."""
        self.ended.update(ended)
        self.ended_epochs.update(epochs or {})
        self.best = best

    def _start(self, event: TrialStarted) -> list[Action]:
        self.ended.pop(event.trial_id, None)
        self.ended_epochs.pop(event.trial_id, None)
        self.started.add(event.trial_id)
        self.running[event.trial_id] = RunningTrial(event.epoch)
        return [OpenTrial(event.trial_id, event.config)]

    def _await_running(self, event: EndDue) -> list[Action]:
        if not self.ending:
            self.ending, self.awaited = event.reason, set(event.running)
        return []

    def _report(self, event: TrialReported) -> list[Action]:
        self.awaited.discard(event.trial_id)
        trial = self.running.get(event.trial_id)
        if trial is None:
            return []  # it was stopped before this report arrived
        trial.epoch = event.epoch
        if not event.diverged and (
            self.best is None or self.objective.better(event.value, self.best[1])
        ):
            self.best = (event.trial_id, event.value)
        if event.time - trial.delivered_at <= DELIVER_SECONDS:
            return []
        trial.delivered_at = event.time
        return [DeliverTrial(event.trial_id, event.epoch)]

    def _end(self, event: TrialEnded) -> list[Action]:
        self.awaited.discard(event.trial_id)
        if event.trial_id in self.ended:
            return []
        status, epoch = self._status(event)
        return [self._close(event.trial_id, status, epoch, event.error or "")]

    def _status(self, event: TrialEnded) -> tuple[RunStatus, int]:
        """Return how a trial ended, and its last epoch that counts.

        Tune can miss the last report of a run that ends by itself, because it takes the end for a
        duplicate of that report if it hears of the end first; the journal has the epoch.
        """
        if event.error is not None:
            return "failed", event.reported_epoch
        if event.diverged:
            return "diverged", event.recorded_epoch
        if event.recorded_epoch >= self.epochs:
            return "completed", event.recorded_epoch
        return "stopped_early", event.reported_epoch

    def _supersede(self, event: TuneEnded) -> list[Action]:
        """Close the trials that Tune had not saved when an earlier process was killed: it tried
        their configs again under other ids."""
        known = {*event.known, *self.started}
        if not known or self.ending:  # it has ended before Tune had taken up all of them
            return []
        message = "tried again: Tune had not saved it"
        return [
            self._close(trial_id, "superseded", epoch, message)
            for trial_id, epoch in event.recorded.items()
            if trial_id not in known
        ]

    def _interrupt(self, event: Closed) -> list[Action]:
        return [
            self._close(trial_id, "interrupted", epoch, self.ending)
            for trial_id, epoch in event.open.items()
        ]

    def _close(
        self, trial_id: str, status: RunStatus, epoch: int, message: str = ""
    ) -> CloseTrial:
        self.running.pop(trial_id, None)
        self.ended[trial_id], self.ended_epochs[trial_id] = status, epoch
        return CloseTrial(trial_id, status, epoch, message)
