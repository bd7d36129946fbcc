"""How a checkpoint is known in MLflow: by the names and contents of its files."""

from __future__ import annotations

import hashlib
from pathlib import Path

CHECKPOINT = "checkpoint"
"""Tag with the checkpoint folder's name in the run's folder, and name of the artifact folder that
is a copy of it."""
DIGEST = "checkpoint_digest"
"""Tag, of a run and of a registered version, that identifies a checkpoint."""


def folder_digest(folder: Path) -> str:
    """Return a digest of the names and contents of a folder's files."""
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        whole.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return whole.hexdigest()[:16]
