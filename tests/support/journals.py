"""Journals of runs, trials and searches that nothing was trained for."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from pipelines.config.objectives import Objective
from pipelines.store.checkpoints import MODEL_FILE, checkpoint_folder
from pipelines.store.files import LOCAL, Files
from pipelines.store.journal import Journal, Outcome, RunInfo, RunStatus
from pipelines.store.layout import RunFolder, SearchFolder
from pipelines.store.scan import JournalCache, RunRecord

METRIC = "val/elbo"
FD = "val/fd/lenet-digits/2k"
ELBO_MAX = Objective(METRIC, "max")
FD_MIN = Objective(FD, "min")
DIGEST = "0123456789abcdef"


def _png() -> bytes:
    out = io.BytesIO()
    Image.new("L", (8, 8), 128).save(out, "PNG")
    return out.getvalue()


PNG = _png()


def run_info(name: str, **changes: Any) -> RunInfo:
    """Return the info of a run of a VAE on the digits; `changes` are fields of `RunInfo`."""
    known: dict[str, Any] = {
        "name": name,
        "experiment": "vae-digits",
        "kind": "run",
        "params": {"model.latent_dim": 16},
        "tags": {"seed": "0", "family": "vae"},
        "dataset": {"name": "digits", "digest": DIGEST, "shape": [1, 8, 8], "num_train": 9},
    }
    return RunInfo(**{**known, **changes})


def open_journal(folder: Path, files: Files = LOCAL, **changes: Any) -> Journal:
    """Open the journal of a run folder, whose name the run has. `changes`: fields of its info."""
    journal = Journal(folder, files)
    journal.open(run_info(changes.pop("name", folder.name), **changes))
    return journal


def write_epochs(journal: Journal, *epochs: int, pictures: bool = False, **metrics: float) -> None:
    """Record epochs, whose `val/elbo` is the epoch's number with a minus sign."""
    for epoch in epochs:
        values = {"train/loss": 1 / epoch, METRIC: -float(epoch), **metrics}
        journal.write_epoch(epoch, values, {"samples": PNG} if pictures else {})


def write_checkpoint(run_folder: Path, epoch: int, files: Files = LOCAL) -> Path:
    """Write a checkpoint folder that holds no networks."""
    folder = checkpoint_folder(run_folder, epoch)
    files.write(folder / MODEL_FILE, "{}")
    return folder


def write_run(
    folder: Path,
    epochs: Sequence[Mapping[str, float] | float],
    saved: Sequence[int] | None = None,
    status: RunStatus | None = "completed",
    last_epoch: int | None = None,
    files: Files = LOCAL,
    **changes: Any,
) -> RunFolder:
    """Write the folder of a trial.

    `epochs`: the metrics of each, or its `val/elbo`. `saved`: epochs with a checkpoint, by default
    all. `status`: None leaves the run going on. `changes`: of its info.
    """
    journal = open_journal(
        folder, files, **{"kind": "trial", "trial_id": folder.name, "params": {}, **changes}
    )
    for epoch, metrics in enumerate(epochs, 1):
        values = metrics if isinstance(metrics, Mapping) else {METRIC: metrics}
        journal.write_epoch(epoch, values, {})
    for epoch in range(1, len(epochs) + 1) if saved is None else saved:
        write_checkpoint(folder, epoch, files)
    if status:
        journal.close(Outcome(status, len(epochs) if last_epoch is None else last_epoch))
    return RunFolder(folder, files)


def read_run(folder: RunFolder | Path) -> RunRecord:
    """Return all that a run folder holds."""
    return JournalCache().read(RunFolder(folder) if isinstance(folder, Path) else folder)


def read_trials(folder: Path) -> list[RunRecord]:
    """Return the records of a search's trials."""
    return JournalCache().read_trials(SearchFolder.at(folder))
