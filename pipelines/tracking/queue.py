"""The queue between training and the tracking system, and the thread that empties it.

A caller puts a journal into the queue and goes on. The thread delivers it, again and again until
it succeeds, so that an outage of the tracking system neither stops nor slows training. What is
left at the end stays in the journals, from which the next command delivers it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

from gen_models.core.errors import DamagedError
from pipelines.cluster import signals
from pipelines.store.journal import EvaluationJournal, Journal
from pipelines.store.layout import Store
from pipelines.store.secrets import redact
from pipelines.tracking.base import Backend, RunWriter, find_backend, sync_command

AnyJournal = Journal | EvaluationJournal

_FIRST_WAIT, _LONGEST_WAIT, _HURRIED_WAIT = 0.5, 30.0, 1.0
"""Seconds between two attempts: after the first error, at most, and while somebody waits."""
_JOIN_SECONDS = 1.0
_FINISH_SECONDS = 60.0
_INTERRUPTED_SECONDS = 5.0
_log = logging.getLogger(__name__)


class DeliveryQueue:
    """A `Tracker` that delivers journals with a `RunWriter`, from a thread of its own.

    Nothing that the tracking system does or fails to do reaches the caller of `sync`. A context
    manager: the client's environment is set within the block, whose end waits for nothing: call
    `finish` or `drain` in it.
    """

    def __init__(self, backend: Backend, uri: str, store: Store) -> None:
        self._backend, self._uri, self._store = backend, uri, store
        self.warns_of_losses = False
        """Whether to look, at the start, if the tracking system has lost runs."""
        self._pending: dict[str, tuple[AnyJournal, int | None]] = {}
        self._changed = threading.Condition()
        self._busy = self._stopping = False
        self._waiters = self._errors_in_a_row = 0
        self._thread: threading.Thread | None = None
        self._writer: RunWriter | None = None
        self._scope = ExitStack()

    def __enter__(self) -> DeliveryQueue:
        self._scope.enter_context(self._backend.settings())
        with self._changed:
            self._start()  # importing the client takes seconds, in which the caller prepares
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind and issubclass(kind, KeyboardInterrupt):
            self.finish()
        self.close(0.0)  # who wants more delivered has waited
        self._scope.close()

    # -- for the caller -----------------------------------------------------------------------
    def sync(self, journal: AnyJournal, upto: int | None = None) -> None:
        """Deliver the journal up to the epoch `upto`, or all of it, soon. Returns at once."""
        with self._changed:
            if self._stopping:
                raise RuntimeError("the delivery queue is closed")
            self._add(journal, upto)
            self._start()
            self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        """Wait until everything is delivered; return whether it is, after `timeout` seconds."""
        return self._wait_for(self._is_done, timeout)

    def drain(self, patience: float) -> bool:
        """Wait until everything is delivered, as long as deliveries go on; return whether it is.

        Gives up when everything that is pending was refused twice in a row, or when nothing was
        delivered for `patience` seconds.
        """

        def is_refused() -> bool:
            return 0 < 2 * len(self._pending) <= self._errors_in_a_row

        with self._changed:
            self._errors_in_a_row = 0
        while True:
            before = self.num_pending
            if self._wait_for(lambda: self._is_done() or is_refused(), patience):
                return self.num_pending == 0
            if self.num_pending >= before:
                return False

    def _is_done(self) -> bool:
        return not self._pending and not self._busy

    def _wait_for(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait for a condition of the queue, and hurry it on; return whether it holds."""
        with self._changed:
            self._waiters += 1
            self._changed.notify_all()
            try:
                return self._changed.wait_for(condition, timeout)
            finally:
                self._waiters -= 1

    def finish(self) -> None:
        """Wait until everything is delivered, at most a minute, and log if it is not. A command
        that is interrupted waits for some seconds only."""
        interrupted = signals.received() is not None
        if not self.flush(_INTERRUPTED_SECONDS if interrupted else _FINISH_SECONDS):
            uri = self._backend.public_uri(self._uri)
            line = "%s at %s lacks some results; `genpipe runs` delivers them"
            _log.warning(line, self._backend.name, uri)

    def close(self, timeout: float) -> bool:
        """Flush, and end the thread; what is left stays in the journals."""
        done = self.flush(timeout)
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread and done:
            self._thread.join(_JOIN_SECONDS)
        return done

    @property
    def num_pending(self) -> int:
        """The number of journals that are not delivered whole."""
        with self._changed:
            return len(self._pending) + self._busy

    def run_id(self, journal: Journal) -> str | None:
        """Return the tracking system's id of the run; None before it was delivered."""
        delivered = journal.delivered(self._backend.public_uri(self._uri))
        return str(delivered["run_id"]) if delivered else None

    # -- the thread ---------------------------------------------------------------------------
    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        with suppress(Exception):  # the first delivery shows the error again, and logs it
            self._make_writer().prepare()
            if self.warns_of_losses:
                warn_of_losses(self._store, self._uri, self._backend)
        failing: set[Path] = set()
        wait, since = _FIRST_WAIT, 0.0
        while item := self._next():
            folder = item[0].run_folder
            try:
                self._deliver(*item)
            except DamagedError as error:  # another attempt would find the same
                _log.warning("%s is not delivered: %s", folder.name, error)
                self._done()
            except Exception as error:
                if not failing:
                    since = time.monotonic()
                    uri = self._backend.public_uri(self._uri)
                    _log.warning(_NOT_DELIVERED, self._backend.name, uri, reason(error))
                _log.debug("%s", folder, exc_info=True)
                failing.add(folder)
                if self._put_back(*item) <= self._errors_in_a_row:  # every pending one failed once
                    self._pause(wait)
                    wait = min(2 * wait, _LONGEST_WAIT)
            else:
                if failing == {folder}:
                    seconds = time.monotonic() - since
                    _log.warning(_DELIVERED_AGAIN, self._backend.name, seconds)
                failing.discard(folder)
                wait = _FIRST_WAIT
                self._done()

    def _make_writer(self) -> RunWriter:
        if self._writer is None:
            self._writer = self._backend.writer(self._uri, self._store)
        return self._writer

    def _deliver(self, journal: AnyJournal, upto: int | None) -> None:
        writer = self._make_writer()
        if isinstance(journal, EvaluationJournal):
            writer.deliver_evaluation(journal)
        else:
            writer.deliver(journal, upto)

    def _next(self) -> tuple[AnyJournal, int | None] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._stopping)
            if self._stopping:
                return None
            self._busy = True
            return self._pending.pop(next(iter(self._pending)))

    def _put_back(self, journal: AnyJournal, upto: int | None) -> int:
        """Put a journal at the end of the queue, so that one that always fails holds up no other;
        return the queue's length."""
        with self._changed:
            self._busy = False
            self._errors_in_a_row += 1
            self._add(journal, upto)
            self._changed.notify_all()
            return len(self._pending)

    def _done(self) -> None:
        with self._changed:
            self._busy = False
            self._errors_in_a_row = 0
            self._changed.notify_all()

    def _pause(self, seconds: float) -> None:
        """Wait before the next attempt; less long while somebody waits for the end."""
        start = time.monotonic()

        def over() -> bool:
            longest = _HURRIED_WAIT if self._waiters else seconds
            return self._stopping or time.monotonic() - start >= longest

        with self._changed:
            while not over():
                self._changed.wait(_FIRST_WAIT)

    def _add(self, journal: AnyJournal, upto: int | None) -> None:
        folder = os.path.abspath(journal.run_folder)
        _, known = self._pending.get(folder, (journal, upto))
        later = None if upto is None or known is None else max(upto, known)
        self._pending[folder] = (journal, later)


def open_tracker(
    uri: str, store: Store, find: Callable[[str], Backend] = find_backend
) -> DeliveryQueue:
    """Return the queue that delivers to the tracking system at `uri`."""
    tracker = DeliveryQueue(find(uri), uri, store)
    tracker.warns_of_losses = True
    return tracker


def is_pending(journal: AnyJournal, uri: str) -> bool:
    """Return whether the tracking system at `uri`, as `Backend.public_uri` has it, lacks the end
    or the labels of a run that has ended, or an evaluation."""
    if isinstance(journal, EvaluationJournal):
        return not journal.is_delivered(uri)
    outcome, delivered = journal.outcome(), journal.delivered(uri)
    if outcome is None:
        return False
    is_labelled = delivered.get("labels", {}) == journal.labels().as_content()
    return not is_labelled or delivered.get("outcome") != vars(outcome)  # as it is in JSON


def pending_journals(store: Store, uri: str, backend: Backend) -> Iterator[AnyJournal]:
    """Iterate over the ended runs and the evaluations of a store that the tracking system at `uri`
    lacks, as after an outage that outlived the command.

    Asks nobody: what was delivered is recorded beside each journal.
    """
    here = backend.public_uri(uri)
    journals: list[AnyJournal] = [*store.ended_journals(), *store.evaluations()]
    for journal in journals:
        try:
            if is_pending(journal, here):
                yield journal
        except DamagedError as error:
            _log.warning("%s is set aside: %s", journal.run_folder.name, error)


def warn_of_losses(store: Store, uri: str, backend: Backend) -> None:
    """Log a warning if the tracking system at `uri` lacks runs that were delivered to it, as after
    its database was deleted, or replaced by an older copy.

    Asks for a few runs only, those that were delivered first and last.
    """
    here = backend.public_uri(uri)
    journals = sorted(store.delivered_journals(), key=lambda journal: journal.delivered_ms())
    asked = journals[:_ASKED] + journals[_ASKED:][-_ASKED:]
    run_ids = [known["run_id"] for journal in asked if (known := journal.delivered(here))]
    if not run_ids:
        return
    reader = backend.reader(uri, store)
    if not all(map(reader.holds, run_ids)):
        _log.warning(_LOST, backend.name, here, sync_command(store, here))


def reason(error: BaseException) -> str:
    """Return what went wrong at the bottom of a chain of exceptions, in one line without
    secrets."""
    while inner := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = inner
    text = redact(" ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:199]}…"


_NOT_DELIVERED = (
    "%s at %s does not take what is recorded (%s): training goes on, and the rest is "
    "delivered later"
)
_ASKED = 3
_LOST = (
    "%s at %s lacks runs that were delivered to it, as after its database was deleted or "
    "replaced: `%s` records them anew from their journals"
)
_DELIVERED_AGAIN = "%s takes what is recorded again, after %.0f s"
