"""Learners of one kind that take their steps as one.

They are ordinary learners before and after: their state is stacked, trained, and written back.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from gen_models.core.contract import Draws
from gen_models.core.data import Batch
from gen_models.fused.stacking import Stacked, crop, stack_by_name, stack_draws, structure
from gen_models.fused.update import StackedUpdate
from gen_models.training.cuda_graphs import Due, StepGraphs
from gen_models.training.draws import DrawnAhead
from gen_models.training.learner import Learner
from gen_models.training.precision import InPrecision


def kind(learner: Learner) -> Hashable:
    """What learners must have in common to take their steps as one."""
    phases = tuple(learner.step_count % u.objective.period for u in learner.updates)
    averaged = tuple(bool(update.averages) for update in learner.updates)
    return (
        structure(learner.model),
        phases,
        averaged,
        learner.step_count % learner.steps_per_epoch,
        learner.steps_per_epoch,
        learner.precision,
        learner.compiled,
        learner.device,
    )


class VectorisedLearners:
    """Takes the steps of K learners of one kind. They are as they were until `write_back`."""

    def __init__(self, learners: Sequence[Learner]) -> None:
        self.learners = list(learners)
        first = learners[0]
        self.device = first.device
        self.precision = InPrecision(first.device, first.precision, stacked=True)
        self.stacked = Stacked([one.model for one in learners], self.device, training=True)
        self.buffers = {
            name: stack_by_name([dict(one.networks[name].named_buffers()) for one in learners])
            if dict(network.named_buffers())
            else {}
            for name, network in first.networks.items()
        }
        self.updates = [
            StackedUpdate(self, index, [one.updates[index] for one in learners])
            for index in range(len(first.updates))
        ]
        self.counts = [one.step_count for one in learners]
        self.steps = torch.stack([one.steps for one in learners])
        self._drawn = DrawnAhead(self._draws_of_block, first.steps_per_epoch, rows_dim=1)
        record = first.graphs and self.device.type == "cuda"
        self._recorded = StepGraphs(self._run, self._tensors) if record else None

    def step(self, batch: Batch) -> None:
        """One step of each, on images (K, N, *shape) in [0, 1] and labels (K, N)."""
        draws = self._drawn.of(batch.labels.shape[1], self.counts[0])
        due = tuple(update.members[0].is_due(self.counts[0]) for update in self.updates)
        (self._recorded or self._run)(batch, draws, due)
        self.counts = [count + 1 for count in self.counts]

    def _draws_of_block(self, rows: int, first: int) -> Draws:
        """As `Learner.draws_of_block`, (K, rows, …); `first` is that of the first learner."""
        since = self.counts[0] - first
        each = zip(self.learners, self.counts, strict=True)
        return stack_draws([one.draws_of_block(rows, count - since) for one, count in each])

    def _run(self, batch: Batch, draws: Draws, due: Due) -> None:
        """As `Learner._run`."""
        epoch = (self.steps / self.learners[0].steps_per_epoch).to(batch.images.dtype)
        for update, is_due in zip(self.updates, due, strict=True):
            if is_due:
                update(batch, draws, epoch)
        self.steps += 1

    def take(self, other: VectorisedLearners) -> bool:
        """Go on with the learners of `other`, which are of the same kind, in the place of one's
        own, so that a recorded step holds for them. False where they are not of the same size;
        then nothing has happened."""
        own, new = self._everything(), other._everything()
        if self._form(own) != other._form(new):
            return False
        for tensor, value in zip(own, new, strict=True):
            tensor.copy_(value)
        for update, taken in zip(self.updates, other.updates, strict=True):
            update.members = taken.members
            update.meter.clear()
        self.learners, self.counts = other.learners, other.counts
        self._drawn.forget()
        return True

    def _form(self, tensors: Sequence[Tensor]) -> Hashable:
        """What a recorded step depends on beside the numbers in tensors."""
        return tuple(t.shape for t in tensors), tuple(update.decays for update in self.updates)

    def _everything(self) -> list[Tensor]:
        """The state of the learners, and their settings."""
        numbers = list(self.stacked.numbers.values())
        updates = [t for u in self.updates for t in (*u.state(), *u.settings())]
        return [self.steps, *self._buffers(), *numbers, *updates]

    def _buffers(self) -> list[Tensor]:
        return [t for tensors in self.buffers.values() for t in tensors.values()]

    def _tensors(self) -> list[Tensor]:
        """All that a step changes."""
        updates = [t for u in self.updates for t in (*u.state(), *u.meter.tensors())]
        return [self.steps, *self._buffers(), *updates]

    def parameters(self) -> dict[str, dict[str, Tensor]]:
        """Every parameter (K, *shape) by network and name."""
        return {
            name: tensors
            for update in self.updates
            for name, tensors in update.by_network(update.flat).items()
        }

    @torch.no_grad()
    def write_back(self) -> None:
        """Give each learner its state."""
        for index, one in enumerate(self.learners):
            one.step_count = self.counts[index]
            one.steps.copy_(self.steps[index])
            for name, network in one.networks.items():
                for key, buffer in network.named_buffers():
                    buffer.copy_(crop(self.buffers[name][key][index], buffer.shape))
        for update in self.updates:
            update.write_back()
