"""One trial, one result: on one worker or two, and whatever the order things are asked for."""

import os
import socket
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from conftest import (
    VARIANTS,
    make_evaluator,
    make_learner,
    make_model,
    skip_if_unfittable,
    some_batch,
    some_images,
    some_pixels,
)

from gen_models.core import Adam, Batch, Learner
from gen_models.core.data import unit
from gen_models.core.rng import derive_seed, permutation
from gen_models.training.batches import Share, TrainingImages, num_batches
from gen_models.training.distributed import check_replicas, fingerprint
from gen_models.training.draws import STEPS_AT_ONCE
from gen_models.training.memory import footprint
from pipelines.evaluation.validation import metric_names

NUM, BATCH, EPOCHS = 72, 16, 2

# Trained on two workers: every variant, and losses that take rows together.
CASES = {variant: (variant, {}) for variant in VARIANTS} | {
    f"{variant}-together": (variant, {"pac": 2, "minibatch_std": 2, "gradient_penalty": 3.0})
    for variant in ("gan-mlp", "gan-conv")
}


def _train(case: str, rank: int, world: int) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Two epochs in float64, the last batch of each with eight rows; metrics, and weights by
    name."""
    variant, changes = CASES[case]
    learner, pixels = make_learner(variant, **changes), some_pixels(NUM)
    data = TrainingImages(pixels, BATCH, drop_last=False)
    for epoch in range(1, EPOCHS + 1):
        for batch, share in data.batches(0, epoch, rank, world):
            learner.step(batch, share)
    metrics = learner.pop_metrics()
    check_replicas(learner.networks)
    evaluator = make_evaluator(pixels, pixels)
    metrics |= evaluator.metrics([learner.model], [learner.sampling_networks()])[0]
    states = {n: net.state_dict() for n, net in learner.networks.items()}
    weights = {f"{n}.{k}": v.clone() for n, state in states.items() for k, v in state.items()}
    return metrics, weights


def _worker(rank: int, world: int, port: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    for case in CASES:
        torch.save(_train(case, rank, world), Path(folder) / f"{case}.{rank}.pt")
    layer = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(layer.weight, float(rank))
    with pytest.raises(RuntimeError) as raised:
        check_replicas({"layer": layer})
    (Path(folder) / f"differing.{rank}").write_text(str(raised.value))
    dist.barrier()  # nobody leaves while another still talks
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads can abort a process that Python takes apart


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two workers computed of every variant."""
    folder = tmp_path_factory.mktemp("two_workers")
    mp.spawn(_worker, (2, _free_port(), str(folder)), nprocs=2)
    return folder


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("case", CASES)
def test_two_workers_compute_what_one_does(case: str, two_workers: Path) -> None:
    (metrics, weights), (other_metrics, other) = (
        torch.load(two_workers / f"{case}.{rank}.pt", weights_only=True) for rank in (0, 1)
    )
    assert metrics == other_metrics
    assert all(torch.equal(weights[name], other[name]) for name in weights)
    alone_metrics, alone = _train(case, 0, 1)
    for name, value in alone_metrics.items():
        assert metrics[name] == pytest.approx(value, rel=1e-8), name
    for name, value in alone.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-8, atol=1e-8, msg=name)


def test_differing_replicas_are_noticed(two_workers: Path) -> None:
    for rank in (0, 1):
        assert "the workers' networks differ" in (two_workers / f"differing.{rank}").read_text()


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_workers_share_each_image_once(world: int, drop_last: bool, device: torch.device) -> None:
    numbered = torch.arange(50, dtype=torch.uint8, device=device).view(50, 1, 1, 1)
    data = TrainingImages(Batch.of(numbered), 12, drop_last)
    seen = [
        torch.cat([batch.images for batch, _ in data.batches(7, 3, rank, world)])
        for rank in range(world)
    ]
    everything = (255 * torch.cat(seen)).round().flatten().tolist()
    assert len(everything) == len(set(everything)) == (48 if drop_last else 50)
    assert num_batches(50, 12, drop_last) == (4 if drop_last else 5)


@pytest.mark.parametrize("world", [2, 3])
def test_workers_share_the_binarised_batch_of_one(world: int, device: torch.device) -> None:
    data = TrainingImages(some_pixels(50, device), 12, drop_last=False, binarise=True)
    alone = [batch for batch, _ in data.batches(7, 3)]
    shared = [[batch for batch, _ in data.batches(7, 3, rank, world)] for rank in range(world)]
    for batch, parts in zip(alone, zip(*shared, strict=True), strict=True):
        assert torch.equal(batch.images, torch.cat([part.images for part in parts]))
        assert torch.equal(batch.labels, torch.cat([part.labels for part in parts]))


def test_a_binarised_value_is_1_as_often_as_it_is_bright(device: torch.device) -> None:
    ramp = torch.arange(256, dtype=torch.uint8, device=device)
    images = ramp.view(1, 1, 16, 16).expand(500, 1, 16, 16)
    data = TrainingImages(Batch.of(images), 250, drop_last=False, binarise=True)
    first, second, again, other = (
        torch.cat([batch.images for batch, _ in data.batches(*position)])
        for position in ((0, 1), (0, 2), (0, 1), (1, 1))
    )
    epochs = [first, second]
    assert torch.equal(epochs[0], again)
    halves = epochs[0].split(250)
    for one, another in (epochs, halves, (again, other)):
        assert not torch.equal(one, another)
    drawn = torch.cat([*epochs, other]).flatten(1)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    expected = torch.arange(256, device=device) / 255
    deviation = (expected * (1 - expected) / len(drawn)).sqrt()
    assert bool(((drawn.mean(0) - expected).abs() <= 4.5 * deviation).all())
    assert set(data.seen(3).images.unique().tolist()) == {0, 255}
    assert torch.equal(data.seen(3).images, data.seen(3).images)


def test_pixels_are_divided_and_floats_are_not(device: torch.device) -> None:
    pixels = torch.tensor([[0, 51, 255]], dtype=torch.uint8, device=device)
    floats = torch.tensor([[0.0, 0.2, 1.0]], device=device)
    torch.testing.assert_close(unit(pixels), floats)
    assert torch.equal(unit(floats), floats)
    points = TrainingImages(Batch.of(torch.rand(20, 2, device=device)), 8, drop_last=True)
    order = points.order(0, 1)
    batch, _ = next(iter(points.batches(0, 1)))
    assert torch.equal(batch.images, points.examples.images[order[:8]])


def test_shares_cover_a_batch() -> None:
    shares = [Share.of(7, rank, 3) for rank in range(3)]
    assert [s.size for s in shares] == [2, 2, 3]
    assert [s.start for s in shares[1:]] == [s.stop for s in shares[:-1]]


def test_each_epoch_has_an_order_of_its_own() -> None:
    assert torch.equal(permutation(100, 0, 1), permutation(100, 0, 1))
    assert not torch.equal(permutation(100, 0, 1), permutation(100, 0, 2))
    assert not torch.equal(permutation(100, 0, 1), permutation(100, 1, 1))
    assert derive_seed(0, "draws", 1) != derive_seed(0, "order", 1)


def test_the_draws_of_a_step_follow_from_its_position_alone(
    variant: str, device: torch.device
) -> None:
    changes = {"noise_std": 0.1} if variant.startswith("autoencoder") else {}
    model, optim = make_model(variant, **changes), make_learner(variant).optim
    steps = STEPS_AT_ONCE + 3  # an epoch ends in the middle of a block
    learner, other = (
        Learner(model, optim, seed=0, steps_per_epoch=steps, device=device) for _ in range(2)
    )
    asked = [(16, step) for step in range(2 * STEPS_AT_ONCE)] + [(9, 3), (16, 3)]
    forward = {key: learner.draws(*key) for key in asked}
    backward = {key: other.draws(*key) for key in reversed(asked)}
    for key, draws in forward.items():
        for name, numbers in draws.items():
            assert torch.equal(numbers, backward[key][name])
            assert len(numbers) == key[0]
    name = next(iter(forward[16, 0]))
    drawn = [tuple(draws[name][:9].flatten().tolist()) for draws in forward.values()]
    assert len(set(drawn)) == len(asked) - 1  # one is asked for twice


@pytest.mark.usefixtures("deterministic")
def test_another_seed_is_another_result(variant: str, device: torch.device) -> None:
    a, b, c = (make_learner(variant, seed, device=device) for seed in (0, 0, 1))
    for learner in (a, b, c):
        learner.step(some_batch(16, device=device))
    assert fingerprint(a.networks) == fingerprint(b.networks) != fingerprint(c.networks)


@pytest.mark.usefixtures("deterministic")
def test_metrics_are_means_over_images(variant: str, device: torch.device) -> None:
    learner, batch = make_learner(variant, device=device), some_batch(24, device=device)
    learner.step(batch.rows(slice(16)))
    first = learner.pop_metrics()
    learner.step(batch.rows(slice(16, 24)))
    second = learner.pop_metrics()
    again = make_learner(variant, device=device)
    again.step(batch.rows(slice(16)))
    again.step(batch.rows(slice(16, 24)))
    for name, value in again.pop_metrics().items():
        assert value == pytest.approx((16 * first[name] + 8 * second[name]) / 24, rel=1e-5)
    assert learner.pop_metrics() == {}


@pytest.mark.usefixtures("deterministic")
def test_validation_reports_what_it_says_and_the_same_twice(
    variant: str, device: torch.device
) -> None:
    learner, pixels = make_learner(variant, device=device), some_pixels(90, device)
    skip_if_unfittable(learner.model)
    evaluator = make_evaluator(pixels, pixels)
    (found,) = evaluator.metrics([learner.model], [learner.sampling_networks()])
    assert sorted(found) == sorted(metric_names(learner.model, "pca"))
    assert evaluator.metrics([learner.model], [learner.sampling_networks()]) == [found]


def test_the_average_follows_and_is_what_is_sampled(device: torch.device) -> None:
    learner = make_learner("gan-mlp", device=device)
    for _ in range(20):
        learner.step(some_batch(16, device=device))
    averaged = learner.sampling_networks()["generator"].state_dict()
    live = learner.networks["generator"].state_dict()
    assert any(not torch.equal(averaged[name], live[name]) for name in live)
    assert fingerprint({"d": learner.sampling_networks()["discriminator"]}) == fingerprint(
        {"d": learner.networks["discriminator"]}
    )


@pytest.mark.usefixtures("float64")
def test_the_learning_rate_falls_as_torch_s_cosine_does(device: torch.device) -> None:
    model = make_model("vae-mlp")
    adam = Adam(lr=1e-2, decay_epochs=1.5, weight_decay=0.1)
    learner = Learner(model, adam, seed=0, steps_per_epoch=4, device=device)
    networks = {name: deepcopy(network) for name, network in learner.networks.items()}
    parameters = [p for network in networks.values() for p in network.parameters()]
    theirs = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, T_max=6)
    batch = Batch.of(some_images(16, device=device).double())
    for step in range(6):
        loss, _ = model.objectives()[0].loss(networks, batch, learner.draws(16, step), 0.0)
        theirs.zero_grad()
        loss.backward()
        theirs.step()
        schedule.step()
        learner.step(batch)
    for name, network in learner.networks.items():
        for ours, value in zip(network.parameters(), networks[name].parameters(), strict=True):
            torch.testing.assert_close(ours, value, rtol=1e-6, atol=1e-8)
    before = fingerprint(learner.networks)
    learner.step(batch)
    assert fingerprint(learner.networks) == before


def test_discriminator_steps_are_counted(device: torch.device) -> None:
    learner = make_learner("gan-mlp", device=device, discriminator_steps=3)
    generator = fingerprint({"g": learner.networks["generator"]})
    changed = []
    for _ in range(6):
        learner.step(some_batch(16, device=device))
        now = fingerprint({"g": learner.networks["generator"]})
        changed.append(now != generator)
        generator = now
    assert changed == [False, False, True, False, False, True]


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
    more = footprint(learner.model, learner.optim, batch_size=32)
    assert found.step < more.step <= 2 * found.step and found.step > 16 * 64 * 4


@pytest.mark.slow
def test_a_compiled_learner_learns_the_same(device: torch.device) -> None:
    found = []
    for compiled in (False, True):
        learner = Learner(
            make_model("vae-mlp", kl_warmup_epochs=0.5),
            Adam(ema_decay=0.9),
            seed=0,
            steps_per_epoch=10,
            device=device,
            compiled=compiled,
        )
        for _ in range(6):
            learner.step(some_batch(16, device=device))
        found.append(learner.pop_metrics())
    assert found[1] == pytest.approx(found[0], rel=1e-4)
