"""Checkpoints of a run: their folders, and THE rule that says which of them are kept.

A run keeps the checkpoints of its N best epochs (`--keep-checkpoints N`) and of its newest one,
whoever trained it. While it is going on it also keeps the newest but one, from which training goes
on if the newest is damaged.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from pipelines.store.files import LOCAL, Files

_PREFIX = "checkpoint_"
_DAMAGED = "damaged_"

MODEL_FILE = "model.json"
"""A checkpoint folder holds a file of this name (`gen_models.core.checkpoint`)."""


def is_checkpoint(name: str | Path) -> bool:
    """Return whether this is the path of a checkpoint folder. Any text may be asked for: the name
    of a run is none, and may be longer than a path can be."""
    try:
        return (Path(name) / MODEL_FILE).is_file()
    except (OSError, ValueError):
        return False


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


def epochs_to_keep(
    saved: Collection[int], costs: Mapping[int, float], num: int, newest: int = 1
) -> set[int]:
    """Return the epochs whose checkpoints are kept: the `num` best, and the `newest` newest.

    `saved`: epochs that have a checkpoint. `costs`: by epoch, the metric that ranks as a number
    that is small where the metric is good; an epoch without a cost is kept only if it is new. Of
    equal costs the earlier epoch is the better.
    """
    ranked = sorted((epoch for epoch in saved if epoch in costs), key=lambda e: (costs[e], e))
    return {*ranked[:num], *sorted(saved)[-newest:]}


def prune_checkpoints(
    run_folder: Path,
    costs: Mapping[int, float],
    num: int,
    *,
    last_epoch: int | None = None,
    going_on: bool = False,
    files: Files = LOCAL,
) -> None:
    """Remove the checkpoints that `epochs_to_keep` does not keep. Those that it keeps must be
    durable by now.

    `going_on`: whether the run is trained further. `last_epoch`: the last epoch that counts; later
    checkpoints, which a worker may have written before it learned that its trial was stopped, are
    removed.
    """
    saved = saved_epochs(run_folder, files)
    counted = [epoch for epoch in saved if last_epoch is None or epoch <= last_epoch]
    keep = epochs_to_keep(counted, costs, num, newest=2 if going_on else 1)
    for epoch in saved:
        if epoch not in keep:
            files.remove(checkpoint_folder(run_folder, epoch))


def set_aside_damaged(run_folder: Path, epoch: int, files: Files = LOCAL) -> None:
    """Give a damaged checkpoint another name, `damaged_checkpoint_000012`, so that it is no longer
    one of the run's. It is not removed: it may be all that is left of the epoch."""
    folder = checkpoint_folder(run_folder, epoch)
    files.move(folder, folder.with_name(f"{_DAMAGED}{folder.name}"))


def damaged_epochs(run_folder: Path, files: Files = LOCAL) -> list[int]:
    """Return the epochs whose checkpoints were damaged and set aside, ascending."""
    paths = files.list(run_folder, f"{_DAMAGED}{_PREFIX}[0-9]*")
    return sorted(int(path.name.removeprefix(_DAMAGED)[len(_PREFIX) :]) for path in paths)
