"""AdamW: of one learner on a list of tensors, with torch's fused kernel; of K learners on stacked
tensors.

The constructor of `torch.optim.AdamW` imports torch's compiler, which takes seconds in every
process of a cluster; the function that it calls does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
            # float32, as CUDA's kernel expects
            lr = (settings.lr * decay(epoch, settings.decay_epochs)).float()
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

    def tensors(self) -> list[Tensor]:
        """List the tensors that a step changes besides the parameters."""
        return [*self.exp_avg, *self.exp_avg_sq, *self.steps]

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


class StackedAdamW:
    """`AdamW` of K learners on their stacked parameters `flat` (K, P).

    Each learner has its own settings and number of steps. `flatten` concatenates the tensors of
    each of K learners, in the parameters' order, to (K, P).
    """

    def __init__(
        self,
        flat: Tensor,
        optimizers: Sequence[AdamW],
        flatten: Callable[[Sequence[Sequence[Tensor]]], Tensor],
    ) -> None:
        self.flat = flat
        self.exp_avg = flatten([one.exp_avg for one in optimizers])
        self.exp_avg_sq = flatten([one.exp_avg_sq for one in optimizers])
        self.num_steps = torch.stack([one.num_steps for one in optimizers]).double()[:, None]
        settings = [one.settings for one in optimizers]
        self.decays = any(s.decay_epochs for s in settings)
        """Whether a learning rate changes, so that a step computes it."""
        self._lr = self._column([s.lr for s in settings])
        self._decay_epochs = self._column([s.decay_epochs for s in settings])
        self._beta1 = self._column([s.betas[0] for s in settings])
        self._beta2 = self._column([s.betas[1] for s in settings])
        self._eps = self._column([s.eps for s in settings])
        self._weight_decay = self._column([s.weight_decay for s in settings])

    def _column(self, values: Sequence[float]) -> Tensor:
        """Return a column (K, 1) in float64, so that its powers are as exact as Python's."""
        return torch.tensor(values, dtype=torch.float64, device=self.flat.device)[:, None]

    def tensors(self) -> list[Tensor]:
        """List the tensors that a step changes besides the parameters."""
        return [self.exp_avg, self.exp_avg_sq, self.num_steps]

    def settings(self) -> list[Tensor]:
        """List the tensors that hold each learner's settings."""
        columns = [self._lr, self._decay_epochs, self._beta1, self._beta2, self._eps]
        return [*columns, self._weight_decay]

    def step(self, gradient: Tensor, epoch: Tensor) -> None:
        """Update the parameters with their gradient (K, P), as `AdamW.step` does.

        `epoch` (K,) is each learner's position in training.
        """
        dtype = gradient.dtype
        self.num_steps += 1
        bias1 = 1 - self._beta1**self.num_steps
        bias2 = 1 - self._beta2**self.num_steps
        lr = self._decayed_lr(epoch) if self.decays else self._lr
        self.flat.mul_((1 - lr * self._weight_decay).to(dtype))
        self.exp_avg.lerp_(gradient, (1 - self._beta1).to(dtype))
        self.exp_avg_sq.lerp_(gradient.square(), (1 - self._beta2).to(dtype))
        denominator = self.exp_avg_sq.sqrt().mul_((1 / bias2.sqrt()).to(dtype))
        denominator.add_(self._eps.to(dtype))
        rate = (lr / bias1).to(dtype)
        self.flat.sub_((self.exp_avg * rate).div_(denominator))

    def _decayed_lr(self, epoch: Tensor) -> Tensor:
        """Return each learner's learning rate (K, 1)."""
        decayed = self._lr * decay(epoch[:, None], self._decay_epochs)
        return torch.where(self._decay_epochs > 0, decayed.float().double(), self._lr)

    def write_back(
        self, index: int, optimizer: AdamW, unflatten: Callable[[Tensor, Sequence[Tensor]], None]
    ) -> None:
        """Copy the state of learner number `index` into its own optimizer.

        `unflatten` copies a flat tensor (P,) into a learner's tensors.
        """
        unflatten(self.exp_avg[index], optimizer.exp_avg)
        unflatten(self.exp_avg_sq[index], optimizer.exp_avg_sq)
        for steps in optimizer.steps:
            steps.copy_(self.num_steps[index, 0])
