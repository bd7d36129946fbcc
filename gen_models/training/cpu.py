"""Settings of a thread that trains on a CPU.

Without them small models train a fifth slower, or far slower as training goes on:

- glibc returns every freed tensor of more than 128 KiB to the kernel, which clears its pages
  before it hands them out again: hundreds of page faults a step.
- Where a gradient is always 0, as at the border of MNIST's images, Adam's moments decay to
  denormal numbers, with which a CPU computes a hundred times as slowly.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # glibc refuses more
_DEFAULT_THRESHOLD = 128 * 2**10
_KEPT = 2**30


def prepare_thread() -> None:
    """Keep up to a gibibyte of freed memory for the next step, if the C library is glibc, and
    flush denormal numbers to 0, in this thread and in those that it starts.

    For processes of their own, such as workers: nothing is restored. In a user's process use
    `cpu_thread_settings`.
    """
    _set_malloc(_LARGEST_MMAP_THRESHOLD, _KEPT)
    torch.set_flush_denormal(True)


@contextmanager
def cpu_thread_settings() -> Iterator[None]:
    """Apply the settings of `prepare_thread` within the context and restore them afterwards.

    Memory's thresholds become glibc's defaults again, of which it no longer adapts the first.
    """
    flushed = _flushes_denormals()
    prepare_thread()
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed)
        _set_malloc(_DEFAULT_THRESHOLD, _DEFAULT_THRESHOLD)


def _set_malloc(mmap_threshold: int, trim_threshold: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_M_MMAP_THRESHOLD, mmap_threshold)
        mallopt(_M_TRIM_THRESHOLD, trim_threshold)


def _flushes_denormals() -> bool:
    """Whether this thread computes with denormal numbers as 0; torch has no function for it."""
    denormal = torch.full((), 1e-310, dtype=torch.float64)
    return not bool(denormal * 1.0)
