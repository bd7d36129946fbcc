"""What a GPU must not change: recorded steps are the steps, and a step waits for nothing."""

from typing import Any

import pytest
import torch
from conftest import SPEC, VARIANTS, some_batch, some_pixels

import gen_models
from gen_models.core import Batch, Learner
from gen_models.core.batches import TrainingImages
from gen_models.core.graphs import StepGraphs
from gen_models.core.population import Population

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="wants a CUDA device"),
]


def learners(variant: str, graphs: bool, **changes: Any) -> list[Learner]:
    """Three on the GPU that differ in their seeds."""
    family, settings = VARIANTS[variant]
    module = gen_models.family(family)
    model = module.Model(module.Config(**{**settings, **changes}), SPEC)
    return [
        Learner(model, module.Optim(), seed=seed, steps_per_epoch=10, device="cuda", graphs=graphs)
        for seed in range(3)
    ]


@pytest.mark.parametrize("execution", ["in_turn", "vectorised"])
def test_recorded_steps_are_the_steps(
    variant: str, execution: Any, caplog: pytest.LogCaptureFixture
) -> None:
    examples = Batch(*(part.cuda() for part in some_pixels(170)))
    data = TrainingImages(examples, 16, drop_last=False)  # the last batch is smaller
    changes = {"discriminator_steps": 2} if variant.startswith("gan") else {}
    found = []
    for graphs in (False, True):
        trained = learners(variant, graphs, **changes)
        for _ in range(3):
            Population(data, execution).run_epoch(trained)
        found.append([learner.pop_metrics() for learner in trained])
    assert caplog.text == ""
    for plain, recorded in zip(*found, strict=True):
        assert recorded == pytest.approx(plain, rel=0.02, abs=0.02)


def test_a_step_that_waits_for_the_device_is_not_recorded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    total = torch.zeros((), device="cuda")

    def run(batch: Batch, draws: Any, due: Any) -> None:
        total.add_(batch.images.sum().item())

    step = StepGraphs(run, lambda: [total])
    for _ in range(4):
        step(Batch.of(torch.ones(3, device="cuda")), {}, (True,))
    assert float(total) == 12.0
    assert "not recorded" in caplog.text


def test_a_recording_that_misses_something_is_found_out(caplog: pytest.LogCaptureFixture) -> None:
    total = torch.zeros((), device="cuda")
    calls = []

    def run(batch: Batch, draws: Any, due: Any) -> None:
        calls.append(1)  # a replay does not come here
        total.add_(float(len(calls)))

    step = StepGraphs(run, lambda: [total])
    for _ in range(3):
        step(Batch.of(torch.ones(3, device="cuda")), {}, (True,))
    assert "computes something else" in caplog.text


def test_a_step_waits_for_nothing(variant: str) -> None:
    learner = learners(variant, graphs=False)[0]
    batch = Batch(*(part.cuda() for part in some_batch(16)))
    learner.step(batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        learner.step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
