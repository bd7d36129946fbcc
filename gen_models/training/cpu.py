"""What a thread that trains on a CPU should set before it begins.

Two things that slow small models down by a fifth each, or far more as training goes on:

- glibc gives every freed tensor of more than 128 KiB back to the kernel, which clears its pages
  before it hands them out again: hundreds of page faults a step.
- Where a gradient is 0 for good, as at the border of MNIST's images, Adam's moments decay until
  they are denormal numbers, with which a CPU computes a hundred times as slowly.
"""

from __future__ import annotations

import ctypes

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # glibc refuses more
_KEPT = 2**30


def prepare_thread() -> None:
    """Keep up to a gibibyte of freed memory for the next step, where the C library is glibc, and
    take denormal numbers for 0, in this thread and in those that it starts."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
    torch.set_flush_denormal(True)
