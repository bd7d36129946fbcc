"""Precision of the networks' products: float32, or bfloat16 by autocast where that is faster."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

Precision = Literal["fp32", "bf16"]
Network = Callable[..., Any]

_FASTER = 1.5
"""bf16 must be this much faster at a matrix product. Where the hardware has it, it is two to
sixteen times as fast, and where it has not, slower: so chance does not decide."""


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


@cache
def fastest_precision(device_type: str) -> Precision:
    """What a device computes fastest with, by a measurement of some 50 ms."""
    left, right = (torch.rand(256, 512, device=device_type) for _ in range(2))
    full = _seconds(lambda: left @ right.T, device_type)
    left, right = left.bfloat16(), right.bfloat16()
    half = _seconds(lambda: left @ right.T, device_type)
    return "bf16" if full > _FASTER * half else "fp32"


def _seconds(call: Callable[[], Any], device_type: str) -> float:
    """The shortest of several timings, for other work can only make one longer."""
    shortest = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(4):
            call()
        if device_type == "cuda":
            torch.cuda.synchronize()
        shortest = min(shortest, time.perf_counter() - start)
    return shortest
