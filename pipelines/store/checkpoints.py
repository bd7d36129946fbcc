"""Checkpoints of a run: their folders, and THE rule that says which of them are kept.

A run keeps the checkpoints of its N best epochs (`--keep-checkpoints N`) and of its newest one,
while it is going on and after it has ended, whoever trained it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from pipelines.store.files import LOCAL, Files

_PREFIX = "checkpoint_"

MODEL_FILE = "model.json"
"""A checkpoint folder holds a file of this name (`gen_models.core.checkpoint`)."""


def checkpoint_name(epoch: int) -> str:
    """Return the name of an epoch's checkpoint folder."""
    return f"{_PREFIX}{epoch:06d}"


def checkpoint_folder(run_folder: Path, epoch: int) -> Path:
    """Return the checkpoint folder of an epoch of a run."""
    return run_folder / checkpoint_name(epoch)


def saved_epochs(run_folder: Path, files: Files = LOCAL) -> list[int]:
    """Return the epochs whose checkpoint a run has, ascending."""
    paths = files.list(run_folder, f"{_PREFIX}[0-9]*/{MODEL_FILE}")
    return sorted(int(path.parent.name[len(_PREFIX) :]) for path in paths)


def epochs_to_keep(saved: Collection[int], costs: Mapping[int, float], num: int) -> set[int]:
    """Return the epochs whose checkpoints are kept: the `num` best, and the newest.

    `saved`: epochs that have a checkpoint. `costs`: by epoch, the metric that ranks as a number
    that is small where the metric is good; an epoch without a cost is kept only as the newest.
    Of equal costs the earlier epoch is the better.
    """
    ranked = sorted((epoch for epoch in saved if epoch in costs), key=lambda e: (costs[e], e))
    newest = [max(saved)] if saved else []
    return {*ranked[:num], *newest}


def prune_checkpoints(
    run_folder: Path,
    costs: Mapping[int, float],
    num: int,
    *,
    last_epoch: int | None = None,
    files: Files = LOCAL,
) -> None:
    """Remove the checkpoints that `epochs_to_keep` does not keep.

    `last_epoch`: the last epoch that counts; later checkpoints, which a worker may have written
    before it learned that its trial was stopped, are removed.
    """
    saved = saved_epochs(run_folder, files)
    counted = [epoch for epoch in saved if last_epoch is None or epoch <= last_epoch]
    keep = epochs_to_keep(counted, costs, num)
    for epoch in saved:
        if epoch not in keep:
            files.remove(checkpoint_folder(run_folder, epoch))
