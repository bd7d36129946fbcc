"""Losses and metrics against closed forms and against other people's code."""

from math import log

import pytest
import torch
from support.models import make_model, needs, some_images
from torch import Generator, nn
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits

from gen_models import Batch, DataSpec, InputError
from gen_models.blocks import MinibatchStd, SpectralConv2d, SpectralLinear, bernoulli_nll, pack
from gen_models.blocks.mixture import GaussianMixture
from gen_models.core.networks import build_networks
from gen_models.gan import discriminator_loss, generator_loss
from gen_models.metrics import Moments, PCAFeatures, frechet_distance


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_elbo_is_that_of_torch_distributions(likelihood: str, device: torch.device) -> None:
    model = make_model("vae-mlp", likelihood=likelihood, decoder_std=0.3, kl_weight=2.5)
    networks = build_networks(model, device)
    batch = some_images(10, device=device).round()
    draws = model.draws(10, Generator(device).manual_seed(0))
    mu, logvar = networks["encoder"](batch).unflatten(1, (-1, 2)).unbind(2)
    posterior = Independent(Normal(mu, (0.5 * logvar).exp()), 1)
    prior = Independent(Normal(torch.zeros_like(mu), torch.ones_like(mu)), 1)
    out = networks["decoder"](mu + (0.5 * logvar).exp() * draws["eps"])
    each = Bernoulli(logits=out) if likelihood == "bernoulli" else Normal(out, 0.3)
    nll = -each.log_prob(batch).flatten(1).sum(1)
    kl = kl_divergence(posterior, prior)

    loss, metrics = model.objectives()[0].loss(networks, Batch.of(batch), draws, 0.0)
    torch.testing.assert_close(loss, (nll + 2.5 * kl).mean())
    torch.testing.assert_close(metrics["elbo"], -(nll + kl).mean())
    found = model.validate(networks, Batch.of(batch), draws)
    torch.testing.assert_close(found["elbo"], -(nll + kl).mean())
    torch.testing.assert_close(found["kl"], kl.mean())


@pytest.mark.usefixtures("deterministic")
def test_validation_elbo_does_not_know_the_training_weights(device: torch.device) -> None:
    batch = some_images(10, device=device)
    found = []
    for settings in ({"kl_weight": 0.1}, {"kl_weight": 9.0, "free_bits": 3.0}):
        torch.manual_seed(0)
        model = make_model("vae-mlp", **settings)
        draws = model.draws(10, Generator(device).manual_seed(0))
        networks = build_networks(model, device)
        found.append(model.validate(networks, Batch.of(batch), draws)["elbo"])
    assert torch.equal(found[0], found[1])


def test_kl_weight_warms_up_linearly_and_free_bits_hold_a_floor(device: torch.device) -> None:
    model = make_model("vae-mlp", kl_weight=2.0, kl_warmup_epochs=4.0)
    networks, batch = build_networks(model, device), some_images(10, device=device)
    draws = model.draws(10, Generator(device).manual_seed(0))
    loss = model.objectives()[0].loss
    at = {epoch: loss(networks, Batch.of(batch), draws, epoch) for epoch in (0.0, 1.0, 4.0, 9.0)}
    nll, kl = at[0.0][1]["reconstruction"], at[0.0][1]["kl"]
    for epoch, weight in ((0.0, 0.0), (1.0, 0.5), (4.0, 2.0), (9.0, 2.0)):
        torch.testing.assert_close(at[epoch][0], nll + weight * kl)
    floor = make_model("vae-mlp", free_bits=100.0)
    floored, metrics = floor.objectives()[0].loss(networks, Batch.of(batch), draws, 0.0)
    torch.testing.assert_close(floored, metrics["reconstruction"] + 100.0 * 4)


@torch.no_grad()
def test_autoencoder_loss_is_half_the_squared_error_summed(device: torch.device) -> None:
    model = make_model("autoencoder-mlp", l1_weight=0.1)
    networks, batch = build_networks(model, device), some_images(6, device=device)
    loss, _ = model.objectives()[0].loss(networks, Batch.of(batch), {}, 0.0)
    codes = networks["encoder"](batch)
    pairs = zip(networks["decoder"](codes).sigmoid(), batch, strict=True)
    errors = sum(0.5 * float(((a - b) ** 2).sum()) for a, b in pairs)
    expected = (errors + 0.1 * float(codes.abs().sum())) / 6
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_denoising_adds_noise_to_the_input_alone(device: torch.device) -> None:
    torch.manual_seed(0)
    model = make_model("autoencoder-mlp", noise_std=0.5)
    networks, batch = build_networks(model, device), some_images(6, device=device)
    noise = {"noise": torch.ones(6, 1, 8, 8, device=device)}
    loss, _ = model.objectives()[0].loss(networks, Batch.of(batch), noise, 0.0)
    images = networks["decoder"](networks["encoder"](batch + 0.5)).sigmoid()
    torch.testing.assert_close(loss, 0.5 * (images - batch).square().flatten(1).sum(1).mean())


# Scores 2 and -1 of real images, 1 and -3 of generated ones, by hand.
SOFTPLUS = {x: log(1 + 2.718281828459045**x) for x in (-2, -1, 1, 3, -3)}
HAND = {
    "hinge": ((0 + 2) / 2 + (2 + 0) / 2, -(1 - 3) / 2),
    "non_saturating": (
        (SOFTPLUS[-2] + SOFTPLUS[1]) / 2 + (SOFTPLUS[1] + SOFTPLUS[-3]) / 2,
        (SOFTPLUS[-1] + SOFTPLUS[3]) / 2,
    ),
    "least_squares": (0.5 * ((1 + 4) / 2 + (1 + 9) / 2), 0.5 * (0 + 16) / 2),
    "wasserstein": ((1 - 3) / 2 - (2 - 1) / 2, -(1 - 3) / 2),
}


@pytest.mark.parametrize("name", HAND)
def test_gan_losses_have_their_hand_values(name: str, device: torch.device) -> None:
    real, fake = torch.tensor([[2.0, -1.0], [1.0, -3.0]], device=device)
    assert float(discriminator_loss(name, real, fake)) == pytest.approx(HAND[name][0], rel=1e-6)
    assert float(generator_loss(name, fake)) == pytest.approx(HAND[name][1], rel=1e-6)


@pytest.mark.parametrize("pac", [1, 3])
@pytest.mark.parametrize("setting", ["gradient_penalty", "r1_penalty"])
def test_gradient_penalties_are_those_of_autograd(
    setting: str, pac: int, device: torch.device
) -> None:
    model = make_model("gan-conv", spectral_norm=False, pac=pac, **{setting: 3.0})
    networks, batch = build_networks(model, device), some_images(6, device=device)
    draws = model.draws(6, Generator(device).manual_seed(0))
    plain = make_model("gan-conv", spectral_norm=False, pac=pac).objectives()[0].loss
    base, _ = plain(networks, Batch.of(batch), draws, 0.0)
    loss, _ = model.objectives()[0].loss(networks, Batch.of(batch), draws, 0.0)
    real = (2 * batch - 1).reshape(6 // pac, pac, 8, 8)
    at = real
    if setting == "gradient_penalty":
        fake = networks["generator"](draws["z_discriminator"]).tanh().detach().view_as(real)
        at = real + draws["mix"][::pac] * (fake - real)
    at = at.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(networks["discriminator"](at).sum(), at)
    norm = gradient.flatten(1).norm(dim=1)
    expected = 3.0 * ((norm - 1) ** 2 if setting == "gradient_penalty" else 0.5 * norm**2).mean()
    torch.testing.assert_close(loss - base, expected, rtol=1e-4, atol=1e-5)


def test_packed_samples_are_neighbours_side_by_side(device: torch.device) -> None:
    points = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]], device=device)
    assert pack(points, 2).tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    images = some_images(6, DataSpec((3, 4, 4)), device=device)
    torch.testing.assert_close(pack(images, 3)[1], torch.cat([images[3], images[4], images[5]]))
    assert torch.equal(pack(images, 1), images)


def test_minibatch_deviation_has_its_hand_value(device: torch.device) -> None:
    layer = MinibatchStd(2)
    features = torch.tensor([[0.0, 1.0], [2.0, 7.0], [5.0, 5.0], [5.0, 5.0]], device=device)
    # deviations 1 and 3 in the first group, none in the second
    expected = torch.tensor([2.0, 2.0, 0.0, 0.0], device=device)
    torch.testing.assert_close(layer(features)[:, 2], expected, atol=2e-4, rtol=0.0)
    assert torch.equal(layer(features)[:, :2], features)
    maps = features[:, :, None, None].repeat(1, 1, 3, 3)
    assert layer(maps).shape == (4, 3, 3, 3)
    torch.testing.assert_close(layer(maps)[:, 2, 1, 2], expected, atol=2e-4, rtol=0.0)


def test_minibatch_deviation_has_a_gradient_where_all_is_equal(device: torch.device) -> None:
    features = torch.ones(4, 3, device=device, requires_grad=True)
    (gradient,) = torch.autograd.grad(MinibatchStd(4)(features).square().sum(), features)
    assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("arch", ["mlp", "conv"])
@torch.no_grad()
def test_discriminators_see_a_collapse_that_no_single_sample_shows(
    arch: str, device: torch.device
) -> None:
    batch = some_images(2, device=device)
    alike, varied = batch[:1].repeat(4, 1, 1, 1), batch[[0, 1, 0, 1]]
    for settings in ({"pac": 2}, {"minibatch_std": 2}):
        model = make_model(f"gan-{arch}", **settings)
        discriminator = build_networks(model, device)["discriminator"]
        scores = [discriminator(pack(x, model.config.pac))[0] for x in (alike, varied)]
        assert float(scores[0]) != float(scores[1])
    alone = build_networks(make_model(f"gan-{arch}"), device)["discriminator"]
    assert float(alone(alike)[0]) == pytest.approx(float(alone(varied)[0]))


def test_rows_that_do_not_fill_their_groups_are_refused() -> None:
    model = make_model("gan-mlp", pac=2, minibatch_std=2)
    assert model.rows_together == 4
    draws = model.draws(6, Generator())
    with pytest.raises(InputError, match=r"rows of a batch = 6: expected a multiple of 4"):
        model.objectives()[0].loss(model.networks(), Batch.of(some_images(6)), draws, 0.0)
    for settings in ({"pac": 0}, {"minibatch_std": 1}):
        with pytest.raises(InputError, match="expected"):
            make_model("gan-mlp", **settings)


@pytest.mark.parametrize("kind", [SpectralLinear, SpectralConv2d])
def test_spectral_layers_have_norm_one(kind: type[nn.Module], device: torch.device) -> None:
    torch.manual_seed(0)  # some starts of the power iterations are not there after 50
    layer = SpectralLinear(20, 12) if kind is SpectralLinear else SpectralConv2d(3, 8, 4, 2, 1)
    layer.to(device)
    with torch.no_grad():
        layer.weight.mul_(7.0)
        for _ in range(50):
            layer.after_update()
    weight = layer.weight / torch.dot(layer.left, layer.weight.flatten(1) @ layer.right)
    assert float(torch.linalg.matrix_norm(weight.flatten(1), 2)) == pytest.approx(1.0, rel=1e-3)
    reference = nn.utils.parametrizations.spectral_norm(
        nn.Linear(20, 12) if isinstance(layer, SpectralLinear) else nn.Conv2d(3, 8, 4, 2, 1),
        n_power_iterations=50,
    ).to(device)
    with torch.no_grad():
        reference.parametrizations.weight.original.copy_(layer.weight)
        reference.bias.copy_(layer.bias)
    shape = (2, 20) if isinstance(layer, SpectralLinear) else (2, 3, 8, 8)
    x = torch.randn(shape, device=device)
    torch.testing.assert_close(layer(x), reference(x), rtol=1e-3, atol=1e-4)


@needs("sklearn")
def test_mixture_samples_have_the_codes_moments(device: torch.device) -> None:
    generator = Generator().manual_seed(0)
    codes = torch.randn(4000, 3, generator=generator) @ torch.tensor(
        [[2.0, 0.3, 0.0], [0.0, 0.5, 0.1], [0.0, 0.0, 1.0]]
    ) + torch.tensor([3.0, -1.0, 0.0])
    codes[:1000] += 8.0
    codes = codes.to(device)
    mixture = GaussianMixture(4, 3).to(device)
    mixture.fit(codes, seed=0)
    samples = mixture(torch.randn(40000, 4, generator=generator).to(device))
    torch.testing.assert_close(samples.mean(0), codes.mean(0), rtol=0.05, atol=0.1)
    torch.testing.assert_close(samples.T.cov(), codes.T.cov(), rtol=0.05, atol=0.3)


def test_frechet_distance_of_gaussians_is_the_closed_form(device: torch.device) -> None:
    generator = Generator().manual_seed(0)
    a = torch.randn(200_000, 4, generator=generator, dtype=torch.float64)
    b = (
        torch.tensor([2.0, 1.0, 0.5, 3.0], dtype=torch.float64)
        * torch.randn(200_000, 4, generator=generator, dtype=torch.float64)
        + 1.0
    )
    moments = []
    for points in (a.to(device), b.to(device)):
        first, *rest = (Moments.of(block) for block in points.split(999))
        sums = sum(rest, first)
        torch.testing.assert_close(sums.mean, points.mean(0))
        torch.testing.assert_close(sums.covariance, points.T.cov())
        moments.append(sums)
    # |1|^2 * 4 + sum of (sigma - 1)^2
    expected = 4.0 + 1.0 + 0.0 + 0.25 + 4.0
    assert float(frechet_distance(*moments)) == pytest.approx(expected, rel=0.01)
    assert float(frechet_distance(moments[0], moments[0])) == pytest.approx(0.0, abs=1e-8)


def test_frechet_distances_of_several_at_once(device: torch.device) -> None:
    points = torch.randn(3, 500, 4, generator=Generator().manual_seed(0)).to(device)
    points[1] = torch.nan
    others = torch.randn(400, 4, generator=Generator().manual_seed(1)).to(device)
    reference = Moments.of(others)
    at_once = frechet_distance(reference, Moments.of(points))
    assert bool(at_once[1].isnan())
    for index in (0, 2):
        alone = frechet_distance(reference, Moments.of(points[index]))
        torch.testing.assert_close(at_once[index], alone)


def test_pca_features_keep_the_distances_that_matter(device: torch.device) -> None:
    images = some_images(300, DataSpec((1, 8, 8)), device=device)
    features = PCAFeatures.of("pca", images, dim=64)
    flat = images.flatten(1).double()
    torch.testing.assert_close(
        torch.cdist(features(images), features(images))[:9, :9],
        torch.cdist(flat, flat)[:9, :9],
        atol=1e-5,
        rtol=1e-5,
    )
    assert PCAFeatures.of("pca", images, dim=5)(images).shape == (300, 5)


def test_pca_features_of_points_of_several_models(device: torch.device) -> None:
    points = torch.rand(3, 50, 2, generator=Generator().manual_seed(0)).to(device)
    features = PCAFeatures.of("pca", points[0])
    assert features(points).shape == (3, 50, 2)
    torch.testing.assert_close(features(points)[1], features(points[1]))


def test_bernoulli_nll_is_torch_s_cross_entropy(device: torch.device) -> None:
    logits = torch.cat([torch.linspace(-90, 90, 1001), torch.randn(1000)])
    logits = logits.to(device).requires_grad_()
    target = torch.rand(len(logits), generator=Generator().manual_seed(0)).to(device)
    ours = bernoulli_nll(logits, target)
    (gradient,) = torch.autograd.grad(ours.sum(), logits)
    theirs = binary_cross_entropy_with_logits(logits, target, reduction="none")
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(gradient, torch.autograd.grad(theirs.sum(), logits)[0])
