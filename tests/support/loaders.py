"""What reads the files that may be hostile: functions of a path, for `support.containment`."""

from __future__ import annotations

from pathlib import Path

from support.models import make_learner

from gen_models.core.checkpoint import load_checkpoint, restore_learner

try:
    from pipelines.cli.jobs.definition import read_job
    from pipelines.config.serialization import load_config
    from pipelines.data import load
    from pipelines.store.layout import RunFolder
    from pipelines.store.scan import JournalCache
except ImportError:  # gen_models is tested where Ray and MLflow are missing
    pass

VARIANT = "gan-mlp"
"""Of the checkpoints that are tampered with: two objectives, and averages of one network."""


def restore(folder: Path) -> None:
    """Restore a learner of `VARIANT`."""
    restore_learner(folder, make_learner(VARIANT))


def model(folder: Path) -> None:
    """Load the model of a checkpoint."""
    load_checkpoint(folder)


def data(name: str, root: Path = Path("nowhere")) -> None:
    """Load a data set."""
    load(name, root)


def config(path: Path) -> None:
    """Load a `config.json`."""
    load_config(path.read_bytes(), str(path))


def job(path: Path) -> None:
    """Read a job file."""
    read_job(path)


def journal(folder: Path) -> None:
    """Read the journal of a run folder; a damaged one is set aside first, and named."""
    assert JournalCache().read(RunFolder(folder)).damage
    journal = RunFolder(folder).journal
    journal.info(), journal.outcome(), list(journal.records())
