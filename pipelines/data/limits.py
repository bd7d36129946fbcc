"""THE rule of how much memory the content of a data file may take.

A compressed file of a few kilobytes can declare terabytes. What a file declares is read first, and
refused if the file's own size does not justify it; only then is anything decompressed.
"""

from __future__ import annotations

import os
from pathlib import Path

from gen_models.core.errors import InputError

SMALL_BYTES = 64 << 20
"""Bytes of content that every file may have, however small it is itself."""
MAX_RATIO = 250
"""Bytes of content for each byte of a file. Photographs take some 10, digits 5, the sprites of
dSprites, which are black but for a few pixels, 115; deflate packs at most 1,032."""


def require_justified(where: str, content_bytes: int, file: Path) -> None:
    """Raise `InputError` unless `file` may hold `content_bytes`, by its own size and by the memory
    of this machine. `where` names the file, or the part of it, that declares them."""
    most = min(max(SMALL_BYTES, MAX_RATIO * file.stat().st_size), _physical_bytes())
    if content_bytes > most:
        raise InputError(
            f"{where}: declares {content_bytes} bytes of content: expected at most {most} in a "
            f"file of {file.stat().st_size} bytes on this machine"
        )


def _physical_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
