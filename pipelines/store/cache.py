"""Arrays that are computed once for a store and kept in its folder `features`."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from pipelines.store.files import LOCAL, Files

Arrays = Mapping[str, np.ndarray[Any, Any]]
_log = logging.getLogger(__name__)


def cache_path(folder: Path, name: str, *arrays: np.ndarray[Any, Any], what: str = "") -> Path:
    """Return the file for something that follows from `arrays` alone: its name holds a digest of
    them. `what` tells apart several things that follow from the same arrays."""
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(f"{array.dtype.str}{array.shape}".encode())
        sha.update(np.ascontiguousarray(array).data.cast("B"))
    return folder / f"{name}-{sha.hexdigest()[:12]}{what}.safetensors"


def cached(path: Path, make: Callable[[], Arrays], files: Files = LOCAL) -> Arrays:
    """Return the arrays in the file `path`; if it is absent or damaged, compute them with `make`
    and write them first. A file of an older version has no checksum beside it, and is believed."""
    found = _read(path, files)
    if found is None:
        content = save_arrays({name: np.ascontiguousarray(a) for name, a in make().items()})
        files.write(_checksum_file(path), hashlib.sha256(content).hexdigest())
        files.write(path, content)
        found = load_arrays(content)
    return found


def _read(path: Path, files: Files) -> Arrays | None:
    """Return the arrays in a file; None if it is absent or damaged."""
    if not files.exists(path):
        return None
    try:
        content, checksum = files.read(path), _checksum_file(path)
        known = files.read(checksum).decode() if files.exists(checksum) else None
        if known in (None, hashlib.sha256(content).hexdigest()):
            return _checked(load_arrays(content))
        reason = "its SHA-256 is another"
    except (SafetensorError, ValueError, KeyError, MemoryError) as error:
        reason = str(error)
    _log.warning("%s is damaged (%s), and is computed anew", path, reason)
    return None


def _checksum_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _checked(arrays: Arrays) -> Arrays:
    """Return arrays. Raises `ValueError` if one holds values that are not finite."""
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has values that are not finite")
    return arrays
