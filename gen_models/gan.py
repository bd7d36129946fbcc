"""Generative adversarial network (Goodfellow et al. 2014).

Losses: non-saturating, hinge (Lim & Ye 2017), least squares (Mao et al. 2017), Wasserstein
(Arjovsky et al. 2017). Regularisation of the discriminator: spectral normalisation (Miyato et
al. 2018), gradient penalty (Gulrajani et al. 2017), R1 (Mescheder et al. 2018). Against mode
collapse: packing (Lin et al. 2018), minibatch deviation (Karras et al. 2018). Class-conditional
discriminators use a projection (Miyato & Koyama 2018).

The defaults are SNGAN's, which train without tuning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from gen_models.blocks import (
    ConvGenerator,
    Discriminator,
    SpectralLinear,
    conv_features,
    mlp_features,
    mlp_to_image,
    one_hot,
    pack,
)
from gen_models.core.contract import Adam, Draws, Metrics, Networks, Objective, num_labels, on
from gen_models.core.data import Batch, DataSpec
from gen_models.core.errors import require, require_sizes


@dataclass(frozen=True)
class Optim:
    """Optimizers of a GAN."""

    discriminator: Adam = field(default_factory=lambda: Adam(lr=2e-4, betas=(0.0, 0.9)))
    """The discriminator's optimizer."""
    generator: Adam = field(
        default_factory=lambda: Adam(lr=2e-4, betas=(0.0, 0.9), ema_decay=0.999)
    )
    """The generator's optimizer."""


@dataclass(frozen=True)
class Config:
    """Hyperparameters of a GAN."""

    latent_dim: int = 64
    """Dimensions of the generator's noise."""
    arch: Literal["conv", "mlp"] = "conv"
    """Networks: convolutional, or fully connected."""
    hidden: tuple[int, ...] = (256, 512)
    """mlp: widths of the generator's hidden layers; the discriminator's in reverse."""
    channels: int = 32
    """conv: channels of the largest feature map."""
    loss: Literal["hinge", "non_saturating", "least_squares", "wasserstein"] = "hinge"
    """Loss functions of the two networks."""
    spectral_norm: bool = True
    """Spectral normalisation of the discriminator."""
    gradient_penalty: float = 0.0
    """Weight of (|grad D| - 1)^2 at points between real and generated images."""
    r1_penalty: float = 0.0
    """gamma in gamma/2 |grad D|^2 at real images."""
    pac: int = 1
    """Number of images that the discriminator scores together."""
    minibatch_std: int = 0
    """Number of images, or of packs, in a group whose deviation is a feature of the
    discriminator's last layer; 0: none. Each worker's rows of a batch must be a multiple of
    `pac` times this."""
    discriminator_steps: int = 1
    """Discriminator steps per generator step."""
    conditional: bool = False
    """Class-conditional: both networks take the class of an image as input."""

    def __post_init__(self) -> None:
        require_sizes(self.latent_dim, self.hidden, self.channels)
        require(
            self.gradient_penalty >= 0, "gradient_penalty", self.gradient_penalty, "at least 0"
        )
        require(self.r1_penalty >= 0, "r1_penalty", self.r1_penalty, "at least 0")
        steps = self.discriminator_steps
        require(steps >= 1, "discriminator_steps", steps, "an integer of at least 1")
        require(self.pac >= 1, "pac", self.pac, "an integer of at least 1")
        group = self.minibatch_std
        require(group == 0 or group >= 2, "minibatch_std", group, "0, or an integer of at least 2")


class Model:
    """Draws: `z_discriminator`, `z_generator` (N, latent_dim), the noise of generated images in
    the step of either network; with a gradient penalty `mix` (N, 1, …), uniform in [0, 1)."""

    def __init__(self, config: Config, spec: DataSpec) -> None:
        self.config = config
        self.spec = spec
        self.noise_dim = config.latent_dim
        self.conditional = config.conditional
        self._num_labels = num_labels(config.conditional, spec)
        self.widths: tuple[str, ...] = ("latent_dim",)
        self.rows_together = config.pac * max(config.minibatch_std, 1)

    def networks(self) -> dict[str, nn.Module]:
        c, shape = self.config, self.spec.shape
        in_features = self._num_labels + c.latent_dim
        conv = c.arch == "conv"
        return {
            "generator": ConvGenerator(in_features, c.channels, shape)
            if conv
            else mlp_to_image(in_features, c.hidden, shape),
            "discriminator": Discriminator(
                *(self._conv_body() if conv else self._mlp_body()),
                spectral_norm=c.spectral_norm,
                minibatch_std=c.minibatch_std,
                num_labels=c.pac * self._num_labels,
            ),
        }

    def _conv_body(self) -> tuple[nn.Sequential, tuple[int, ...]]:
        """Build the discriminator's body, and return it with the shape of its features."""
        c, (channels, *size) = self.config, self.spec.shape
        return conv_features((c.pac * channels, *size), c.channels, spectral_norm=c.spectral_norm)

    def _mlp_body(self) -> tuple[nn.Sequential, tuple[int, ...]]:
        c = self.config
        body, features = mlp_features(
            c.pac * self.spec.num_values,
            c.hidden[::-1],
            activation=lambda: nn.LeakyReLU(0.1),
            layer=SpectralLinear if c.spectral_norm else nn.Linear,
        )
        return body, (features,)

    def objectives(self) -> tuple[Objective, ...]:
        return (
            Objective("discriminator", ("discriminator",), self._discriminator_loss),
            Objective(
                "generator",
                ("generator",),
                self._generator_loss,
                period=self.config.discriminator_steps,
            ),
        )

    def draws(self, num: int, generator: Generator) -> Draws:
        shape, device = (num, self.config.latent_dim), generator.device
        draws = {
            "z_discriminator": torch.randn(shape, generator=generator, device=device),
            "z_generator": torch.randn(shape, generator=generator, device=device),
        }
        if on(self.config.gradient_penalty):
            each = (num, *[1] * len(self.spec.shape))
            draws["mix"] = torch.rand(each, generator=generator, device=device)
        return draws

    def _discriminator_loss(
        self, networks: Networks, batch: Batch, draws: Draws, epoch: Tensor | float
    ) -> tuple[Tensor, Metrics]:
        score = self._score(networks, batch.labels)
        real = self._packed(2.0 * batch.images - 1.0)
        fakes = self._fakes(networks, draws["z_discriminator"], batch.labels)
        fake = self._packed(fakes.detach())
        on_real, on_fake = score(real), score(fake)
        loss = discriminator_loss(self.config.loss, on_real, on_fake)
        metrics = {
            "discriminator_loss": loss,
            "score_real": on_real.mean(),
            "score_fake": on_fake.mean(),
        }
        if on(self.config.gradient_penalty):
            between = torch.lerp(real, fake, draws["mix"][:: self.config.pac])
            norm = _input_gradient(score, between).flatten(1).norm(dim=1)
            metrics["gradient_penalty"] = (norm - 1.0).square().mean()
            loss = loss + self.config.gradient_penalty * metrics["gradient_penalty"]
        if on(self.config.r1_penalty):
            square = _input_gradient(score, real).square().flatten(1).sum(1)
            metrics["r1_penalty"] = 0.5 * square.mean()
            loss = loss + self.config.r1_penalty * metrics["r1_penalty"]
        return loss, metrics

    def _generator_loss(
        self, networks: Networks, batch: Batch, draws: Draws, epoch: Tensor | float
    ) -> tuple[Tensor, Metrics]:
        fakes = self._fakes(networks, draws["z_generator"], batch.labels)
        scores = self._score(networks, batch.labels)(self._packed(fakes))
        loss = generator_loss(self.config.loss, scores)
        return loss, {"generator_loss": loss}

    def _fakes(self, networks: Networks, noise: Tensor, labels: Tensor) -> Tensor:
        """Generate images (N, *shape) in [-1, 1]. Labels come before the noise, whose end may be
        padding."""
        if self.conditional:
            noise = torch.cat([one_hot(labels, self._num_labels), noise], dim=1)
        images: Tensor = networks["generator"](noise).tanh()
        return images

    def _score(self, networks: Networks, labels: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the discriminator as a function of packed images with these labels."""
        discriminator = networks["discriminator"]
        if not self.conditional:
            return discriminator
        given = pack(one_hot(labels, self._num_labels), self.config.pac)
        return lambda images: discriminator(images, given)

    def _packed(self, images: Tensor) -> Tensor:
        """Pack images for the discriminator, (N / pac, pac C, …)."""
        expected = f"a multiple of {self.rows_together}, by pac and minibatch_std"
        require(len(images) % self.rows_together == 0, "rows of a batch", len(images), expected)
        return pack(images, self.config.pac)

    def generate(self, networks: Networks, noise: Tensor, labels: Tensor) -> Tensor:
        return 0.5 * (self._fakes(networks, noise, labels) + 1.0)

    def validate(self, networks: Networks, batch: Batch, draws: Draws) -> Metrics:
        """Return {}: a GAN is measured by its samples only."""
        return {}


def discriminator_loss(name: str, on_real: Tensor, on_fake: Tensor) -> Tensor:
    """Compute the discriminator's loss from its scores (N,) of real and generated images."""
    if name == "hinge":
        return F.relu(1.0 - on_real).mean() + F.relu(1.0 + on_fake).mean()
    if name == "non_saturating":
        return F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
    if name == "least_squares":
        return 0.5 * ((on_real - 1.0).square().mean() + on_fake.square().mean())
    return on_fake.mean() - on_real.mean()


def generator_loss(name: str, on_fake: Tensor) -> Tensor:
    """Compute the generator's loss from the discriminator's scores (N,) of its images."""
    if name == "non_saturating":
        return F.softplus(-on_fake).mean()
    if name == "least_squares":
        return 0.5 * (on_fake - 1.0).square().mean()
    return -on_fake.mean()


def _input_gradient(discriminator: Callable[..., Tensor], images: Tensor) -> Tensor:
    """Compute d D(x) / d x, of the shape of `images`, differentiable."""
    # torch.func.grad, because autograd.grad does not work within vmap
    gradient: Tensor = torch.func.grad(lambda x: discriminator(x).sum())(images)
    return gradient
