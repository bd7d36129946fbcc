"""The family contract, held for every family and architecture: a new file in `gen_models/` is
tested by being there."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from conftest import (
    FAMILIES,
    SPEC,
    VARIANTS,
    assert_equal_states,
    make_learner,
    make_model,
    make_networks,
    needs,
    on_device,
    skip_if_unfittable,
    some_batch,
)
from torch import Generator

import gen_models
from gen_models import core
from gen_models.core import Batch, DataSpec, InputError
from gen_models.core.config import from_dict
from gen_models.core.contract import (
    Adam,
    BoundsLikelihood,
    Encodes,
    FitsSampler,
    Objective,
    Reconstructs,
    is_conditional,
)
from gen_models.core.sampling import sample


@pytest.mark.parametrize("family", FAMILIES)
def test_configs_survive_json(family: str) -> None:
    module = gen_models.family(family)
    for config in (module.Config(), module.Optim()):
        assert from_dict(type(config), json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize("family", FAMILIES)
def test_config_refuses_nonsense(family: str) -> None:
    config = gen_models.family(family).Config()
    with pytest.raises(InputError, match=r"latent_dim = -1: expected an integer"):
        replace(config, latent_dim=-1)
    with pytest.raises(InputError, match="no_such"):
        from_dict(type(config), {"no_such": 1})


def test_unknown_family_names_the_known() -> None:
    with pytest.raises(InputError, match=r"unknown family 'vea' \(did you mean 'vae'"):
        gen_models.family("vea")


def test_objectives_update_every_trained_network_once(variant: str) -> None:
    model = make_model(variant)
    networks = model.networks()
    updated = [name for objective in model.objectives() for name in objective.networks]
    with_parameters = [n for n, network in networks.items() if list(network.parameters())]
    assert sorted(updated) == sorted(with_parameters)


def test_each_objective_has_an_optimizer(variant: str) -> None:
    family, _ = VARIANTS[variant]
    optim = gen_models.family(family).Optim()
    for objective in make_model(variant).objectives():
        own = optim if isinstance(optim, Adam) else getattr(optim, objective.name)
        assert isinstance(own, Adam)


def test_losses_are_finite_scalars_and_reach_their_networks_alone(
    variant: str, device: torch.device
) -> None:
    model = make_model(variant)
    networks = on_device(model.networks(), device)
    batch = some_batch(16, device=device)
    for objective in model.objectives():
        _freeze_all_but(objective, networks)
        draws = model.draws(16, Generator(device).manual_seed(0))
        loss, metrics = objective.loss(networks, batch, draws, 0.0)
        assert loss.shape == () and torch.isfinite(loss)
        assert metrics and all(m.shape == () and torch.isfinite(m) for m in metrics.values())
        loss.backward()
        reached = {n for n, net in networks.items() if any(_touched(p) for p in net.parameters())}
        assert reached == set(objective.networks)
        for network in networks.values():
            network.zero_grad()


def _freeze_all_but(objective: Objective, networks: dict[str, torch.nn.Module]) -> None:
    for name, network in networks.items():
        network.requires_grad_(name in objective.networks)


def _touched(parameter: torch.nn.Parameter) -> bool:
    return parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)


@pytest.mark.usefixtures("deterministic")
def test_loss_uses_no_randomness_but_its_draws(variant: str, device: torch.device) -> None:
    model = make_model(variant)
    networks, batch = on_device(model.networks(), device), some_batch(16, device=device)
    for objective in model.objectives():
        draws = model.draws(16, Generator(device).manual_seed(0))
        torch.manual_seed(1)
        first = objective.loss(networks, batch, draws, 0.0)[0]
        torch.manual_seed(2)
        assert torch.equal(first, objective.loss(networks, batch, draws, 0.0)[0])


def test_draws_are_rows_of_a_batch_on_their_generator(variant: str, device: torch.device) -> None:
    model = make_model(variant)
    first = model.draws(12, Generator(device).manual_seed(3))
    again = model.draws(12, Generator(device).manual_seed(3))
    assert all(len(value) == 12 for value in first.values())
    assert all(value.device.type == device.type for value in first.values())
    assert all(torch.equal(value, again[name]) for name, value in first.items())


POINTS = DataSpec((2,), 8)


def some_points(num: int, device: torch.device) -> Batch:
    """Float (N, 2) in [0, 1], on a circle."""
    angle = torch.linspace(0, 6, num, device=device)
    return Batch.of(0.5 + 0.4 * torch.stack([angle.cos(), angle.sin()], dim=1))


@needs("safetensors")
@pytest.mark.usefixtures("deterministic")
def test_points_of_the_plane_are_data_too(
    variant: str, device: torch.device, tmp_path: Path
) -> None:
    family, settings = VARIANTS[variant]
    if settings["arch"] == "conv":
        with pytest.raises(InputError, match=r"arch = 'conv': expected mlp, for the data are of"):
            make_model(variant, POINTS).networks()
        return
    learner = make_learner(variant, spec=POINTS, device=device)
    points = some_points(64, device)
    for _ in range(30):
        learner.step(points)
    assert all(math.isfinite(value) for value in learner.pop_metrics().values())
    core.save_checkpoint(tmp_path, family, gen_models.family(family).Optim(), learner)
    loaded = core.load_checkpoint(tmp_path)
    assert loaded.model.spec == POINTS
    samples = sample(loaded.model, on_device(loaded.networks, device), 9, 2, device)
    assert samples.shape == (9, 2)
    expected = sample(learner.model, learner.sampling_networks(), 9, 2, device)
    assert torch.equal(samples, expected)
    assert float(samples.min()) >= 0.0 and float(samples.max()) <= 1.0


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (1, 28, 28), (3, 32, 32), (1, 12, 20)])
def test_samples_have_the_data_s_shape_and_range(
    variant: str, shape: tuple[int, int, int], device: torch.device
) -> None:
    spec = DataSpec(shape, 10)
    model = make_model(variant, spec)
    networks = make_networks(model, device)
    images = sample(model, networks, 5, 0, device)
    assert images.shape == (5, *shape)
    assert float(images.min()) >= 0.0 and float(images.max()) <= 1.0
    if isinstance(model, Reconstructs):
        with torch.no_grad():
            again = model.reconstruct(networks, Batch.of(images))
        assert again.shape == images.shape
        assert float(again.min()) >= 0.0 and float(again.max()) <= 1.0


@torch.no_grad()
@pytest.mark.usefixtures("deterministic")
def test_what_encodes_gives_a_code_an_image(variant: str, device: torch.device) -> None:
    model = make_model(variant)
    networks, batch = make_networks(model, device), some_batch(5, device=device)
    if isinstance(model, Encodes):
        codes = model.encode(networks, batch)
        assert codes.shape == (5, model.config.latent_dim)
        assert torch.equal(codes, model.encode(networks, batch))
    if isinstance(model, BoundsLikelihood):
        terms = model.log_terms(networks, batch)
        for found in terms(torch.randn(3, 5, model.noise_dim, device=device)):
            assert found.shape == (3, 5) and bool(torch.isfinite(found).all())


def test_samples_follow_from_their_position(variant: str, device: torch.device) -> None:
    model = make_model(variant)
    networks = make_networks(model, device)
    many, few = (sample(model, networks, num, 0, device) for num in (300, 7))
    torch.testing.assert_close(many[:7], few)
    assert not torch.equal(few, sample(model, networks, 7, 1, device))


def test_validation_metrics_are_finite_scalars(variant: str, device: torch.device) -> None:
    model = make_model(variant)
    networks, batch = make_networks(model, device), some_batch(9, device=device)
    found = model.validate(networks, batch, model.draws(9, Generator(device)))
    assert all(value.shape == () and torch.isfinite(value) for value in found.values())


def test_thirty_steps_stay_finite_and_learn(variant: str, device: torch.device) -> None:
    learner = make_learner(variant, device=device)
    batch = some_batch(64, device=device)
    networks = learner.sampling_networks()
    draws = learner.model.draws(64, Generator(device).manual_seed(0))
    before = learner.model.validate(networks, batch, draws)
    for _ in range(30):
        learner.step(batch)
    assert all(math.isfinite(value) for value in learner.pop_metrics().values())
    after = learner.model.validate(learner.sampling_networks(), batch, draws)
    for name, sign in (("elbo", 1), ("squared_error", -1)):
        if name in before:
            assert sign * after[name] > sign * before[name]


@needs("safetensors")
@pytest.mark.usefixtures("deterministic")
def test_checkpoint_gives_the_same_samples_and_goes_on_the_same(
    variant: str, device: torch.device, tmp_path: Path
) -> None:
    from gen_models.core.checkpoint import restore_learner

    family, _ = VARIANTS[variant]
    learner, batch = make_learner(variant, device=device), some_batch(64, device=device)
    for _ in range(5):
        learner.step(batch)
    if isinstance(learner.model, FitsSampler):
        skip_if_unfittable(learner.model)
        learner.model.fit_sampler(learner.sampling_networks(), [batch], 0)
    core.save_checkpoint(tmp_path, family, gen_models.family(family).Optim(), learner)

    loaded = core.load_checkpoint(tmp_path)
    expected = sample(learner.model, learner.sampling_networks(), 6, 2, device)
    networks = on_device(loaded.networks, device)
    assert torch.equal(sample(loaded.model, networks, 6, 2, device), expected)

    other = make_learner(variant, seed=99, device=device)
    restore_learner(tmp_path, other)
    for _ in range(5):
        learner.step(batch)
        other.step(batch)
    assert_equal_states(learner.state_dict(), other.state_dict())


@needs("safetensors")
def test_a_broken_checkpoint_is_named(variant: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint"):
        core.load_checkpoint(tmp_path)
    family, _ = VARIANTS[variant]
    core.save_checkpoint(
        tmp_path, family, gen_models.family(family).Optim(), make_learner(variant)
    )
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(InputError, match="a broken checkpoint"):
        core.load_checkpoint(tmp_path)


@needs("safetensors")
def test_sampler_is_exported_whole(variant: str, tmp_path: Path) -> None:
    family, _ = VARIANTS[variant]
    core.save_checkpoint(
        tmp_path, family, gen_models.family(family).Optim(), make_learner(variant)
    )
    sampler, in_features = core.load_sampler(tmp_path)
    batch = torch.export.Dim("batch")
    exported = torch.export.export(
        sampler, (torch.zeros(2, in_features),), dynamic_shapes=({0: batch},)
    )
    inputs = torch.randn(7, in_features)
    if is_conditional(make_model(variant)):
        inputs[:, -1] = torch.arange(7)
    torch.testing.assert_close(exported.module()(inputs), sampler(inputs))


def test_a_learner_leaves_the_global_generators_alone(variant: str, device: torch.device) -> None:
    def drawn() -> list[torch.Tensor]:
        return [torch.rand(3), torch.rand(3, device=device)]

    torch.manual_seed(0)
    expected = drawn()
    torch.manual_seed(0)
    learner = make_learner(variant, device=device)
    learner.step(some_batch(8, device=device))
    assert all(map(torch.equal, drawn(), expected))


def test_the_spec_counts_values() -> None:
    assert SPEC.num_values == 64
    assert POINTS.num_values == 2
