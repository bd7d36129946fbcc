"""Arrays that are computed once for a store and kept in its folder `features`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from pipelines.store.files import LOCAL, Files

Arrays = Mapping[str, np.ndarray[Any, Any]]


def cache_path(folder: Path, name: str, *arrays: np.ndarray[Any, Any], what: str = "") -> Path:
    """Return the file for something that follows from `arrays` alone: its name holds a digest of
    them. `what` tells apart several things that follow from the same arrays."""
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(f"{array.dtype.str}{array.shape}".encode())
        sha.update(np.ascontiguousarray(array).data.cast("B"))
    return folder / f"{name}-{sha.hexdigest()[:12]}{what}.safetensors"


def cached(path: Path, make: Callable[[], Arrays], files: Files = LOCAL) -> Arrays:
    """Return the arrays in the file `path`; if it is absent, compute them with `make` and write
    them first."""
    if not files.exists(path):
        files.write(
            path, save_arrays({name: np.ascontiguousarray(a) for name, a in make().items()})
        )
    return load_arrays(files.read(path))
