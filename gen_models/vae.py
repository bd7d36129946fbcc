"""Variational autoencoder (Kingma & Welling 2014), with beta (Higgins et al. 2017), a linear
warm-up of the KL term and free bits (Kingma et al. 2016). Everything is in nats per image.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, pi
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from gen_models.blocks import ConvDecoder, ConvEncoder, bernoulli_nll, mlp, mlp_to_image
from gen_models.core.contract import Adam, DataSpec, Draws, Metrics, Networks, Objective, on
from gen_models.core.errors import require, require_sizes

Optim = Adam


@dataclass(frozen=True)
class Config:
    latent_dim: int = 16
    """Dimensions of z."""
    arch: Literal["mlp", "conv"] = "mlp"
    """Networks: fully connected, or convolutional."""
    hidden: tuple[int, ...] = (512,)
    """mlp: widths of the encoder's hidden layers; the decoder's in reverse."""
    channels: int = 32
    """conv: channels of the largest feature map."""
    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"
    """p(x|z): Bernoulli on intensities in [0, 1], or Gaussian of fixed deviation."""
    decoder_std: float = 0.1
    """gaussian: the deviation of p(x|z), on intensities in [0, 1]."""
    kl_weight: float = 1.0
    """Weight of the KL term in the training loss (beta). Validation uses 1, always."""
    kl_warmup_epochs: float = 0.0
    """Epochs over which the KL term's weight grows linearly from 0 to `kl_weight`."""
    free_bits: float = 0.0
    """Nats per latent dimension and image below which the KL term is not reduced further."""

    def __post_init__(self) -> None:
        require_sizes(self.latent_dim, self.hidden, self.channels)
        require(self.decoder_std > 0, "decoder_std", self.decoder_std, "a number above 0")
        require(self.kl_weight >= 0, "kl_weight", self.kl_weight, "at least 0")
        require(
            self.kl_warmup_epochs >= 0, "kl_warmup_epochs", self.kl_warmup_epochs, "at least 0"
        )
        require(self.free_bits >= 0, "free_bits", self.free_bits, "at least 0")


class Model:
    """Draws: `eps` (N, latent_dim), the noise of the reparameterisation."""

    def __init__(self, config: Config, spec: DataSpec) -> None:
        self.config = config
        self.spec = spec
        self.noise_dim = config.latent_dim
        # Free bits are given to every dimension of z, those of the padding too.
        self.widths = () if on(config.free_bits) else ("latent_dim",)

    def networks(self) -> dict[str, nn.Module]:
        c, shape = self.config, self.spec.shape
        if c.arch == "conv":
            return {
                "encoder": ConvEncoder(shape, c.channels, 2 * c.latent_dim),
                "decoder": ConvDecoder(c.latent_dim, c.channels, shape),
            }
        return {
            "encoder": mlp(self.spec.num_values, c.hidden, 2 * c.latent_dim),
            "decoder": mlp_to_image(c.latent_dim, c.hidden[::-1], shape),
        }

    def objectives(self) -> tuple[Objective, ...]:
        return (Objective("elbo", ("encoder", "decoder"), self._loss),)

    def draws(self, num: int, generator: Generator) -> Draws:
        shape = (num, self.config.latent_dim)
        return {"eps": torch.randn(shape, generator=generator, device=generator.device)}

    def _loss(
        self, networks: Networks, batch: Tensor, draws: Draws, epoch: Tensor | float
    ) -> tuple[Tensor, Metrics]:
        nll, kl = self._terms(networks, batch, draws)
        counted = kl.clamp(min=self.config.free_bits) if on(self.config.free_bits) else kl
        loss = nll + self._kl_weight(epoch) * counted.sum(1)
        kl = kl.sum(1)
        metrics = {"loss": loss.mean(), "nll": nll.mean(), "kl": kl.mean()}
        return loss.mean(), metrics | {"elbo": -(nll + kl).mean()}

    def _kl_weight(self, epoch: Tensor | float) -> Tensor | float:
        warmup = self.config.kl_warmup_epochs
        if not on(warmup):
            return self.config.kl_weight
        return self.config.kl_weight * torch.as_tensor(epoch / warmup).clamp(max=1.0)

    def _terms(self, networks: Networks, batch: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """-log p(x|z) (N,) for one z, and KL(q(z|x) || N(0, 1)) per dimension (N, latent_dim)."""
        mu, logvar = _posterior(networks, batch)
        z = mu + torch.exp(0.5 * logvar) * draws["eps"]
        kl = 0.5 * (mu.square() + logvar.exp() - 1.0 - logvar)
        return self._nll(networks["decoder"](z), batch), kl

    def _nll(self, out: Tensor, batch: Tensor) -> Tensor:
        """-log p(x|z) (N,) from the decoder's output: logits, or means."""
        if self.config.likelihood == "bernoulli":
            each = bernoulli_nll(out, batch)
        else:
            std = self.config.decoder_std
            log_std = std.log() if isinstance(std, Tensor) else log(std)
            each = 0.5 * ((batch - out) / std).square() + log_std + 0.5 * log(2 * pi)
        return each.flatten(1).sum(1)

    def _mean(self, out: Tensor) -> Tensor:
        """E[x|z] in [0, 1] from the decoder's output."""
        return out.sigmoid() if self.config.likelihood == "bernoulli" else out.clamp(0.0, 1.0)

    def generate(self, networks: Networks, noise: Tensor) -> Tensor:
        return self._mean(networks["decoder"](noise))

    def reconstruct(self, networks: Networks, batch: Tensor) -> Tensor:
        return self._mean(networks["decoder"](_posterior(networks, batch)[0]))

    def validate(self, networks: Networks, batch: Tensor, draws: Draws) -> Metrics:
        """The evidence lower bound at KL weight 1, by one z an image, and its two terms."""
        nll, kl = self._terms(networks, batch, draws)
        return {
            "elbo": -(nll + kl.sum(1)).mean(),
            "nll": nll.mean(),
            "kl": kl.sum(1).mean(),
        }


def _posterior(networks: Networks, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log variance of q(z|x), each (N, latent_dim). They take turns in the encoder's
    output, so that a narrower model's are its first entries."""
    mu, logvar = networks["encoder"](batch).unflatten(1, (-1, 2)).unbind(2)
    return mu, logvar
