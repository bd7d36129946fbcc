"""Pictures that a page holds within itself."""

from __future__ import annotations

import base64
from pathlib import Path


def png_url(png: bytes) -> str:
    """Return a PNG picture as a URL with its content."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def file_url(path: str | Path | None) -> str | None:
    """Return the picture of a file as a URL with its content; None if there is none."""
    return png_url(Path(path).read_bytes()) if path and Path(path).is_file() else None
