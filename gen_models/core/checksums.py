"""The checksums of a folder's files, by which damage is noticed before anything is read from them.

`SHA256SUMS` has a line for each file, as `sha256sum --check` takes it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from gen_models.core.errors import DamagedError

SUMS_FILE = "SHA256SUMS"
_MAX_BYTES = 1 << 14
"""Of the file of checksums; a line has some 85."""


def write_checksums(folder: Path) -> None:
    """Write the checksums of the files in `folder`, which has no folders."""
    paths = sorted(path for path in folder.iterdir() if path.name != SUMS_FILE)
    lines = [f"{_sha256(path)}  {path.name}\n" for path in paths]
    (folder / SUMS_FILE).write_text("".join(lines))


def check_checksums(folder: Path) -> None:
    """Raise `DamagedError` unless every file has the checksum that was written. A folder of an
    older version has none, and passes."""
    try:
        with _regular(folder / SUMS_FILE).open("rb") as file:
            lines = file.read(_MAX_BYTES).decode().splitlines()
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise DamagedError(f"{folder / SUMS_FILE}: damaged: {error}") from error
    if not lines:
        raise DamagedError(f"{folder / SUMS_FILE}: damaged: empty")
    for line in lines:
        known, _, name = line.partition("  ")
        path = folder / Path(name).name  # never a file elsewhere
        try:
            found = _sha256(path)
        except OSError as error:
            raise DamagedError(f"{path}: damaged: {error}") from error
        if found != known:
            raise DamagedError(
                f"{path}: damaged: its SHA-256 is {found}, and {SUMS_FILE} has {known!r}"
            )


def _regular(path: Path) -> Path:
    """Return the path. Raises `OSError` for a pipe or a device, which could be read for ever."""
    if path.exists() and not path.is_file():
        raise OSError("expected a regular file")
    return path


def _sha256(path: Path) -> str:
    with _regular(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
