"""Trains several learners of a family in one process, each with the result that it has alone.

Learners of one kind are trained in turn, one after the other, or vectorised, with `torch.func`. In
turn a learner's result is what it is alone, to the last bit. Vectorised it is the same up to
rounding, which depends on the widths to which learners are padded and on whether several are
stacked. So that it does not depend on who happens to be trained together, a group that is a single
learner, or lacks the widest one, gets a companion (`FusedTrainer.companions`).

Vectorised can be many times as fast on a GPU and small models; on a CPU it depends on the
processor and on the model. A short measurement decides for each structure, once: `Choices` keeps
what it decided.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal, Protocol

import torch

from gen_models.core.data import Batch
from gen_models.fused.learners import VectorisedLearners, kind, structure_name
from gen_models.training.batches import Epochs, TrainingImages
from gen_models.training.learner import Learner

Execution = Literal["vectorised", "in_turn"]
_AS_TEXT: dict[Execution, str] = {"vectorised": "as one", "in_turn": "in turn"}

_MARGIN = 1.2
"""Vectorised must be faster by this factor, because in turn results are equal to the last bit."""
_TIMED = 3
"""Steps that are timed, after one to warm up."""
_KEPT = 4
"""Number of kinds, the last trained, whose stacked state is kept between epochs."""
_TIMED_ALONE = 4
"""Most learners that are timed in turn."""


@dataclass(frozen=True)
class Choice:
    """How learners of one kind are trained, and the reason."""

    execution: Execution
    reason: str


class Choices(Protocol):
    """Keeps the choices, so that each is made once: by whichever trainer of a search is first."""

    def find(self, structure: str) -> Choice | None:
        """Return what was chosen for a structure (`structure_name`); None if nothing was yet."""

    def keep(self, structure: str, choice: Choice) -> Choice:
        """Keep a choice unless there is one already; return the one that holds."""


class OwnChoices:
    """Choices of one trainer, in memory."""

    def __init__(self) -> None:
        self._choices: dict[str, Choice] = {}

    def find(self, structure: str) -> Choice | None:
        return self._choices.get(structure)

    def keep(self, structure: str, choice: Choice) -> Choice:
        return self._choices.setdefault(structure, choice)


class FusedTrainer:
    """Trains learners on the same images, an epoch at a time.

    Each call of `run_epoch` may have other learners, and they need not be at the same epoch.
    `execution`: "vectorised", "in_turn", or "auto", which measures. `at_once`: how many learners
    will be trained at a time, with which both executions are timed; None: as many as come together
    first, while one that comes alone is trained in turn without a choice. `choices`: what was
    chosen before, and where a new choice is kept. `widest`: widths to which vectorised learners
    are padded, by the name of the config's field; by default to those of the widest in a group.
    """

    def __init__(
        self,
        data: TrainingImages,
        execution: Execution | Literal["auto"] = "auto",
        at_once: int | None = None,
        choices: Choices | None = None,
        widest: Mapping[str, int] | None = None,
    ) -> None:
        self.data = data
        self._execution = execution
        self._at_once = at_once
        self._choices = choices or OwnChoices()
        self._widest = widest or {}
        self._made: dict[str, Choice] = {}
        self._kept: dict[Hashable, VectorisedLearners] = {}

    def groups(self, learners: Sequence[Learner]) -> list[list[Learner]]:
        """Group the learners that should be passed to `run_epoch` together, because they are
        vectorised."""
        kinds = defaultdict(list)
        for learner in learners:
            kinds[kind(learner)].append(learner)
        groups = []
        for group in kinds.values():
            together = self.choice(group).execution == "vectorised"
            groups += [group] if together else [[learner] for learner in group]
        return groups

    def run_epoch(self, learners: Sequence[Learner]) -> None:
        """Train each learner for one epoch."""
        for group in self.groups(learners):
            if self.choice(group).execution == "vectorised":
                self._run_together(group)
            else:
                self._run_alone(group[0])

    def companions(self, group: Sequence[Learner]) -> list[Learner]:
        """Return what is stacked beside the learners of a vectorised group, so that their results
        do not depend on the group: a learner of the widest shapes, new, if there is none among
        them, or if there is one learner alone, whose products are computed another way."""
        first = group[0]
        if self.choice(group).execution != "vectorised":
            return []
        widths = {
            name: max(
                self._widest.get(name, 0), *(getattr(one.model.config, name) for one in group)
            )
            for name in first.model.widths
        }
        has_widest = any(
            all(getattr(one.model.config, name) == width for name, width in widths.items())
            for one in group
        )
        return [] if has_widest and len(group) > 1 else [_beside(first, widths)]

    def choice(self, group: Sequence[Learner]) -> Choice:
        """Return how learners of one structure are trained. At the first call for a structure both
        executions are timed, on copies of as many learners as will be trained at a time."""
        if self._execution != "auto":
            return Choice(self._execution, "as requested")
        name = structure_name(group[0])
        if name not in self._made:
            found = self._choices.find(name)
            if found is None:
                measured = self._measured(group)
                if measured is None:
                    return Choice("in_turn", "a single learner")
                found = self._choices.keep(name, measured)
            self._made[name] = found
        return self._made[name]

    def describe(self) -> str:
        """Describe the choices, a line for each structure."""
        return "\n".join(
            f"learners trained {_AS_TEXT[choice.execution]}: {choice.reason}"
            for choice in self._made.values()
        )

    def _measured(self, group: Sequence[Learner]) -> Choice | None:
        """Return the faster execution of as many learners as will be trained at a time, which are
        `group` and copies of its first; None if nothing says how many."""
        missing = (self._at_once or len(group)) - len(group)
        group = [*group, *(group[0].clone() for _ in range(missing))]
        if len(group) == 1:
            return Choice("in_turn", "one learner at a time") if self._at_once else None
        together, few = self._epochs(group), group[:_TIMED_ALONE]
        clones, alone = [one.clone() for one in few], [self._epochs([one]) for one in few]

        def step_in_turn(step: int) -> None:
            for learner, epoch in zip(clones, alone, strict=True):
                batch, _ = epoch.batch(step)
                learner.step(Batch(batch.images[0], batch.labels[0]))

        in_turn = self._seconds(step_in_turn) * len(group) / len(few)
        try:
            stacked = VectorisedLearners(group)
            vectorised = self._seconds(lambda step: stacked.step(together.batch(step)[0]))
        except (RuntimeError, NotImplementedError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            return Choice("in_turn", f"cannot be vectorised: {lines[0]}")
        faster = in_turn > _MARGIN * vectorised
        return Choice(
            "vectorised" if faster else "in_turn",
            f"a step of {len(group)} takes {1e3 * in_turn:.1f} ms in turn, "
            f"{1e3 * vectorised:.1f} ms vectorised",
        )

    def _seconds(self, run: Callable[[int], None]) -> float:
        """Return the median time of a step, after one to warm up."""
        seconds = []
        for _ in range(1 + _TIMED):
            start = time.perf_counter()
            run(0)
            if self.data.device.type == "cuda":
                torch.cuda.synchronize(self.data.device)
            seconds.append(time.perf_counter() - start)
        return median(seconds[1:])

    def _epochs(self, group: Sequence[Learner]) -> Epochs:
        """Return the batches of each learner's next epoch."""
        return Epochs(self.data, [(one.seed, int(one.epoch) + 1) for one in group])

    def _run_alone(self, learner: Learner) -> None:
        for batch, share in self.data.batches(learner.seed, int(learner.epoch) + 1):
            learner.step(batch, share)

    def _run_together(self, group: Sequence[Learner]) -> None:
        group = [*group, *self.companions(group)]
        together, epochs = self._stacked_learners(group), self._epochs(group)
        for step in range(self.data.steps_per_epoch):
            batch, _ = epochs.batch(step)
            together.step(batch)
        together.write_back()

    def _stacked_learners(self, group: Sequence[Learner]) -> VectorisedLearners:
        """Stack the group's state, in the tensors of the kind's last epoch if shapes are equal, so
        that a recorded step stays valid."""
        stacked, key = VectorisedLearners(group), kind(group[0])
        kept = self._kept.pop(key, None)
        if kept is None or not kept.take(stacked):
            kept = stacked
        self._kept[key] = kept
        while len(self._kept) > _KEPT:
            del self._kept[next(iter(self._kept))]
        return kept


def _beside(learner: Learner, widths: Mapping[str, int]) -> Learner:
    """Return a new learner of the same kind with these widths, at the same position."""
    model = learner.model
    other = Learner(
        type(model)(replace(model.config, **widths), model.spec),
        learner.optim,
        seed=learner.seed,
        steps_per_epoch=learner.steps_per_epoch,
        device=learner.device,
        precision=learner.precision,
        compiled=learner.compiled,
        graphs=learner.graphs,
    )
    other.step_count = learner.step_count
    other.steps.copy_(learner.steps)
    return other
