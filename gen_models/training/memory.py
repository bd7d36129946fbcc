"""Estimates the memory of a learner without a device, on torch's meta device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gen_models.core.contract import Model, adams
from gen_models.core.data import Batch
from gen_models.core.networks import build_networks
from gen_models.training.draws import STEPS_AT_ONCE

_WEIGHT_COPIES = 4
"""Parameters, their gradients and Adam's two moments."""


@dataclass(frozen=True)
class Footprint:
    """Memory of one learner in bytes."""

    state: int
    """Networks, gradients, moments and averages."""
    step: int
    """Tensors kept for the backward pass, of the objective that keeps most."""
    draws: int
    """Random numbers of a block of steps."""


def footprint(model: Model, optim: Any, batch_size: int) -> Footprint:
    """Estimate a learner's memory in float32, without the workspaces of kernels."""
    networks = build_networks(model, "meta")
    batch = Batch.of(torch.empty(batch_size, *model.spec.shape, device="meta"))
    draws = {
        name: torch.empty((batch_size, *value.shape[1:]), device="meta")
        for name, value in model.draws(1, torch.Generator()).items()
    }
    settings = adams(optim, model.objectives())
    state = step = 0
    for objective in model.objectives():
        own = [p for name in objective.networks for p in networks[name].parameters()]
        averaged = settings[objective.name].ema_decay > 0
        state += sum(_bytes(p) for p in own) * (_WEIGHT_COPIES + averaged)
        kept: dict[int, int] = {}

        def keep(tensor: Tensor, kept: dict[int, int] = kept) -> Tensor:
            kept[id(tensor)] = _bytes(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss, _ = objective.loss(networks, batch, draws, 0.0)
        step = max(step, sum(kept.values()) + _bytes(loss))
    return Footprint(state, step, STEPS_AT_ONCE * sum(map(_bytes, draws.values())))


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
