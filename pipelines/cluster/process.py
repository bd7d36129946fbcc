"""What libraries do to the process in which they run."""

from __future__ import annotations

import importlib
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


def import_compiler() -> None:
    """Import torch's compiler, in a thread beside which none unpickles anything.

    Torch imports it late, at the first optimizer or export. The import takes `_operator` out of
    `sys.modules` for a moment (`import_fresh_module` in torch._dynamo.polyfills), and any other
    thread that needs the module then, as Tune does to load a trainable, has an error.
    """
    importlib.import_module("torch._dynamo")
