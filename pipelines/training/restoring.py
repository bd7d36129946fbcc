"""Finding checkpoints that are whole: the newest, from which training goes on, and the best."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gen_models.core.checkpoint import load_checkpoint
from gen_models.core.errors import DamagedError
from pipelines.store.checkpoints import checkpoint_folder, saved_epochs, set_aside_damaged
from pipelines.store.files import LOCAL, Files
from pipelines.store.journal import Journal

T = TypeVar("T")
_log = logging.getLogger(__name__)


def newest_whole(
    run_folder: Path, restore: Callable[[int, Path], T], files: Files = LOCAL
) -> T | None:
    """Return `restore(epoch, folder)` of the run's newest checkpoint from which it does not raise
    `DamagedError`; None if there is none, so that training begins anew.

    Damaged checkpoints are set aside, and the epochs after an older one are trained again: they
    come out as they were. So are those of which the journal lacks a record: a checkpoint counts if
    the journal is whole up to its epoch.
    """
    recorded = Journal(run_folder, files).whole_until()
    for epoch in reversed(saved_epochs(run_folder, files)):
        if epoch > recorded:
            continue
        try:
            return restore(epoch, checkpoint_folder(run_folder, epoch))
        except DamagedError as error:
            _log.warning("%s: going on from the checkpoint before it", error)
            set_aside_damaged(run_folder, epoch, files)
    return None


def is_whole(run_folder: Path, epoch: int, files: Files = LOCAL) -> bool:
    """Return whether a checkpoint is what was written; set it aside if it is not."""
    try:
        load_checkpoint(checkpoint_folder(run_folder, epoch))
    except DamagedError as error:
        _log.warning("%s: set aside", error)
        set_aside_damaged(run_folder, epoch, files)
        return False
    return True
