"""What a GPU must not change: recorded steps are the steps, a step waits for nothing, and what is
computed there is what the CPU computes. That the families' contract and all else hold on a GPU is
tested where it is tested for the CPU, by the fixture `device`."""

from copy import deepcopy
from dataclasses import asdict, astuple
from typing import Any

import pytest
import torch
from support.models import (
    SPEC,
    VARIANTS,
    assert_equal_states,
    default_dtype,
    make_learner,
    make_model,
    make_networks,
    some_batch,
    some_images,
    some_pixels,
)
from torch import Generator

import gen_models
from gen_models import Batch, Learner
from gen_models.core.contract import BoundsLikelihood, Draws
from gen_models.core.rng import seeded
from gen_models.fused.trainer import FusedTrainer
from gen_models.metrics import (
    Moments,
    Neighbours,
    PCAFeatures,
    compute_prdc,
    estimate_likelihood,
    frechet_distance,
    kernel_distance,
)
from gen_models.training.batches import TrainingImages
from gen_models.training.cuda_graphs import StepGraphs
from gen_models.training.precision import Precision

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
            FusedTrainer(data, execution).run_epoch(trained)
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


class SameDraws(Learner):
    """Draws what it would on the CPU in float32, wherever it is and in whatever precision."""

    def draws(self, num: int, step_count: int) -> Draws:
        with default_dtype(torch.float32):
            generator = seeded(Generator(), self.seed, "draws", step_count)
            drawn = self.model.draws(num, generator)
        dtype = torch.get_default_dtype()
        return {name: numbers.to(self.device, dtype) for name, numbers in drawn.items()}


def after_some_steps(variant: str, device: str, dtype: torch.dtype) -> Learner:
    """A learner that begins with the same weights and sees the same images and draws, on any
    device and in any precision."""
    start, batch = make_learner(variant), some_batch(32, device=device)
    with default_dtype(dtype):
        learner = SameDraws(
            start.model, start.optim, seed=0, steps_per_epoch=start.steps_per_epoch, device=device
        )
        learner.load_state_dict(start.state_dict())
        for _ in range(6):
            learner.step(Batch(batch.images.to(dtype), batch.labels))
    return learner


@pytest.mark.usefixtures("full_precision")
def test_steps_in_double_precision_are_the_cpu_s(variant: str) -> None:
    cpu, gpu = (after_some_steps(variant, device, torch.float64) for device in ("cpu", "cuda"))
    assert gpu.pop_metrics() == pytest.approx(cpu.pop_metrics(), rel=1e-8, abs=1e-8)
    for expected, found in zip(cpu._tensors(), gpu._tensors(), strict=True):
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.usefixtures("full_precision")
def test_steps_in_single_precision_are_near_the_cpu_s_in_double(variant: str) -> None:
    exact = after_some_steps(variant, "cpu", torch.float64)
    found = after_some_steps(variant, "cuda", torch.float32)
    assert found.pop_metrics() == pytest.approx(exact.pop_metrics(), rel=1e-4, abs=1e-4)
    # Where a gradient is little more than rounding, Adam makes a whole step of it: weights are
    # compared by how far they have come, and on a CPU that differs by up to 1 %.
    start = make_learner(variant)
    for name, network in exact.networks.items():
        for key, value in network.state_dict().items():
            began = start.networks[name].state_dict()[key].double()
            other = found.networks[name].state_dict()[key].cpu().double()
            end = value.double()
            assert (other - end).norm() <= 0.05 * (end - began).norm() + 1e-6 * end.norm(), key


@pytest.mark.parametrize("members", [1, 3])
def test_in_bfloat16_each_epoch_is_near_that_in_float32(variant: str, members: int) -> None:
    full, reduced = (curves(variant, precision, members) for precision in PRECISIONS)
    assert full != reduced
    for expected, found in zip(full, reduced, strict=True):
        assert found == pytest.approx(expected, rel=0.1, abs=0.1)


PRECISIONS: tuple[Precision, Precision] = ("fp32", "bf16")


def curves(variant: str, precision: Precision, members: int) -> list[dict[str, float]]:
    """The metrics of each member in each of three epochs, of several members trained as one."""
    family, _ = VARIANTS[variant]
    model, optim = make_model(variant), gen_models.family(family).Optim()
    data = TrainingImages(some_pixels(170, "cuda"), 16, drop_last=True)
    trained = [
        Learner(model, optim, seed=seed, steps_per_epoch=10, device="cuda", precision=precision)
        for seed in range(members)
    ]
    found = []
    for _ in range(3):
        FusedTrainer(data, "vectorised").run_epoch(trained)
        found += [learner.pop_metrics() for learner in trained]
    return found


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("graphs", [False, True])
def test_resumed_is_uninterrupted_bit_for_bit(
    variant: str, graphs: bool, caplog: pytest.LogCaptureFixture
) -> None:
    data = TrainingImages(some_pixels(170, "cuda"), 16, drop_last=False)
    whole, part, resumed = (learners(variant, graphs)[0] for _ in range(3))
    population = FusedTrainer(data, "in_turn")
    population.run_epoch([whole, part])
    resumed.load_state_dict(deepcopy(part.state_dict()))
    for _ in range(2):
        population.run_epoch([whole, resumed])
    assert_equal_states(whole.state_dict(), resumed.state_dict())
    assert caplog.text == ""  # nothing was left unrecorded


def test_distances_are_the_cpu_s() -> None:
    found = [distances(device) for device in ("cpu", "cuda")]
    assert found[1] == pytest.approx(found[0], rel=1e-9)


def distances(device: str) -> list[float]:
    """Of images of two kinds in the space of their principal components, in float64."""
    real, other = some_images(300).double(), some_images(400, seed=1).double().sqrt()
    space = PCAFeatures.of("pca", real.to(device), dim=8)
    a, b = space(real.to(device)), space(other.to(device))
    found = [
        frechet_distance(Moments.of(a), Moments.of(b)),
        *astuple(kernel_distance(a, b)),
        *astuple(compute_prdc(Neighbours.of(a), b)),
    ]
    return [float(value) for value in found]


@pytest.mark.usefixtures("float64", "cpu_noise")
def test_likelihoods_are_the_cpu_s(variant: str) -> None:
    model = make_model(variant)
    if not isinstance(model, BoundsLikelihood):
        pytest.skip("has no likelihood")
    networks = make_networks(model)
    found = []
    for device in ("cpu", "cuda"):
        own = {name: deepcopy(network).to(device) for name, network in networks.items()}
        images, labels = some_batch(50, device=device)
        batch = Batch(images.round().double(), labels)
        found.append(asdict(estimate_likelihood(model, own, batch, num_samples=300)))
    assert found[1] == pytest.approx(found[0], rel=1e-9)
