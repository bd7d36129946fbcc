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
from gen_models.training.optimizer import StackedAdamW
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
        self.optimizer = StackedAdamW(self.flat, [m.optimizer for m in members], _flat)
        self.mask = _mask([m.parameters for m in members])
        self.meter = Meter()
        ema_decays = [m.optimizer.settings.ema_decay for m in members]
        self.ema_decay = torch.tensor(ema_decays, dtype=torch.float64, device=owner.device)[
            :, None
        ]
        self.averages = self._stack_averages()
        self._descend = (
            torch.compile(self._gradient_step) if owner.compiled else self._gradient_step
        )

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
        return [self.flat, *self.optimizer.tensors(), *averages]

    def settings(self) -> list[Tensor]:
        """List the tensors that hold each learner's settings."""
        mask = [] if self.mask is None else [self.mask]
        return [*self.optimizer.settings(), self.ema_decay, *mask]

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
        self.optimizer.step(gradient if self.mask is None else gradient * self.mask, epoch)
        return outputs

    def _loss(
        self, model: Model, networks: Networks, batch: Batch, draws: Draws, epoch: Tensor
    ) -> tuple[Tensor, Metrics]:
        called = self.owner.precision.networks(networks)
        return model.objectives()[self.index].loss(called, batch, draws, epoch)

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
            self._crop_into(self.flat[index], member.parameters)
            self.optimizer.write_back(index, member.optimizer, self._crop_into)
            for name, averages in self.averages.items():
                for key, value in member.averages[name].state_dict().items():
                    value.copy_(crop(averages[key][index], value.shape))
            member.meter.take(self.meter, index)

    def _crop_into(self, flat: Tensor, tensors: Sequence[Tensor]) -> None:
        """Copy a learner's part of a flat tensor (P,) into its own tensors."""
        parts = torch.split(flat, [shape.numel() for shape in self.shapes])
        for tensor, part, shape in zip(tensors, parts, self.shapes, strict=True):
            tensor.copy_(crop(part.view(shape), tensor.shape))


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
