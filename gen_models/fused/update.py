"""One objective of K learners of one kind, vectorised, with its optimizer.

The learners' parameters are one flat tensor (K, P), so that an optimizer step is a handful of
operations whatever the number of learners and of layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from gen_models.core.contract import Draws, Metrics, Model, Networks
from gen_models.core.data import Batch
from gen_models.fused.stacking import Stacked, crop, stack, stack_by_name
from gen_models.training.accumulator import Meter
from gen_models.training.learner import Update
from gen_models.training.optimizer import decay
from gen_models.training.precision import InPrecision


class StackedState(Protocol):
    """The state that a step's updates share: `gen_models.fused.learners.VectorisedLearners`."""

    stacked: Stacked
    buffers: dict[str, dict[str, Tensor]]
    """By network and name, (K, *shape)."""
    steps: Tensor
    """Steps so far of each learner, (K,)."""
    device: torch.device
    precision: InPrecision
    compiled: bool

    def parameters(self) -> dict[str, dict[str, Tensor]]:
        """Parameters (K, *shape) of all objectives, by network and name."""


class StackedUpdate:
    """One objective of K learners, with its optimizer. `index` is its place among objectives."""

    def __init__(self, owner: StackedState, index: int, members: Sequence[Update]) -> None:
        self.owner, self.index, self.members = owner, index, members
        self.objective = members[0].objective
        widest = [
            (name, key, parameter.shape)
            for name in self.objective.networks
            for key, parameter in owner.stacked.templates[name].named_parameters()
        ]
        self.names = [(name, key) for name, key, _ in widest]
        self.shapes = [shape for _, _, shape in widest]
        self.flat = _flat([m.parameters for m in members])
        self.exp_avg = _flat([m.optimizer.exp_avg for m in members])
        self.exp_avg_sq = _flat([m.optimizer.exp_avg_sq for m in members])
        self.mask = _mask([m.parameters for m in members])
        self.num_steps = torch.stack([m.optimizer.num_steps for m in members]).double()[:, None]
        self.meter = Meter()
        settings = [m.optimizer.settings for m in members]
        self.lr = self._column([s.lr for s in settings])
        self.decay_epochs = self._column([s.decay_epochs for s in settings])
        self.decays = any(s.decay_epochs for s in settings)
        self.beta1 = self._column([s.betas[0] for s in settings])
        self.beta2 = self._column([s.betas[1] for s in settings])
        self.eps = self._column([s.eps for s in settings])
        self.weight_decay = self._column([s.weight_decay for s in settings])
        self.ema_decay = self._column([s.ema_decay for s in settings])
        self.averages = self._stack_averages()
        self._descend = (
            torch.compile(self._gradient_step) if owner.compiled else self._gradient_step
        )

    def _column(self, values: Sequence[float]) -> Tensor:
        """Return a column (K, 1) in float64, so that its powers are as exact as Python's."""
        return torch.tensor(values, dtype=torch.float64, device=self.owner.device)[:, None]

    def _stack_averages(self) -> dict[str, dict[str, Tensor]]:
        return {
            name: stack_by_name([m.averages[name].state_dict() for m in self.members])
            for name in self.members[0].averages
        }

    def by_network(self, flat: Tensor) -> dict[str, dict[str, Tensor]]:
        """Split a flat tensor (K, P) into parameters (K, *shape) by network and name. Views."""
        by_name: dict[str, dict[str, Tensor]] = {name: {} for name in self.objective.networks}
        parts = torch.split(flat, [shape.numel() for shape in self.shapes], dim=1)
        for (name, key), part, shape in zip(self.names, parts, self.shapes, strict=True):
            by_name[name][key] = part.view(len(flat), *shape)
        return by_name

    def state(self) -> list[Tensor]:
        """List the tensors that a step changes, except the networks' buffers and the meter."""
        averages = [t for tensors in self.averages.values() for t in tensors.values()]
        return [self.flat, self.exp_avg, self.exp_avg_sq, self.num_steps, *averages]

    def settings(self) -> list[Tensor]:
        """List the tensors that hold each learner's settings."""
        columns = [self.lr, self.decay_epochs, self.beta1, self.beta2, self.eps]
        mask = [] if self.mask is None else [self.mask]
        return [*columns, self.weight_decay, self.ema_decay, *mask]

    def __call__(self, batch: Batch, draws: Draws, epoch: Tensor) -> None:
        owner = self.owner
        metrics, buffers = self._descend(batch, draws, epoch)
        self.meter.add(metrics, batch.labels.shape[1])
        with torch.no_grad():
            for name, tensors in buffers.items():
                for key, value in tensors.items():
                    owner.buffers[name][key].copy_(value)
            own = self.by_network(self.flat)
            for name in self.objective.networks:
                owner.stacked.after_update(name, {**own[name], **owner.buffers[name]})
            self._average(own)

    def _gradient_step(
        self, batch: Batch, draws: Draws, epoch: Tensor
    ) -> tuple[Metrics, dict[str, dict[str, Tensor]]]:
        """Compute the losses and their gradients and update the parameters. Returns metrics, and
        the networks' buffers as the losses leave them."""
        owner = self.owner

        def total(flat: Tensor) -> tuple[Tensor, Any]:
            parameters = {**owner.parameters(), **self.by_network(flat)}
            buffers = {n: {k: t.clone() for k, t in b.items()} for n, b in owner.buffers.items()}
            tensors = {n: {**parameters.get(n, {}), **b} for n, b in buffers.items()}
            with owner.precision.loss():
                losses, metrics = owner.stacked.map(self._loss, tensors, batch, draws, epoch)
            return losses.sum(), (metrics, buffers)

        outputs: tuple[Metrics, dict[str, dict[str, Tensor]]]
        gradient, outputs = torch.func.grad(total, has_aux=True)(self.flat)
        self._adamw(gradient if self.mask is None else gradient * self.mask, epoch)
        return outputs

    def _loss(
        self, model: Model, networks: Networks, batch: Batch, draws: Draws, epoch: Tensor
    ) -> tuple[Tensor, Metrics]:
        called = self.owner.precision.networks(networks)
        return model.objectives()[self.index].loss(called, batch, draws, epoch)

    def _adamw(self, gradient: Tensor, epoch: Tensor) -> None:
        """Update the parameters as `AdamW.step` does, each learner's with its own settings and
        number of steps."""
        dtype = gradient.dtype
        self.num_steps += 1
        bias1 = 1 - self.beta1**self.num_steps
        bias2 = 1 - self.beta2**self.num_steps
        lr = self._lr(epoch) if self.decays else self.lr
        self.flat.mul_((1 - lr * self.weight_decay).to(dtype))
        self.exp_avg.lerp_(gradient, (1 - self.beta1).to(dtype))
        self.exp_avg_sq.lerp_(gradient.square(), (1 - self.beta2).to(dtype))
        denominator = self.exp_avg_sq.sqrt().mul_((1 / bias2.sqrt()).to(dtype))
        denominator.add_(self.eps.to(dtype))
        rate = (lr / bias1).to(dtype)
        self.flat.sub_((self.exp_avg * rate).div_(denominator))

    def _lr(self, epoch: Tensor) -> Tensor:
        """Return each learner's learning rate (K, 1) at its position in training (K,)."""
        decayed = self.lr * decay(epoch[:, None], self.decay_epochs)
        return torch.where(self.decay_epochs > 0, decayed.float().double(), self.lr)

    def _average(self, own: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Update the averages as `Update._average` does."""
        num = torch.floor_divide(self.owner.steps, self.objective.period)[:, None]
        weight = 1 - torch.minimum(self.ema_decay, (1 + num) / (10 + num))
        for name, averages in self.averages.items():
            sources = {**own[name], **self.owner.buffers[name]}
            for key, average in averages.items():
                if average.is_floating_point():
                    shape = (-1, *[1] * (average.dim() - 1))
                    average.lerp_(sources[key], weight.to(average.dtype).view(shape))
                else:
                    average.copy_(sources[key])

    def write_back(self) -> None:
        """Copy the stacked state into the learners' updates."""
        for index, member in enumerate(self.members):
            optimizer = member.optimizer
            for flat, own in (
                (self.flat, member.parameters),
                (self.exp_avg, optimizer.exp_avg),
                (self.exp_avg_sq, optimizer.exp_avg_sq),
            ):
                parts = torch.split(flat[index], [shape.numel() for shape in self.shapes])
                for tensor, part, shape in zip(own, parts, self.shapes, strict=True):
                    tensor.copy_(crop(part.view(shape), tensor.shape))
            for steps in optimizer.steps:
                steps.copy_(self.num_steps[index, 0])
            for name, averages in self.averages.items():
                for key, value in member.averages[name].state_dict().items():
                    value.copy_(crop(averages[key][index], value.shape))
            member.meter.take(self.meter, index)


def _flat(members: Sequence[Sequence[Tensor]]) -> Tensor:
    """Concatenate each learner's tensors, padded to the widest learner's shapes: (K, P)."""
    columns = [stack([t.detach() for t in tensors]) for tensors in zip(*members, strict=True)]
    return torch.cat([column.flatten(1) for column in columns], dim=1)


def _mask(members: Sequence[Sequence[Tensor]]) -> Tensor | None:
    """Return (K, P), 1 where a learner has a parameter and 0 in its padding; None without
    padding."""
    if len({tuple(t.shape for t in tensors) for tensors in members}) == 1:
        return None
    return _flat([[torch.ones_like(t) for t in tensors] for tensors in members])
