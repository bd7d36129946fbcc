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
    draws: int
    """Random numbers of a block of steps."""


def footprint(model: Model, optim: Any, batch_size: int) -> Footprint:
    """Estimate the memory in float32 that a learner holds between steps."""
    networks = build_networks(model, "meta")
    settings = adams(optim, model.objectives())
    state = 0
    for objective in model.objectives():
        own = [p for name in objective.networks for p in networks[name].parameters()]
        averaged = settings[objective.name].ema_decay > 0
        state += sum(_bytes(p) for p in own) * (_WEIGHT_COPIES + averaged)
    draws = _draws(model, batch_size).values()
    return Footprint(state, STEPS_AT_ONCE * sum(map(_bytes, draws)))


def step_bytes(model: Model, batch_size: int) -> int:
    """Estimate the memory in float32 that is kept for the backward pass of a step, of the
    objective that keeps most, without the workspaces of kernels.

    Torch computes on the meta device with its compiler, whose import takes seconds.
    """
    networks, draws = build_networks(model, "meta"), _draws(model, batch_size)
    batch = Batch.of(torch.empty(batch_size, *model.spec.shape, device="meta"))
    step = 0
    for objective in model.objectives():
        kept: dict[int, int] = {}

        def keep(tensor: Tensor, kept: dict[int, int] = kept) -> Tensor:
            kept[id(tensor)] = _bytes(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss, _ = objective.loss(networks, batch, draws, 0.0)
        step = max(step, sum(kept.values()) + _bytes(loss))
    return step


def _draws(model: Model, batch_size: int) -> dict[str, Tensor]:
    """Return the shapes of a step's random numbers."""
    return {
        name: torch.empty((batch_size, *value.shape[1:]), device="meta")
        for name, value in model.draws(1, torch.Generator()).items()
    }


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
