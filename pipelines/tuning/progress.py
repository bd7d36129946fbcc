"""What a person sees while a command works. All of it on stderr: stdout is for results."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console

from pipelines.store.journal import Report

console = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """One line for the user."""
    console.print(text, markup=False, soft_wrap=True)


def show_epoch(report: Report, epochs: int) -> None:
    """One line for an epoch of a lone run."""
    shown = {k: v for k, v in report.metrics.items() if k.startswith(("train/", "val/"))}
    speed = report.metrics.get("images_per_second", 0.0)
    parts = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
    say(f"epoch {report.epoch}/{epochs}  {parts}  {speed:,.0f} images/s")


class SearchProgress:
    """Trials as they go: a line that is kept current on a terminal, else a line now and then."""

    EVERY_SECONDS = 10.0

    def __init__(self, trials: int, epochs: int, metric: str) -> None:
        self.trials, self.epochs, self.metric = trials, epochs, metric
        self.running: dict[str, int] = {}
        self.ended = self.stopped_early = 0
        self.best: tuple[str, float] | None = None
        self._start = time.monotonic()
        self._shown = 0.0
        self._status = console.status("starting Ray") if console.is_terminal else None
        if self._status:
            self._status.start()

    def update(self) -> None:
        """Show where the search is; seldom, where the line cannot be replaced."""
        if self._status:
            self._status.update(self._line())
        elif time.monotonic() - self._shown > self.EVERY_SECONDS:
            self._shown = time.monotonic()
            say(self._line())

    def trial_ended(
        self, trial: str, ending: str, config: Mapping[str, object], text: str
    ) -> None:
        """A line for a trial that ended."""
        settings = " ".join(f"{k}={_short(v)}" for k, v in config.items())
        say(f"trial {trial} {ending.replace('_', ' ')}: {text}  [{settings}]")
        self.update()

    def close(self) -> None:
        if self._status:
            self._status.stop()

    def _line(self) -> str:
        seconds = time.monotonic() - self._start
        best = f"{self.metric} {self.best[1]:.5g} (trial {self.best[0]})" if self.best else "none"
        rate = 60.0 * self.ended / seconds if seconds > 0 else 0.0
        return (
            f"{seconds:.0f} s  trials {self.ended}/{self.trials} ended, "
            f"{self.stopped_early} stopped early, {len(self.running)} running  "
            f"best: {best}  {rate:.1f} trials/min"
        )


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
