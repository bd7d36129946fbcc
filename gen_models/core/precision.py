"""Precision of the networks' products: float32, or bfloat16 by autocast where that is faster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor

Precision = Literal["fp32", "bf16"]
Network = Callable[..., Any]


class InPrecision:
    """Networks whose products are computed in `precision`; what they return is float32 again,
    so a loss sums in full precision."""

    def __init__(self, device: torch.device, precision: Precision) -> None:
        self.device_type = device.type
        self.reduced = precision == "bf16"

    def networks(self, networks: Mapping[str, Network]) -> dict[str, Network]:
        """The networks as a loss calls them."""
        return {n: self._cast(f) if self.reduced else f for n, f in networks.items()}

    def loss(self) -> AbstractContextManager[Any]:
        """The context in which the loss runs: weights that several calls of a network share
        are cast once."""
        if not self.reduced:
            return nullcontext()
        return torch.autocast(self.device_type, torch.bfloat16, enabled=False)

    def _cast(self, network: Network) -> Network:
        def call(*args: Tensor) -> Tensor:
            with torch.autocast(self.device_type, torch.bfloat16):
                out: Tensor = network(*args)
            return out.to(args[0].dtype)

        return call
