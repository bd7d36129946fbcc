"""Turns a data set's arrays into batches of tensors on a device."""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gen_models.core.data import Batch
from pipelines.data.dataset import Part


def as_batch(part: Part, device: torch.device | str = "cpu") -> Batch:
    """Put a split's images and labels on a device, as one batch.

    On the CPU the tensors share the arrays' memory, also that of Ray's object store, which is
    read-only: do not write to them. Unlabelled images get the label 0.
    """
    images, labels = (None if array is None else _as_tensor(array).to(device) for array in part)
    assert images is not None
    return Batch.of(images, labels)


def _as_tensor(array: np.ndarray[Any, Any]) -> Tensor:
    with warnings.catch_warnings():
        # torch warns of arrays in the object store, because a tensor could be written to.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
