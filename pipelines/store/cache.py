"""Tensors that are computed once for a store, and kept in its folder `features`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from pipelines.store.journal import write_whole

Arrays = Mapping[str, np.ndarray[Any, Any]]


def kept_path(store: Path, name: str, *arrays: np.ndarray[Any, Any], what: str = "") -> Path:
    """The file of what follows from the arrays alone: a digest of them is in its name, and
    `what` it is after that."""
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(f"{array.dtype.str}{array.shape}".encode())
        sha.update(np.ascontiguousarray(array).data.cast("B"))
    return store / "features" / f"{name}-{sha.hexdigest()[:12]}{what}.safetensors"


def kept(path: Path, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of a file; where it is not there, those that `make` returns, written whole."""
    if not path.is_file():
        write_whole(path, save_tensors(make()))
    return load_tensors(path.read_bytes())
