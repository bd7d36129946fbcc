"""Progress of a search for people: a line that is kept current on a terminal, else a log line now
and then, and a log line for each trial that ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.status import Status

from pipelines.store.journal import RunStatus
from pipelines.tuning.recorder import SearchState

_EVERY_SECONDS = 10.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BudgetsLeft:
    """What is left of a search's budgets."""

    text: str = ""
    """For people; "" without a budget."""
    seconds: float | None = None
    """Until the first budget of time is used up; None without one."""


class SearchProgress:
    """Shows the state of a search. `console`: where the current line is kept; None for log lines
    alone. `budgets`: returns what is left of the search's budgets."""

    def __init__(
        self,
        state: SearchState,
        trials: int,
        console: Console | None = None,
        budgets: Callable[[], BudgetsLeft] | None = None,
    ) -> None:
        self._state, self._trials, self._budgets = state, trials, budgets
        self._start = time.monotonic()
        self._since: tuple[float, int] | None = None
        """When this process began to train, and the trials that had ended before."""
        self._shown = 0.0
        self._status: Status | None = None
        if console and console.is_terminal and _log.isEnabledFor(logging.INFO):
            self._status = console.status("starting Ray")
            self._status.start()

    def update(self) -> None:
        """Show the state; seldom where a line cannot be replaced."""
        now = time.monotonic()
        if self._since is None and self._state.running:
            self._since = now, self._state.num_ended
        if self._status:
            self._status.update(self._line(now))
        elif now - self._shown > _EVERY_SECONDS:
            self._shown = now
            _log.info(self._line(now))

    def _line(self, now: float) -> str:
        since, before = self._since or (now, self._state.num_ended)
        ended, seconds = self._state.num_ended - before, now - since
        rate = ended / seconds if ended and seconds else 0.0
        left = self._budgets() if self._budgets else BudgetsLeft()
        return progress_line(self._state, self._trials, now - self._start, rate, left)

    def trial_ended(
        self, trial_id: str, status: RunStatus, text: str, config: Mapping[str, object]
    ) -> None:
        """Log a trial that ended. `text`: its last epoch and its value."""
        settings = " ".join(f"{name}={_short(value)}" for name, value in config.items())
        _log.info("trial %s %s: %s  [%s]", trial_id, status.replace("_", " "), text, settings)
        self.update()

    def close(self) -> None:
        """Remove the current line."""
        if self._status:
            self._status.stop()


def progress_line(
    state: SearchState,
    trials: int,
    seconds: float,
    rate: float = 0.0,
    left: BudgetsLeft | None = None,
) -> str:
    """Return the state of a search in one line, after so many seconds. `rate`: trials that end in
    a second, since this process trains; 0 while that is not known. `left`: of its budgets."""
    left = left or BudgetsLeft()
    metric = state.objective.metric
    best = f"{metric} {state.best[1]:.5g} (trial {state.best[0]})" if state.best else "none"
    if not state.running and not state.num_ended:
        return f"{seconds:.0f} s  starting the first trials"
    ends = [left.seconds] if left.seconds is not None else []
    ends += [max(0, trials - state.num_ended) / rate] if rate else []
    parts = [
        f"{seconds:.0f} s",
        f"trials {state.num_ended}/{trials} ended, {state.count('stopped_early')} stopped early, "
        f"{len(state.running)} running",
        f"best: {best}",
    ]
    parts += [f"{60.0 * rate:.1f} trials/min"] if rate else []
    parts += [f"about {duration(min(ends))} left"] if ends else []
    return "  ".join(parts + ([left.text] if left.text else []))


def duration(seconds: float) -> str:
    """Return a time for people: `45 s`, `12 min`, `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
