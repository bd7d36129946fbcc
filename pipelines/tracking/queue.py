"""The queue between training and MLflow: a caller says what is new and goes on."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from pipelines.store.journal import Journal
from pipelines.tracking.mlflow.connection import make_tables, reason, without_password

if TYPE_CHECKING:
    from torch import nn

    from pipelines.tracking.mlflow.writer import Delivery

LoadSampler = Callable[[Path], "tuple[nn.Module, int]"]
"""A checkpoint folder -> a module of noise (N, F) to images, and F."""

_FIRST_WAIT, _LONGEST_WAIT, _HURRIED_WAIT = 0.5, 30.0, 1.0
_log = logging.getLogger(__name__)


class Tracker:
    """Delivers journals to MLflow, from a thread of its own, until it succeeds.

    Nothing that MLflow does or fails to do reaches the caller of `sync`. `store` holds the
    artifacts where MLflow is a database; a server keeps them itself.
    """

    def __init__(
        self, uri: str, store: Path | None = None, load_sampler: LoadSampler | None = None
    ) -> None:
        self._uri, self._store, self._load_sampler = uri, store, load_sampler
        self._due: dict[str, tuple[Journal, int | None]] = {}
        self._changed = threading.Condition()
        self._busy = self._stopping = False
        self._waiters = 0
        self._thread: threading.Thread | None = None
        self._delivery: Delivery | None = None

    def __enter__(self) -> Tracker:
        with self._changed:
            self._start()  # importing mlflow takes seconds, in which others are at work
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(0.0 if kind else 10.0)

    # -- for the caller -----------------------------------------------------------------------
    def sync(self, journal: Journal, upto: int | None = None) -> None:
        """Deliver the journal up to the epoch `upto`, or all of it, soon. Returns at once."""
        with self._changed:
            if self._stopping:
                raise RuntimeError("the tracker is closed")
            self._add(journal, upto)
            self._start()
            self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        """Wait until MLflow has everything; whether it has, after at most `timeout` seconds."""
        with self._changed:
            self._waiters += 1
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: not self._due and not self._busy, timeout)
            finally:
                self._waiters -= 1

    def close(self, timeout: float) -> bool:
        """`flush`, and end the thread; what is left stays in the journals."""
        done = self.flush(timeout)
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        return done

    @property
    def pending(self) -> int:
        """The number of journals of which MLflow lacks something."""
        with self._changed:
            return len(self._due) + self._busy

    def run_id(self, journal: Journal) -> str | None:
        """MLflow's id of the run, or None while MLflow has not heard of it."""
        delivered = journal.delivered()
        known: bool = delivered.get("uri") == without_password(self._uri)
        return delivered["run_id"] if known else None

    def deliver(self, journal: Journal, upto: int | None = None) -> None:
        """Deliver a journal now, in this thread; may be repeated. Raises what MLflow raises."""
        if self._delivery is None:
            from pipelines.tracking.mlflow.writer import Delivery

            self._delivery = Delivery(self._uri, self._store, self._load_sampler)
        self._delivery.deliver(journal, upto)

    # -- the thread ---------------------------------------------------------------------------
    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        with suppress(Exception):  # what is wrong shows again at the first delivery
            make_tables(self._uri)
        failing: set[Path] = set()
        in_a_row, wait, since = 0, _FIRST_WAIT, 0.0
        while due := self._next():
            folder = due[0].run_folder
            try:
                self.deliver(*due)
            except Exception as error:
                if not failing:
                    since = time.monotonic()
                    _log.warning(_NOT_DELIVERED, without_password(self._uri), reason(error))
                _log.debug("%s", folder, exc_info=True)
                failing.add(folder)
                in_a_row += 1
                if self._again(*due) <= in_a_row:  # all have been tried since the last success
                    self._pause(wait)
                    wait = min(2 * wait, _LONGEST_WAIT)
            else:
                if failing == {folder}:
                    _log.warning(_BACK, time.monotonic() - since)
                failing.discard(folder)
                in_a_row, wait = 0, _FIRST_WAIT
                self._done()

    def _next(self) -> tuple[Journal, int | None] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._due or self._stopping)
            if self._stopping:
                return None
            self._busy = True
            return self._due.pop(next(iter(self._due)))

    def _again(self, journal: Journal, upto: int | None) -> int:
        """Put a journal at the end of the queue: one that always fails holds up no other."""
        with self._changed:
            self._busy = False
            self._add(journal, upto)
            return len(self._due)

    def _done(self) -> None:
        with self._changed:
            self._busy = False
            self._changed.notify_all()

    def _pause(self, seconds: float) -> None:
        """Wait out an error; less long while somebody waits for the end."""
        start = time.monotonic()

        def over() -> bool:
            longest = _HURRIED_WAIT if self._waiters else seconds
            return self._stopping or time.monotonic() - start >= longest

        with self._changed:
            while not over():
                self._changed.wait(_FIRST_WAIT)

    def _add(self, journal: Journal, upto: int | None) -> None:
        folder = os.path.abspath(journal.run_folder)
        _, known = self._due.get(folder, (journal, upto))
        later = None if upto is None or known is None else max(upto, known)
        self._due[folder] = (journal, later)


def undelivered(store: Path, uri: str) -> Iterator[Journal]:
    """The runs in a store that have ended and of which MLflow lacks something, as after an
    outage that outlived the command. Asks nobody: what was delivered is written beside them."""
    for path in sorted(store.glob("**/journal/outcome.json")):
        journal = Journal(path.parent.parent)
        outcome, delivered = journal.outcome(), journal.delivered()
        known = delivered.get("uri") == without_password(uri)
        if outcome and not (known and delivered.get("outcome") == asdict(outcome)):
            yield journal


_NOT_DELIVERED = (
    "MLflow at %s does not take what is recorded (%s): training goes on; what is not delivered "
    "is delivered later"
)
_BACK = "MLflow takes what is recorded again, after %.0f s"
