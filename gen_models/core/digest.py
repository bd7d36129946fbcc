"""Digests of weights: equal for networks that are equal to the last bit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_BYTES = torch.uint8


def weights_digest(state: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that follow from the networks and moving averages of a
    learner's `state_dict`, on whatever device they are."""
    whole = hashlib.sha256()
    for kind in ("networks", "averages"):
        for network, tensors in sorted(state[kind].items()):
            for name, tensor in sorted(tensors.items()):
                whole.update(
                    f"{kind}.{network}.{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
                )
                whole.update(_content(tensor))
    return whole.hexdigest()[:16]


def _content(tensor: Tensor) -> Any:
    """Return a tensor's values as an array of bytes, in the order of its dimensions."""
    return tensor.detach().cpu().contiguous().flatten().view(_BYTES).numpy()
