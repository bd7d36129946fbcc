"""Trains several learners of a family in one process, each with the result that it has alone.

Learners of one kind are trained vectorised, with `torch.func`, or in turn, one after the other;
the results agree up to rounding. Vectorised can be many times as fast on a GPU and small models;
on a CPU in turn is mostly faster. A short measurement decides for each kind.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

import torch

from gen_models.core.data import Batch
from gen_models.fused.learners import VectorisedLearners, kind
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


class FusedTrainer:
    """Trains learners on the same images, an epoch at a time.

    Each call of `run_epoch` may have other learners, and they need not be at the same epoch.
    `execution`: "vectorised", "in_turn", or "auto", which measures.
    """

    def __init__(
        self, data: TrainingImages, execution: Execution | Literal["auto"] = "auto"
    ) -> None:
        self.data = data
        self._execution = execution
        self._choices: dict[Hashable, Choice] = {}
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
            if len(group) > 1:
                self._run_together(group)
            else:
                self._run_alone(group[0])

    def choice(self, group: Sequence[Learner]) -> Choice:
        """Return how learners of one kind are trained. At the first call with several of a kind,
        both executions are timed on copies of the learners."""
        if self._execution != "auto":
            return Choice(self._execution, "as requested")
        key = kind(group[0])
        if key not in self._choices and len(group) == 1:
            return Choice("in_turn", "a single learner")
        if key not in self._choices:
            self._choices[key] = self._measure(group)
        return self._choices[key]

    def describe(self) -> str:
        """Describe the measurements, a line for each kind."""
        return "\n".join(
            f"learners trained {_AS_TEXT[choice.execution]}: {choice.reason}"
            for choice in self._choices.values()
        )

    def _measure(self, group: Sequence[Learner]) -> Choice:
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
