"""AdamW on a list of tensors, with torch's fused kernel.

The constructor of `torch.optim.AdamW` imports torch's compiler, which takes seconds in every
process of a cluster; the function that it calls does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import pi
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from gen_models.core.contract import Adam


def decay(epoch: Tensor, decay_epochs: Tensor | float) -> Tensor:
    """Return the factor on the learning rate: half a cosine from 1 to 0 (Loshchilov & Hutter
    2017)."""
    return 0.5 * (1.0 + torch.cos(pi * (epoch / decay_epochs).clamp(max=1.0)))


class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019); updates tensors in place."""

    def __init__(self, parameters: Sequence[Tensor], settings: Adam) -> None:
        self.parameters = list(parameters)
        self.settings = settings
        self.exp_avg = [torch.zeros_like(p) for p in self.parameters]
        self.exp_avg_sq = [torch.zeros_like(p) for p in self.parameters]
        # One a parameter, because the kernel increments each; on the device, so that a step does
        # not wait for it; float32, as CUDA's kernel expects.
        self.steps = [
            torch.zeros((), dtype=torch.float32, device=p.device) for p in self.parameters
        ]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], epoch: Tensor) -> None:
        """Update each parameter with its gradient; `epoch` () is the position in training."""
        settings = self.settings
        lr: Tensor | float = settings.lr
        if settings.decay_epochs:
            lr = (
                settings.lr * decay(epoch, settings.decay_epochs)
            ).float()  # as CUDA's kernel expects
        adamw(
            self.parameters,
            list(gradients),
            self.exp_avg,
            self.exp_avg_sq,
            [],
            self.steps,
            fused=True,
            amsgrad=False,
            beta1=settings.betas[0],
            beta2=settings.betas[1],
            lr=lr,
            weight_decay=settings.weight_decay,
            eps=settings.eps,
            maximize=False,
        )

    @property
    def num_steps(self) -> Tensor:
        """Number of steps so far, () on the device."""
        return self.steps[0]

    def state_dict(self) -> dict[str, Any]:
        """Return the moments, in the parameters' order, and the number of steps."""
        return {
            "step": self.num_steps,
            "exp_avg": list(self.exp_avg),
            "exp_avg_sq": list(self.exp_avg_sq),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy from a `state_dict` of the same parameters."""
        for own, name in ((self.exp_avg, "exp_avg"), (self.exp_avg_sq, "exp_avg_sq")):
            for tensor, loaded in zip(own, state[name], strict=True):
                tensor.copy_(loaded)
        for count in self.steps:
            count.copy_(state["step"])
