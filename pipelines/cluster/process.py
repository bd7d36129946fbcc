"""Keeps the process of a caller as it was: what libraries change in it is put back."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def restored_process() -> Iterator[None]:
    """Restore torch's random state on the CPU, and the root logger, after the block.

    Libraries draw random numbers when they export a model, and configure logging when they create
    a database. A decorator too: `@restored_process()`.
    """
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
