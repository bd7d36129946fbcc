"""Reads files that may be hostile in processes of their own, with a limit of memory and time."""

from __future__ import annotations

import multiprocessing
import os
import re
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from gen_models.core.errors import InputError

MEBIBYTE = 1 << 20
_PRELOADED = ("support.loaders", "torchvision.datasets.folder", "torchvision.transforms")
"""Modules that are imported once: each file is read in a fork of a process that has them."""
_ADDRESSES = 2048 * MEBIBYTE
"""That a reader may map beyond what it begins with: threads' stacks, and what it needs."""


@dataclass(frozen=True)
class Reading:
    """What became of a file."""

    how: str
    """`read`, `refused` (an `InputError`), `raised` (anything else), `died` or `hung`."""
    message: str
    peak: float
    """MiB of memory that reading took at its peak."""


Task = tuple[Callable[..., object], tuple[Any, ...]]
"""A function of a module, and its arguments."""


def read_contained(tasks: Sequence[Task], seconds: float = 60.0) -> list[Reading]:
    """Call each function with its arguments, in a process of their own.

    Its address space is limited, so that memory which a file declares cannot be had even where the
    machine would give it. If the process dies, or does not answer for `seconds`, the next task
    begins in another.
    """
    readings: list[Reading] = []
    while len(readings) < len(tasks):
        readings += _read_some(tasks[len(readings) :], seconds)
    return readings


def _read_some(tasks: Sequence[Task], seconds: float) -> list[Reading]:
    """Return what became of the tasks, up to one of which the process dies or hangs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_read, args=(theirs, tasks))
    process.start()
    theirs.close()
    readings: list[Reading] = []
    try:
        while len(readings) < len(tasks):
            if not ours.poll(seconds):
                return [*readings, Reading("hung", f"no answer within {seconds:.0f} s", 0.0)]
            readings.append(Reading(*ours.recv()))
    except EOFError:
        process.join()
        readings.append(Reading("died", f"exit code {process.exitcode}", 0.0))
    finally:
        process.kill()
        process.join()
        ours.close()
    return readings


def _read(answer: Connection, tasks: Sequence[Task]) -> None:
    limit = int(_status("VmSize") * MEBIBYTE) + _ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for load, args in tasks:
        before = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        try:
            load(*args)
            how, message = "read", ""
        except InputError as error:
            how, message = "refused", str(error)
        except BaseException as error:
            how, message = "raised", f"{type(error).__name__}: {error}"
        answer.send((how, message, _status("VmHWM") - before))
    answer.close()
    os._exit(0)


def _status(name: str) -> float:
    """Return a line of this process's status in MiB."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    assert found
    return int(found[1]) / 1024
