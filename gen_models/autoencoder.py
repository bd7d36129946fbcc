"""Autoencoder (Hinton & Salakhutdinov 2006): plain, denoising (Vincent et al. 2008) or sparse.

Samples are decoded from a density that is fitted to the codes of training images after training
(Ghosh et al. 2020) and kept in the network `density`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from gen_models.blocks import ConvDecoder, ConvEncoder, mlp, mlp_to_image
from gen_models.blocks.mixture import GaussianMixture
from gen_models.core.contract import Adam, Draws, Metrics, Networks, Objective, on
from gen_models.core.data import Batch, DataSpec
from gen_models.core.errors import require, require_sizes

Optim = Adam


@dataclass(frozen=True)
class Config:
    """Hyperparameters of an autoencoder."""

    latent_dim: int = 16
    """Dimensions of the code."""
    arch: Literal["mlp", "conv"] = "mlp"
    """Networks: fully connected, or convolutional."""
    hidden: tuple[int, ...] = (512,)
    """mlp: widths of the encoder's hidden layers; the decoder's in reverse."""
    channels: int = 32
    """conv: channels of the largest feature map."""
    noise_std: float = 0.0
    """Deviation of the Gaussian noise added to the encoder's input (denoising), on intensities
    in [0, 1]."""
    l1_weight: float = 0.0
    """Weight of the sum of the code's absolute values (sparse)."""
    density: Literal["gaussian", "mixture"] = "mixture"
    """What is fitted to the codes for sampling."""
    density_components: int = 10
    """mixture: the number of Gaussians, each with a full covariance."""

    def __post_init__(self) -> None:
        require_sizes(self.latent_dim, self.hidden, self.channels)
        require(self.noise_std >= 0, "noise_std", self.noise_std, "at least 0")
        require(self.l1_weight >= 0, "l1_weight", self.l1_weight, "at least 0")
        components = self.density_components
        require(components >= 1, "density_components", components, "an integer of at least 1")


class Model:
    """Draws: `noise` (N, *shape), the input noise; none where `noise_std` is 0."""

    def __init__(self, config: Config, spec: DataSpec) -> None:
        self.config = config
        self.spec = spec
        self.noise_dim = 1 + config.latent_dim
        self.widths = ("latent_dim",)

    def networks(self) -> dict[str, nn.Module]:
        c, shape = self.config, self.spec.shape
        components = c.density_components if c.density == "mixture" else 1
        density = GaussianMixture(components, c.latent_dim)
        if c.arch == "conv":
            return {
                "encoder": ConvEncoder(shape, c.channels, c.latent_dim),
                "decoder": ConvDecoder(c.latent_dim, c.channels, shape),
                "density": density,
            }
        return {
            "encoder": mlp(self.spec.num_values, c.hidden, c.latent_dim),
            "decoder": mlp_to_image(c.latent_dim, c.hidden[::-1], shape),
            "density": density,
        }

    def objectives(self) -> tuple[Objective, ...]:
        return (Objective("reconstruction", ("encoder", "decoder"), self._loss),)

    def draws(self, num: int, generator: Generator) -> Draws:
        if not on(self.config.noise_std):
            return {}
        shape = (num, *self.spec.shape)
        return {"noise": torch.randn(shape, generator=generator, device=generator.device)}

    def _loss(
        self, networks: Networks, batch: Batch, draws: Draws, epoch: Tensor | float
    ) -> tuple[Tensor, Metrics]:
        images = batch.images
        noisy = images + self.config.noise_std * draws["noise"] if draws else images
        codes = networks["encoder"](noisy)
        error = _squared_error(networks["decoder"](codes).sigmoid(), images)
        l1 = codes.abs().sum(1).mean()
        loss = error + self.config.l1_weight * l1
        return loss, {"loss": loss, "squared_error": error, "code_l1": l1}

    def generate(self, networks: Networks, noise: Tensor, labels: Tensor) -> Tensor:
        codes = networks["density"](noise)
        images: Tensor = networks["decoder"](codes).sigmoid()
        return images

    def reconstruct(self, networks: Networks, batch: Batch) -> Tensor:
        images: Tensor = networks["decoder"](self.encode(networks, batch)).sigmoid()
        return images

    def encode(self, networks: Networks, batch: Batch) -> Tensor:
        codes: Tensor = networks["encoder"](batch.images)
        return codes

    def validate(self, networks: Networks, batch: Batch, draws: Draws) -> Metrics:
        """Half the squared error, summed over the image, without input noise."""
        return {"squared_error": _squared_error(self.reconstruct(networks, batch), batch.images)}

    def fit_sampler(self, networks: Networks, batches: Iterable[Batch], seed: int) -> None:
        codes = torch.cat([self.encode(networks, batch) for batch in batches])
        density = networks["density"]
        assert isinstance(density, GaussianMixture)
        density.fit(codes, seed)


def _squared_error(images: Tensor, originals: Tensor) -> Tensor:
    """Half the squared error, summed over an image, averaged over the images."""
    return 0.5 * (images - originals).square().flatten(1).sum(1).mean()
