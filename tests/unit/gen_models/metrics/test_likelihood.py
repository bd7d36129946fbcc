"""The importance-weighted bound, as a metric and as a training loss, against closed forms."""

from math import log
from typing import Any

import pytest
import torch
from support.models import Device, make_model, make_networks, some_images
from torch import Generator, Tensor, nn
from torch.distributions import Bernoulli, MultivariateNormal, Normal
from torch.nn.functional import binary_cross_entropy_with_logits

from gen_models import Batch, DataSpec, InputError
from gen_models.blocks import bernoulli_image_nll
from gen_models.core.contract import Draws, Networks
from gen_models.core.networks import build_networks
from gen_models.fused.stacking import Ensemble
from gen_models.metrics import Likelihood, estimate_likelihood, likelihood_sums
from gen_models.vae import Config, Model

pytestmark = pytest.mark.usefixtures("float64")
STD, DIM = 0.4, 3
SPEC = DataSpec((1, 4, 4))
MODEL = Model(Config(latent_dim=DIM, likelihood="gaussian", decoder_std=STD), SPEC)


def directions() -> Tensor:
    """(16, DIM): orthogonal, so that the posterior's covariance is diagonal; the last is 0."""
    square = torch.randn(16, DIM, generator=Generator().manual_seed(0))
    return torch.linalg.qr(square).Q * torch.tensor([1.5, 0.7, 0.0])


def linear_networks(shift: float = 0.0, device: Device = "cpu") -> dict[str, nn.Module]:
    """p(x|z) = N(Wz + 0.3, STD²) and its exact posterior, of which the means of the first two
    dimensions are then moved by `shift`."""
    weights = directions()
    variance = 1 / (1 + weights.square().sum(0) / STD**2)
    encoder, decoder = nn.Linear(16, 2 * DIM), nn.Linear(DIM, 16)
    to_mean = variance[:, None] * weights.T / STD**2
    moved = shift * torch.tensor([1.0, 1.0, 0.0])
    with torch.no_grad():
        decoder.weight.copy_(weights)
        decoder.bias.fill_(0.3)
        encoder.weight.zero_()[::2] = to_mean
        encoder.bias[::2] = moved - 0.3 * to_mean.sum(1)
        encoder.bias[1::2] = variance.log()
    encoder_network = nn.Sequential(nn.Flatten(), encoder)
    decoder_network = nn.Sequential(decoder, nn.Unflatten(1, SPEC.shape))
    networks: dict[str, nn.Module] = {"encoder": encoder_network, "decoder": decoder_network}
    return {name: network.eval().to(device) for name, network in networks.items()}


def images(num: int = 50) -> Tensor:
    """Drawn from the linear model."""
    generator = Generator().manual_seed(1)
    z = torch.randn(num, DIM, generator=generator)
    noise = STD * torch.randn(num, 16, generator=generator)
    return (z @ directions().T + 0.3 + noise).view(num, *SPEC.shape)


def data(device: Device = "cpu") -> Batch:
    return Batch.of(images().to(device))


def true_nll() -> float:
    covariance = directions() @ directions().T + STD**2 * torch.eye(16)
    density = MultivariateNormal(torch.full((16,), 0.3), covariance)
    return -float(density.log_prob(images().flatten(1)).mean())


def test_with_the_exact_posterior_one_sample_gives_the_likelihood(device: torch.device) -> None:
    networks = linear_networks(device=device)
    found = estimate_likelihood(MODEL, networks, data(device), num_samples=3)
    assert found.nll == pytest.approx(true_nll(), rel=1e-9)
    assert found.elbo == pytest.approx(-true_nll(), rel=1e-9)
    assert found.bits_per_dim == pytest.approx(true_nll() / (16 * log(2)), rel=1e-9)
    assert found.reconstruction + found.kl == pytest.approx(found.nll, rel=1e-9)
    assert (found.num_images, found.num_samples) == (50, 3)
    assert found.active_units == 2


@pytest.mark.usefixtures("cpu_noise")  # with other noise, 5000 samples can do worse than 100
def test_the_bound_grows_with_the_samples_to_the_likelihood(device: torch.device) -> None:
    networks = linear_networks(0.3, device)
    each = {
        num: estimate_likelihood(MODEL, networks, data(device), num_samples=num)
        for num in (1, 10, 100, 5000)
    }
    nlls = [found.nll for found in each.values()]
    assert nlls == sorted(nlls, reverse=True)
    assert nlls[0] == pytest.approx(-each[1].elbo, rel=1e-9)
    assert nlls[0] > true_nll() + 0.5
    assert nlls[-1] == pytest.approx(true_nll(), abs=0.01)
    # KL(q || posterior) = shift² / (2 variance) in each moved dimension.
    gap = sum(0.5 * 0.3**2 * (1 + w**2 / STD**2) for w in (1.5, 0.7))
    assert -each[5000].elbo == pytest.approx(true_nll() + gap, abs=0.02)


def test_reconstructions_are_judged_at_the_posterior_mean(device: torch.device) -> None:
    networks, batch = linear_networks(device=device), images().to(device)
    found = estimate_likelihood(MODEL, networks, Batch.of(batch), num_samples=1)
    with torch.no_grad():
        error = MODEL.reconstruct(networks, Batch.of(batch)) - batch
    expected = 0.5 * float(error.square().sum()) / len(batch)
    assert found.squared_error == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("max_rows", [1, 90, 5000])
def test_the_pieces_do_not_matter(max_rows: int, device: torch.device) -> None:
    networks = linear_networks(0.5, device)
    whole = likelihood_sums(MODEL, networks, data(device), num_samples=300)
    found = likelihood_sums(MODEL, networks, data(device), num_samples=300, max_rows=max_rows)
    torch.testing.assert_close(found.totals, whole.totals, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("world", [2, 5])
def test_workers_sums_add_up(world: int, device: torch.device) -> None:
    networks = linear_networks(0.5, device)
    whole = likelihood_sums(MODEL, networks, data(device), num_samples=20)
    parts = [
        likelihood_sums(MODEL, networks, data(device), num_samples=20, rank=rank, world=world)
        for rank in range(world)
    ]
    total = sum(parts[1:], parts[0])
    for found, expected in zip(total.tensors(), whole.tensors(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-9)
    assert Likelihood.of(total, MODEL, 20).active_units == 2


@pytest.mark.usefixtures("deterministic")
def test_noise_follows_from_the_seed_and_the_position(device: torch.device) -> None:
    networks = linear_networks(0.5, device)
    first, other = (
        likelihood_sums(MODEL, networks, data(device), num_samples=20, seed=seed).totals
        for seed in (0, 1)
    )
    assert not torch.equal(first, other)
    again = likelihood_sums(MODEL, networks, data(device), num_samples=20).totals
    assert torch.equal(first, again)
    same = Batch.of(images().to(device)[:1].expand(40, -1, -1, -1))
    parts = [
        likelihood_sums(MODEL, networks, same.rows(slice(num)), num_samples=20)
        for num in (1, 20, 40)
    ]
    one, tile, two_tiles = (part.totals for part in parts)
    assert not torch.allclose(tile, 20 * one)
    assert not torch.allclose(two_tiles, 2 * tile)


def test_what_has_no_likelihood_or_is_in_training_is_refused() -> None:
    gan = make_model("gan-mlp")
    networks = make_networks(gan)
    with pytest.raises(InputError, match=r"gen_models\.gan.*expected a family with a likelihood"):
        estimate_likelihood(gan, networks, Batch.of(some_images(2)))
    training = linear_networks()
    training["decoder"].train()
    with pytest.raises(InputError, match=r"'decoder'.*expected networks in evaluation mode"):
        estimate_likelihood(MODEL, training, data())


@torch.no_grad()
@pytest.mark.parametrize("variant", ["vae-mlp", "vae-conv", "vae-iwae"])
def test_what_pads_a_narrower_member_adds_nothing(variant: str, device: torch.device) -> None:
    models = [make_model(variant, latent_dim=dim) for dim in (4, 7)]
    networks = [make_networks(model, device) for model in models]
    batch = some_images(5, device=device).double()

    def terms(model: Any, networks: Networks, draws: Draws) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = model.log_terms(networks, Batch.of(batch))(draws["noise"])
        return found

    def draw(model: Any) -> Draws:
        generator = Generator(device).manual_seed(0)
        shape = (6, 5, model.noise_dim)
        return {"noise": torch.randn(shape, generator=generator, device=device)}

    at_once = Ensemble(models, networks).map(terms, draw)
    for index, (model, own) in enumerate(zip(models, networks, strict=True)):
        for found, expected in zip(at_once, terms(model, own, draw(model)), strict=True):
            assert expected.shape == (6, 5)
            torch.testing.assert_close(found[index], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_terms_are_those_of_torch_distributions(likelihood: str, device: torch.device) -> None:
    model = make_model("vae-mlp", likelihood=likelihood, decoder_std=0.3)
    networks = build_networks(model, device)
    batch = some_images(5, device=device).round().double()
    noise = torch.randn(7, 5, 4, device=device)
    mu, logvar = networks["encoder"](batch).unflatten(1, (-1, 2)).unbind(2)
    posterior = Normal(mu, (0.5 * logvar).exp())
    z = mu + (0.5 * logvar).exp() * noise
    out = networks["decoder"](z.flatten(0, 1)).unflatten(0, (7, 5))
    each = Bernoulli(logits=out) if likelihood == "bernoulli" else Normal(out, 0.3)
    with torch.no_grad():
        log_likelihood, log_ratio = model.log_terms(networks, Batch.of(batch))(noise)
    torch.testing.assert_close(log_likelihood, each.log_prob(batch).flatten(2).sum(2))
    prior = Normal(torch.zeros(4, device=device), torch.ones(4, device=device))
    torch.testing.assert_close(log_ratio, (prior.log_prob(z) - posterior.log_prob(z)).sum(2))


def test_the_iwae_gradient_weighs_samples_by_a_softmax_of_the_log_weights(
    device: torch.device,
) -> None:
    """Burda et al. 2016, equation 14: sum_k w_k / (sum_j w_j) grad log w_k."""
    model = make_model("vae-iwae", importance_samples=6)
    networks = build_networks(model, device)
    batch = some_images(8, device=device).round().double()
    parameters = [p for network in networks.values() for p in network.parameters()]
    draws = model.draws(8, Generator(device).manual_seed(0))
    assert draws["eps"].shape == (8, 6, 4)
    loss, metrics = model.objectives()[0].loss(networks, Batch.of(batch), draws, 0.0)
    gradients = torch.autograd.grad(loss, parameters)

    mu, logvar = networks["encoder"](batch).unflatten(1, (-1, 2)).unbind(2)
    posterior = Normal(mu[:, None], (0.5 * logvar).exp()[:, None])
    z = mu[:, None] + (0.5 * logvar).exp()[:, None] * draws["eps"]
    out = networks["decoder"](z.flatten(0, 1)).unflatten(0, (8, 6))
    prior = Normal(torch.zeros(4, device=device), torch.ones(4, device=device))
    log_prior = prior.log_prob(z)
    log_weights = Bernoulli(logits=out).log_prob(batch[:, None]).flatten(2).sum(2)
    log_weights = log_weights + (log_prior - posterior.log_prob(z)).sum(2)
    bound = (log_weights.exp().mean(1)).log().mean()
    torch.testing.assert_close(loss, -bound)
    torch.testing.assert_close(metrics["iw_bound"], bound)
    torch.testing.assert_close(metrics["elbo"] + metrics["reconstruction"], -metrics["kl"])
    assert bool(metrics["elbo"] < bound)
    surrogate = -(log_weights.softmax(1).detach() * log_weights).sum(1).mean()
    for ours, theirs in zip(gradients, torch.autograd.grad(surrogate, parameters), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("deterministic")
def test_the_kl_weight_tempers_the_importance_weights_alone(device: torch.device) -> None:
    found = []
    for settings in ({}, {"kl_weight": 0.5}, {"kl_weight": 1.0, "kl_warmup_epochs": 4.0}):
        torch.manual_seed(0)
        model = make_model("vae-iwae", **settings)
        draws = model.draws(8, Generator(device).manual_seed(0))
        networks = build_networks(model, device)
        batch = Batch.of(some_images(8, device=device).double())
        found.append(model.objectives()[0].loss(networks, batch, draws, 2.0))
        assert model.validate(networks, batch, draws).keys() == {
            "reconstruction",
            "kl",
            "elbo",
        }
    (_, plain), (half, tempered), (warm, _) = found
    assert plain["iw_bound"] == tempered["iw_bound"]
    torch.testing.assert_close(half, warm)
    assert bool(half < plain["loss"])


def test_free_bits_and_several_samples_are_refused_together() -> None:
    with pytest.raises(InputError, match=r"free_bits = 0\.5: expected 0, because the importance"):
        make_model("vae-mlp", importance_samples=2, free_bits=0.5)


@torch.no_grad()
def test_tanh_networks_begin_as_glorot_says() -> None:
    torch.manual_seed(0)
    config = Config(latent_dim=50, hidden=(200, 200), activation="tanh")
    networks = Model(config, DataSpec((1, 28, 28))).networks()
    layers = [m for n in networks.values() for m in n.modules() if isinstance(m, nn.Linear)]
    sizes = [tuple(layer.weight.T.shape) for layer in layers]
    assert sizes == [(784, 200), (200, 200), (200, 100), (50, 200), (200, 200), (200, 784)]
    for layer, (inputs, outputs) in zip(layers, sizes, strict=True):
        expected = (2 / (inputs + outputs)) ** 0.5
        assert float(layer.weight.std()) == pytest.approx(expected, rel=0.03)
        assert float(layer.bias.abs().max()) == 0.0
    assert sum(isinstance(m, nn.Tanh) for n in networks.values() for m in n.modules()) == 4


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 8, 8), (1, 1, 131)])
def test_the_nll_of_whole_images_is_the_sum_of_torch_s(
    shape: tuple[int, int, int], device: torch.device
) -> None:
    torch.set_default_dtype(torch.float32)
    logits = 20 * torch.randn(4, 6, *shape, generator=Generator().manual_seed(0))
    logits[0] = 90.0
    target = torch.rand(6, *shape, generator=Generator().manual_seed(1))
    logits, target = logits.to(device), target.to(device)
    each = binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction="none")
    torch.testing.assert_close(bernoulli_image_nll(logits, target), each.flatten(2).sum(2))


def test_bfloat16_comes_near(device: torch.device) -> None:
    torch.set_default_dtype(torch.float32)
    model, batch = make_model("vae-mlp"), Batch.of(some_images(30, device=device).round())
    networks = make_networks(model, device)
    full = estimate_likelihood(model, networks, batch, num_samples=50)
    reduced = estimate_likelihood(model, networks, batch, num_samples=50, precision="bf16")
    assert reduced != full
    assert reduced.nll == pytest.approx(full.nll, abs=0.05)
