"""Control of a search while it runs: meters the time that it uses, and decides when it ends before
all its trials have, by a budget or because `genpipe stop` asks for it."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from pipelines.analysis.budgets import Plateau, budget_left, exhausted, recorded_plateau
from pipelines.config.search import Search
from pipelines.store.layout import RunFolder, SearchFolder
from pipelines.store.scan import RunRecord
from pipelines.store.stop_request import find_request
from pipelines.store.usage import Usage, read_usage, write_usage

POLL_SECONDS = 1.0
"""Between two looks for a request: a store may be far away."""
_WRITE_SECONDS = 10.0
"""How much of the time used may be forgotten if the process is killed."""


class StopPoll:
    """Looks for a request to end in some folders, now and then."""

    def __init__(self, folders: Collection[RunFolder]) -> None:
        self._folders = folders
        self._looked = float("-inf")

    def look(self, now: float) -> str:
        """Return the reason if somebody has asked to end; "" if not, or if the last look was a
        moment ago. `now`: seconds of a monotonic clock."""
        if now - self._looked < POLL_SECONDS:
            return ""
        self._looked = now
        requests = map(find_request, self._folders)
        return next((each.describe() for each in requests if each), "")


class SearchControl:
    """The time that a search uses, and the reasons for which it ends.

    `folders`: where a request to end the search may lie. Not thread-safe.
    """

    def __init__(
        self,
        run: Search,
        folder: SearchFolder,
        folders: Sequence[RunFolder],
        records: Iterable[RunRecord],
    ) -> None:
        """`records`: the journals of the search's trials."""
        self._run, self._folder = run, folder
        self._poll = StopPoll(folders)
        self.usage: Usage = read_usage(folder)
        self.plateau: Plateau = recorded_plateau(records, run.objective)
        self._metered: float | None = None
        self._written = float("-inf")

    def exhausted(self, best: float | None = None) -> str:
        """Return which budget is used up; "" if none is. `best`: the best value so far."""
        return exhausted(self._run, self.usage, self.plateau, best)

    def budget_left(self) -> dict[str, float]:
        """Return what is left of each budget (`pipelines.analysis.budgets`)."""
        used = replace(self.usage, flat_trials=self.plateau.trials)
        return budget_left(vars(self._run), used)

    def due(self, now: float, best: float | None) -> str:
        """Return why the search is to end; "" if it is not."""
        return self._poll.look(now) or self.exhausted(best)

    def trial_ended(self, values: Sequence[float]) -> None:
        """Take account of a trial that has ended for good. `values`: its metric by epoch."""
        self.plateau.add(values)

    def meter(self, now: float, devices: int) -> None:
        """Add the time since the last call, if trials held devices then. `devices`: those that
        they hold from now on; 0 while none runs. What has ended the search before no longer
        counts."""
        if self._metered is not None and self.usage.devices:
            seconds, held = now - self._metered, self.usage.devices
            self.usage = replace(
                self.usage,
                seconds=self.usage.seconds + seconds,
                device_seconds=self.usage.device_seconds + held * seconds,
            )
        self._metered = now
        was_ended = bool(self.usage.ended_by)
        self.usage = replace(self.usage, devices=devices, ended_by="")
        if was_ended or now - self._written >= _WRITE_SECONDS:
            self._write(now)

    def end(self, reason: str = "") -> None:
        """Record the time that was used. `reason`: what ends the search before all its trials
        have ended."""
        now = time.monotonic()
        if self._metered is not None:
            self.meter(now, self.usage.devices)
        self.usage = replace(self.usage, devices=0, ended_by=reason or self.usage.ended_by)
        self._metered = None
        self._write(now)

    def _write(self, now: float) -> None:
        self._written = now
        self.usage = replace(self.usage, flat_trials=self.plateau.trials)
        write_usage(self._folder, self.usage)
