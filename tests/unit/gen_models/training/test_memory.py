"""The estimate of a learner's memory."""

from support.models import make_learner

from gen_models.training.draws import STEPS_AT_ONCE
from gen_models.training.memory import footprint, step_bytes


def test_the_footprint_is_that_of_the_real_networks(variant: str) -> None:
    learner = make_learner(variant)
    found = footprint(learner.model, learner.optim, batch_size=16)
    state = 0
    for update in learner.updates:
        own = sum(p.numel() for p in update.parameters)
        state += 4 * own * (4 + bool(update.averages))
    assert found.state == state
    block = learner.draws_of_block(16 * STEPS_AT_ONCE, 0)
    assert found.draws == sum(4 * numbers.numel() for numbers in block.values())
    step, more = (step_bytes(learner.model, batch_size) for batch_size in (16, 32))
    assert step < more <= 2 * step and step > 16 * 64 * 4
