"""Training that is stopped anywhere and resumed becomes what it is undisturbed, to the last bit on
a CPU: parameters, moments, averages, positions, and every epoch's metrics."""

import tempfile
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.models import SPEC, VARIANTS, some_pixels

import gen_models
from gen_models import Learner
from gen_models.core.checkpoint import restore_learner, save_checkpoint
from gen_models.fused.learners import VectorisedLearners
from gen_models.fused.trainer import Execution, FusedTrainer
from gen_models.testing.states import assert_equal_states
from gen_models.training.batches import TrainingImages

STEPS, EPOCHS = 5, 3
EACH_VARIANT = pytest.mark.parametrize("variant", VARIANTS)
_FEW = settings(max_examples=4, deadline=None)


def make_data(*, binarise: bool = False) -> TrainingImages:
    pixels = some_pixels(16 * STEPS + 10, torch.device("cpu"))
    return TrainingImages(pixels, 16, drop_last=True, binarise=binarise)


def make(variant: str, index: int = 0) -> Learner:
    """Return one of several learners that differ in their seeds, rates and widths."""
    family, changes = VARIANTS[variant]
    module = gen_models.family(family)
    config = replace(module.Config(), **changes)
    names = module.Model(config, SPEC).widths
    wider = {name: getattr(config, name) + 3 * index for name in names}
    model = module.Model(replace(config, **wider), SPEC)
    optim = _averaged(module.Optim())
    return Learner(model, optim, seed=index, steps_per_epoch=STEPS)


def _averaged(optim: Any) -> Any:
    """Return optimizers that keep moving averages, and whose rates fall."""
    if isinstance(optim, gen_models.Adam):
        return replace(optim, ema_decay=0.9, decay_epochs=5.0)
    return replace(optim, **{name: _averaged(inner) for name, inner in vars(optim).items()})


def through_a_file(learner: Learner, variant: str, index: int = 0) -> Learner:
    """Return the learner that another process has after it has read a checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(Path(folder), VARIANTS[variant][0], learner.optim, learner)
        other = make(variant, index)
        restore_learner(Path(folder), other)
        return other


# -- one learner ----------------------------------------------------------------------------------
def run(learner: Learner, data: TrainingImages, first: int, last: int) -> None:
    """Run the steps from `first` on, up to and without `last`, counted from the beginning."""
    for step in range(first, last):
        epoch, within = divmod(step, STEPS)
        batches = list(data.batches(learner.seed, epoch + 1))
        learner.step(*batches[within])


@EACH_VARIANT
@pytest.mark.parametrize("binarise", [False, True])
@_FEW
@given(stops=st.lists(st.integers(0, EPOCHS * STEPS), max_size=4).map(sorted))
def test_a_learner_that_is_saved_at_any_steps(
    variant: str, binarise: bool, stops: list[int]
) -> None:
    data, total = make_data(binarise=binarise), EPOCHS * STEPS
    undisturbed, learner, done = make(variant), make(variant), 0
    run(undisturbed, data, 0, total)
    for stop in stops:
        run(learner, data, done, stop)
        learner, done = through_a_file(learner, variant), stop
    run(learner, data, done, total)
    assert learner.step_count == total
    assert_equal_states(learner.state_dict(), undisturbed.state_dict())


# -- several learners -----------------------------------------------------------------------------
class Killed(Exception):
    """The process has died."""


def train(
    variant: str, execution: Execution, groups: Sequence[Sequence[int]], kills: Mapping[int, int]
) -> dict[int, list[Any]]:
    """Train an epoch of each group of learners, one after the other; return the state and the
    metrics of each learner after each of its epochs.

    Each learner is saved after its epochs, as a trial is. `kills`: at which step the process dies,
    by the number of the group; then every learner is read from its checkpoint.
    """
    data, num = make_data(), 3
    widest = make(variant, num - 1).model
    widths = {name: getattr(widest.config, name) for name in widest.widths}
    learners = {index: make(variant, index) for index in range(num)}
    history: dict[int, list[Any]] = {index: [] for index in learners}
    for number, group in enumerate(groups):
        if number in kills:
            with pytest.raises(Killed), pytest.MonkeyPatch.context() as patch:
                _die_at(patch, kills[number])
                trainer = FusedTrainer(data, execution, widest=widths)
                trainer.run_epoch([learners[index] for index in group])
            learners = {index: make(variant, index) for index in learners}
            for index, epochs in history.items():
                if epochs:
                    learners[index].load_state_dict(epochs[-1][0])
        trainer = FusedTrainer(data, execution, widest=widths)
        trainer.run_epoch([learners[index] for index in group])
        for index in group:
            metrics = learners[index].pop_metrics()
            learners[index] = through_a_file(learners[index], variant, index)
            history[index].append((deepcopy(learners[index].state_dict()), metrics))
    return history


def _die_at(patch: pytest.MonkeyPatch, step: int) -> None:
    """Raise `Killed` in place of the step of this number, of a learner or of several at once."""
    taken = 0
    for kind in (Learner, VectorisedLearners):
        taken_by: Any = kind.step

        def die(self: Any, *args: Any, original: Any = taken_by) -> None:
            nonlocal taken
            if taken == step:
                raise Killed
            taken += 1
            original(self, *args)

        patch.setattr(kind, "step", die)


@EACH_VARIANT
@pytest.mark.parametrize("execution", ["in_turn", "vectorised"])
@settings(max_examples=3, deadline=None)
@given(
    groups=st.lists(st.lists(st.integers(0, 2), min_size=1, unique=True), min_size=2, max_size=4),
    kills=st.dictionaries(st.integers(0, 3), st.integers(0, STEPS - 1), max_size=2),
)
def test_learners_in_any_groups_with_kills_at_any_steps(
    variant: str, execution: Execution, groups: list[list[int]], kills: dict[int, int]
) -> None:
    disturbed = train(variant, execution, groups, kills)
    for index, epochs in disturbed.items():
        alone = train(variant, execution, [[index]] * len(epochs), {})[index]
        assert len(epochs) == len(alone) == sum(index in group for group in groups)
        for (state, metrics), (expected, expected_metrics) in zip(epochs, alone, strict=True):
            assert_equal_states(state, expected)
            assert metrics == expected_metrics
