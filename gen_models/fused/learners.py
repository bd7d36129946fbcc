"""Vectorised training of learners of one kind: their state is stacked, trained with `torch.func`,
and written back. Before and after they are ordinary learners."""

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
    """Return a key that is equal for learners that can be stacked and trained together."""
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


def structure_name(learner: Learner) -> str:
    """Return what a learner's speed depends on beside its device and its batches, as text: equal
    in every process, and for learners of one kind at whatever position."""
    averaged = tuple(bool(update.averages) for update in learner.updates)
    parts = (structure(learner.model), averaged, learner.precision, learner.compiled)
    return repr((*parts, learner.device.type))


class VectorisedLearners:
    """Trains K learners of one kind on stacked copies of their state, until `write_back`."""

    def __init__(self, learners: Sequence[Learner]) -> None:
        self.learners = list(learners)
        first = learners[0]
        self.device = first.device
        self.compiled = first.compiled
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
        """Train each learner for one step on images (K, N, *shape) in [0, 1], labels (K, N)."""
        draws = self._drawn.of(batch.labels.shape[1], self.counts[0])
        due = tuple(update.members[0].is_due(self.counts[0]) for update in self.updates)
        (self._recorded or self._run)(batch, draws, due)
        self.counts = [count + 1 for count in self.counts]

    def _draws_of_block(self, rows: int, first: int) -> Draws:
        """Draw what `Learner.draws_of_block` draws for each learner, (K, rows, …); `first` is the
        first learner's."""
        since = self.counts[0] - first
        each = zip(self.learners, self.counts, strict=True)
        return stack_draws([one.draws_of_block(rows, count - since) for one, count in each])

    def _run(self, batch: Batch, draws: Draws, due: Due) -> None:
        """Run the objectives that are due, as `Learner._run` does."""
        epoch = (self.steps / self.learners[0].steps_per_epoch).to(batch.images.dtype)
        for update, is_due in zip(self.updates, due, strict=True):
            if is_due:
                update(batch, draws, epoch)
        self.steps += 1

    def take(self, other: VectorisedLearners) -> bool:
        """Replace the learners by those of `other`, of the same kind, within the same tensors, so
        that a recorded step stays valid. Returns False, and does nothing, if shapes differ."""
        own, new = self._all_tensors(), other._all_tensors()
        if self._recording_key(own) != other._recording_key(new):
            return False
        for tensor, value in zip(own, new, strict=True):
            tensor.copy_(value)
        for update, taken in zip(self.updates, other.updates, strict=True):
            update.members = taken.members
            update.meter.clear()
        self.learners, self.counts = other.learners, other.counts
        self._drawn.forget()
        return True

    def _recording_key(self, tensors: Sequence[Tensor]) -> Hashable:
        """Return what a recorded step depends on besides the values in `tensors`."""
        return tuple(t.shape for t in tensors), tuple(u.optimizer.decays for u in self.updates)

    def _all_tensors(self) -> list[Tensor]:
        """List the tensors with the learners' state and settings."""
        numbers = list(self.stacked.numbers.values())
        updates = [t for u in self.updates for t in (*u.state(), *u.settings())]
        return [self.steps, *self._buffers(), *numbers, *updates]

    def _buffers(self) -> list[Tensor]:
        return [t for tensors in self.buffers.values() for t in tensors.values()]

    def _tensors(self) -> list[Tensor]:
        """List the tensors that a step changes."""
        updates = [t for u in self.updates for t in (*u.state(), *u.meter.tensors())]
        return [self.steps, *self._buffers(), *updates]

    def parameters(self) -> dict[str, dict[str, Tensor]]:
        """Return every parameter (K, *shape) by network and name. Views."""
        return {
            name: tensors
            for update in self.updates
            for name, tensors in update.by_network(update.flat).items()
        }

    @torch.no_grad()
    def write_back(self) -> None:
        """Copy the stacked state into the learners."""
        for index, one in enumerate(self.learners):
            one.step_count = self.counts[index]
            one.steps.copy_(self.steps[index])
            for name, network in one.networks.items():
                for key, buffer in network.named_buffers():
                    buffer.copy_(crop(self.buffers[name][key][index], buffer.shape))
        for update in self.updates:
            update.write_back()
