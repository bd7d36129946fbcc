"""Precision of the networks' matrix products and convolutions: float32, or bfloat16 by
autocast."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Precision = Literal["fp32", "bf16"]
Network = Callable[..., Any]


class InPrecision:
    """Calls networks in `precision`. Their outputs have their inputs' dtype again, so that losses
    are summed in full precision. `stacked`: the networks are called within vmap."""

    def __init__(
        self, device: torch.device, precision: Precision, *, stacked: bool = False
    ) -> None:
        self.device_type, self.stacked = device.type, stacked
        self.reduced = precision == "bf16"

    def networks(self, networks: Mapping[str, Network]) -> dict[str, Network]:
        """Return the networks as a loss calls them."""
        return {n: self._cast(f) if self.reduced else f for n, f in networks.items()}

    def loss(self) -> AbstractContextManager[Any]:
        """Return the context for a loss, in which the weights that several calls of a network use
        are cast once."""
        if not self.reduced:
            return nullcontext()
        return torch.autocast(self.device_type, torch.bfloat16, enabled=False)

    def _cast(self, network: Network) -> Network:
        def call(*args: Tensor) -> Tensor:
            autocast = torch.autocast(self.device_type, torch.bfloat16)
            with _Products() if self.stacked else autocast:
                out: Tensor = network(*args)
            return out.to(args[0].dtype)

        return call


class _Products(TorchFunctionMode):
    """Autocast within vmap. Torch's own leaves convolutions in float32 there, because vmap
    decomposes these functions before autocast is applied."""

    functions = frozenset(
        {
            *(F.linear, F.bilinear, F.scaled_dot_product_attention),
            *(torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, torch.bmm, torch.mv),
            *(F.conv1d, F.conv2d, F.conv3d),
            *(F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
        }
    )

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in self.functions:
            args = tuple(map(_reduced, args))
            kwargs = {name: _reduced(value) for name, value in kwargs.items()}
        return func(*args, **kwargs)


def _reduced(value: Any) -> Any:
    floats = isinstance(value, Tensor) and value.is_floating_point()
    return value.to(torch.bfloat16) if floats else value
