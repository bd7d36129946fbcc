"""The conformance suite for the built-in families, and what is particular to each of them."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from support.models import DEVICES, FAMILIES, VARIANTS, make_learner, make_model, some_batch

import gen_models
from gen_models import Adam, DataSpec, InputError, Learner, gan
from gen_models.core.networks import build_networks
from gen_models.core.sampling import sample
from gen_models.metrics import Moments, PCAFeatures, frechet_distance
from gen_models.testing import FamilyConformance


def variants_of(family: str) -> dict[str, dict[str, Any]]:
    """Return a family's variants without its name in their labels: `mlp`, `conv`, …"""
    return {
        label.removeprefix(f"{family}-"): settings
        for label, (owner, settings) in VARIANTS.items()
        if owner == family
    }


TOGETHER = {"pac": 2, "minibatch_std": 2, "gradient_penalty": 3.0}
"""A discriminator that judges several images at once, with a gradient penalty."""


class TestAutoencoder(FamilyConformance):
    family = "autoencoder"
    variants = variants_of("autoencoder")
    devices = DEVICES


class TestVAE(FamilyConformance):
    family = "vae"
    variants = variants_of("vae")
    devices = DEVICES


class TestGAN(FamilyConformance):
    family = "gan"
    variants = variants_of("gan") | {"together": VARIANTS["gan-mlp"][1] | TOGETHER}
    devices = DEVICES


def test_every_built_in_family_has_the_suite() -> None:
    tested = {suite.family for suite in FamilyConformance.__subclasses__()}
    missing = sorted(set(FAMILIES) - tested)
    assert not missing, f"add a subclass of FamilyConformance to this file for {missing}"


@pytest.mark.parametrize("family", FAMILIES)
def test_configs_refuse_sizes_below_one(family: str) -> None:
    config = gen_models.family(family).Config()
    with pytest.raises(InputError, match=r"latent_dim = -1: expected an integer"):
        replace(config, latent_dim=-1)


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v.endswith("conv")])
def test_convolutions_refuse_points(variant: str) -> None:
    with pytest.raises(InputError, match=r"arch = 'conv': expected mlp"):
        build_networks(make_model(variant, DataSpec((2,), 8)))


MLPS = [variant for variant in VARIANTS if not variant.endswith("conv")]
SPECS = [DataSpec((1, 8, 8), 10), DataSpec((2,), 8)]


@pytest.mark.parametrize("spec", SPECS, ids=["images", "points"])
@pytest.mark.parametrize("variant", [v for v in MLPS if not v.startswith("gan")])
def test_training_improves_the_validation_metric(
    variant: str, spec: DataSpec, device: torch.device
) -> None:
    learner = make_learner(variant, spec=spec, device=device)
    batch = some_batch(64, spec, device=device)
    draws = learner.model.draws(64, torch.Generator(device).manual_seed(0))

    def error() -> float:
        with torch.no_grad():
            found = learner.model.validate(learner.sampling_networks(), batch, draws)
        return float(found["squared_error"] if "squared_error" in found else -found["elbo"])

    before = error()
    for _ in range(100):
        learner.step(batch)
    assert error() < 0.97 * before


@pytest.mark.parametrize("spec", SPECS, ids=["images", "points"])
@pytest.mark.parametrize("variant", [v for v in MLPS if v.startswith("gan")])
def test_training_brings_a_gan_s_samples_near_the_data(
    variant: str, spec: DataSpec, device: torch.device
) -> None:
    """A GAN has no validation metric of its own; it learns fast at ten times its default rates."""
    adam = Adam(lr=2e-3, betas=(0.0, 0.9))
    optim = gan.Optim(discriminator=adam, generator=replace(adam, ema_decay=0.999))
    learner = Learner(make_model(variant, spec), optim, seed=0, steps_per_epoch=10, device=device)
    batch = some_batch(64, spec, device=device)
    space = PCAFeatures.of("pca", batch.images, dim=8)

    def distance() -> float:
        samples = sample(learner.model, learner.sampling_networks(), 256, 0, device)
        return float(frechet_distance(Moments.of(space(batch.images)), Moments.of(space(samples))))

    before = distance()
    for _ in range(300):
        learner.step(batch)
    assert distance() < 0.5 * before
