"""Progress of a search for people: a line that is kept current on a terminal, else a log line now
and then, and a log line for each trial that ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from rich.console import Console
from rich.status import Status

from pipelines.store.journal import RunStatus
from pipelines.tuning.recorder import SearchState

_EVERY_SECONDS = 10.0
_log = logging.getLogger(__name__)


class SearchProgress:
    """Shows the state of a search. `console`: where the current line is kept; None for log lines
    alone."""

    def __init__(self, state: SearchState, trials: int, console: Console | None = None) -> None:
        self._state, self._trials = state, trials
        self._start = time.monotonic()
        self._shown = 0.0
        self._status: Status | None = None
        if console and console.is_terminal and _log.isEnabledFor(logging.INFO):
            self._status = console.status("starting Ray")
            self._status.start()

    def update(self) -> None:
        """Show the state; seldom where a line cannot be replaced."""
        now = time.monotonic()
        if self._status:
            self._status.update(progress_line(self._state, self._trials, now - self._start))
        elif now - self._shown > _EVERY_SECONDS:
            self._shown = now
            _log.info(progress_line(self._state, self._trials, now - self._start))

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


def progress_line(state: SearchState, trials: int, seconds: float) -> str:
    """Return the state of a search in one line, after so many seconds."""
    metric = state.objective.metric
    best = f"{metric} {state.best[1]:.5g} (trial {state.best[0]})" if state.best else "none"
    if not state.running and not state.num_ended:
        return f"{seconds:.0f} s  starting the first trials"
    rate = f"  {60.0 * state.num_ended / seconds:.1f} trials/min" if state.num_ended else ""
    return (
        f"{seconds:.0f} s  trials {state.num_ended}/{trials} ended, "
        f"{state.count('stopped_early')} stopped early, {len(state.running)} running  "
        f"best: {best}{rate}"
    )


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
