"""Ends a command in order when it is asked to: by Ctrl-C, by the SIGTERM of a batch system or a
preempted node, or because its terminal was closed.

A command blocks these signals in every thread, and a thread of its own takes them with `sigwait`.
So no handler of a library runs, such as that of Ray's core worker, which aborts the process, and a
signal is noticed while the main thread computes. The first signal interrupts the main thread, or
asks Ray Tune to end if it runs; the second one ends the process at once.

Child processes inherit the blocked signals, those of a Ray instance too: a terminal and many batch
systems signal all processes of a command at once, and a search whose workers die beneath it cannot
end in order.

The functions of the public interface install nothing: a process belongs to its program.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WAKE = signal.SIGUSR1
"""Sent to the main thread. Ray Tune, while it runs, handles it: it ends the search in order."""

_log = logging.getLogger(__name__)


class Stopped(KeyboardInterrupt):
    """The command was asked to end."""


class _State:
    """The state of this process. The receiving thread writes `received`, the main thread
    `deferrals`."""

    blocked: frozenset[signal.Signals] = frozenset()
    """The signals that the receiving thread takes."""
    received: signal.Signals | None = None
    """The first signal that was received."""
    deferrals: int = 0
    """Blocks of `deferred` that are being executed."""


_state = _State()


@contextmanager
def handled_signals() -> Iterator[None]:
    """Take SIGINT, SIGTERM and SIGHUP for the block, in which `Stopped` is raised by the first
    one. Those that the process ignores, as under `nohup`, stay ignored.

    Only in the main thread, before other threads are started.
    """
    taken = frozenset(each for each in _SIGNALS if signal.getsignal(each) != signal.SIG_IGN)
    _state.blocked, _state.received = taken, None
    with ExitStack() as stack:
        stack.enter_context(handlers_restored(_WAKE))
        signal.signal(_WAKE, _interrupt)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, taken)
        stack.callback(signal.pthread_sigmask, signal.SIG_SETMASK, before)
        if taken:
            stack.enter_context(_receiver(taken))
        try:
            yield
        finally:
            _state.blocked = frozenset()


@contextmanager
def _receiver(taken: frozenset[signal.Signals]) -> Iterator[None]:
    """Receive signals in a thread, for the block."""
    over = threading.Event()
    thread = threading.Thread(target=_receive, args=(taken, over), name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        assert thread.ident
        signal.pthread_kill(thread.ident, min(taken))
        thread.join()


def _receive(taken: frozenset[signal.Signals], over: threading.Event) -> None:
    while True:
        number = signal.Signals(signal.sigwait(taken))
        if over.is_set():
            return
        if _state.received:
            os._exit(128 + number)
        _state.received = number
        _log.warning("%s: stopping in order; a second signal ends at once", number.name)
        main = threading.main_thread().ident
        assert main
        signal.pthread_kill(main, _WAKE)


def _interrupt(number: int, frame: object) -> None:
    if not _state.deferrals:
        raise Stopped


def release() -> None:
    """Unblock the signals, before this process becomes another program."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _state.blocked)


def received() -> signal.Signals | None:
    """Return the signal by which this command was asked to end, or None."""
    return _state.received


def exit_code() -> int:
    """Return the exit code of a command that was interrupted, as a shell has it: 128 + n for
    signal n."""
    return 128 + (_state.received or signal.SIGINT)


def check() -> None:
    """Raise `Stopped` if the command was asked to end: before work that would take long."""
    if _state.received:
        raise Stopped


@contextmanager
def deferred() -> Iterator[None]:
    """Finish the block, which must take seconds at most, before `Stopped` is raised."""
    before = _state.received
    _state.deferrals += 1
    try:
        yield
    finally:
        _state.deferrals -= 1
    if before is None:
        check()


@contextmanager
def handlers_restored(*numbers: signal.Signals) -> Iterator[None]:
    """Restore the handlers of these signals after the block: libraries install their own, and
    leave them behind. In another thread than the main one nobody can install any."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: it is not Python's
                signal.signal(number, handler)
