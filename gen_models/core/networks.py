"""Construction and conversion of networks. Every network of a model is built here, so that it has
the same memory format in training, when it is loaded, and when it is exported."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext

import torch
from torch import nn

from gen_models.core.contract import AfterUpdate, Model

MEMORY_FORMAT = torch.channels_last
"""Of all weights with four dimensions. Convolutions are faster so on GPUs and CPUs alike, up to
1.4 times in bfloat16; and they round differently than in another format."""


def build_networks(model: Model, device: torch.device | str = "cpu") -> dict[str, nn.Module]:
    """Build fresh networks of `model` on `device`, in training mode.

    Weights are initialised from torch's global CPU generator on any device but "meta", where
    networks have shapes and no values.
    """
    device = torch.device(device)
    with device if device.type == "meta" else nullcontext():
        networks = model.networks()
    return {
        name: network.to(device).to(memory_format=MEMORY_FORMAT)
        for name, network in networks.items()
    }


def convert_modules(
    network: nn.Module, convert: Callable[[nn.Module], nn.Module | None]
) -> nn.Module:
    """Replace modules within `network`, as `SyncBatchNorm.convert_sync_batchnorm` does.

    `convert(module)` returns a new module, or None to keep `module`. Names stay. Returns
    `network`, or its replacement.
    """
    replacements = {id(module): convert(module) for module in network.modules()}
    for name, module in list(network.named_modules(remove_duplicate=False)):
        replacement = replacements[id(module)]
        if replacement is None:
            continue
        if not name:
            return replacement
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, replacement)
    return network


def after_update_modules(networks: Iterable[nn.Module]) -> list[AfterUpdate]:
    """List the modules within `networks` that have work to do after an update."""
    modules = [module for network in networks for module in network.modules()]
    return [module for module in modules if isinstance(module, AfterUpdate)]
