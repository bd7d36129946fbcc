"""One trial, one result: on one worker or two, and whatever the order things are asked for."""

from copy import deepcopy

import pytest
import torch
from support.models import (
    make_learner,
    make_model,
    some_batch,
    some_images,
)

from gen_models import Adam, Batch, Learner
from gen_models.training.distributed import fingerprint
from gen_models.training.draws import STEPS_AT_ONCE


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
