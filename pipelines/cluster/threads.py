"""Runs work in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def run_in_thread(work: Callable[[], T]) -> Future[T]:
    """Run `work` in a daemon thread and return its result, or the error it raises, as a future.

    In the main thread `TorchTrainer.fit` would install a handler of SIGINT, and Ctrl-C would not
    raise `KeyboardInterrupt` in the command that waits. A daemon thread does not keep the process
    alive when that command ends.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
