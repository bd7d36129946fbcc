"""Variational autoencoder (Kingma & Welling 2014), with beta (Higgins et al. 2017), a linear
warm-up of the KL term and free bits (Kingma et al. 2016); importance-weighted with several
samples (Burda et al. 2016); optionally class-conditional (Sohn et al. 2015). Losses and metrics
are in nats per image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log, pi
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor, nn

from gen_models.blocks import (
    ConvDecoder,
    ConvEncoder,
    bernoulli_image_nll,
    bernoulli_nll,
    glorot_init,
    label_maps,
    mlp,
    mlp_to_image,
    one_hot,
)
from gen_models.core.contract import Adam, Draws, Metrics, Networks, Objective, num_labels, on
from gen_models.core.data import Batch, DataSpec
from gen_models.core.errors import require, require_sizes

Optim = Adam


@dataclass(frozen=True)
class Config:
    """Hyperparameters of a VAE."""

    latent_dim: int = 16
    """Dimensions of z."""
    arch: Literal["mlp", "conv"] = "mlp"
    """Networks: fully connected, or convolutional."""
    hidden: tuple[int, ...] = (512,)
    """mlp: widths of the encoder's hidden layers; the decoder's in reverse."""
    activation: Literal["relu", "tanh"] = "relu"
    """mlp: activation of hidden layers; with tanh, weights are initialised as by Glorot &
    Bengio."""
    channels: int = 32
    """conv: channels of the largest feature map."""
    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"
    """p(x|z): Bernoulli on intensities in [0, 1], or Gaussian with a fixed deviation."""
    decoder_std: float = 0.1
    """gaussian: the deviation of p(x|z), on intensities in [0, 1]."""
    kl_weight: float = 1.0
    """Weight of the KL term in the training loss (beta). Validation always uses 1."""
    kl_warmup_epochs: float = 0.0
    """Epochs over which the KL term's weight grows linearly from 0 to `kl_weight`."""
    free_bits: float = 0.0
    """Nats per latent dimension and image below which the KL term is not reduced further."""
    importance_samples: int = 1
    """Number of z for each image; with more than 1 the loss is the importance-weighted bound."""
    conditional: bool = False
    """Class-conditional: both networks take the class of an image as input."""

    def __post_init__(self) -> None:
        require_sizes(self.latent_dim, self.hidden, self.channels)
        require(self.decoder_std > 0, "decoder_std", self.decoder_std, "a number above 0")
        require(self.kl_weight >= 0, "kl_weight", self.kl_weight, "at least 0")
        require(
            self.kl_warmup_epochs >= 0, "kl_warmup_epochs", self.kl_warmup_epochs, "at least 0"
        )
        require(self.free_bits >= 0, "free_bits", self.free_bits, "at least 0")
        samples = self.importance_samples
        require(samples >= 1, "importance_samples", samples, "an integer of at least 1")
        expected = "0, because the importance-weighted bound has no KL term"
        require(samples == 1 or self.free_bits == 0, "free_bits", self.free_bits, expected)


class Model:
    """Draws: `eps` (N, latent_dim), the noise of the reparameterisation; with several
    importance samples (N, S, latent_dim)."""

    def __init__(self, config: Config, spec: DataSpec) -> None:
        self.config = config
        self.spec = spec
        self.noise_dim = config.latent_dim
        self.conditional = config.conditional
        self._num_labels = num_labels(config.conditional, spec)
        # Free bits apply to every dimension of z, and would apply to padding.
        self.widths: tuple[str, ...] = () if on(config.free_bits) else ("latent_dim",)

    def networks(self) -> dict[str, nn.Module]:
        c, shape = self.config, self.spec.shape
        in_features = self._num_labels + c.latent_dim
        if c.arch == "conv":
            seen = (self._num_labels + shape[0], *shape[1:])
            return {
                "encoder": ConvEncoder(seen, c.channels, 2 * c.latent_dim),
                "decoder": ConvDecoder(in_features, c.channels, shape),
            }
        activation = nn.Tanh if c.activation == "tanh" else nn.ReLU
        num_values = self._num_labels + self.spec.num_values
        networks: dict[str, nn.Module] = {
            "encoder": mlp(num_values, c.hidden, 2 * c.latent_dim, activation=activation),
            "decoder": mlp_to_image(in_features, c.hidden[::-1], shape, activation=activation),
        }
        if c.activation == "tanh":
            for network in networks.values():
                glorot_init(network)
        return networks

    def objectives(self) -> tuple[Objective, ...]:
        return (Objective("elbo", ("encoder", "decoder"), self._loss),)

    def draws(self, num: int, generator: Generator) -> Draws:
        c = self.config
        samples = (c.importance_samples,) if c.importance_samples > 1 else ()
        shape = (num, *samples, c.latent_dim)
        return {"eps": torch.randn(shape, generator=generator, device=generator.device)}

    def _loss(
        self, networks: Networks, batch: Batch, draws: Draws, epoch: Tensor | float
    ) -> tuple[Tensor, Metrics]:
        terms = self._terms(networks, batch, draws)
        loss = self._negative_bound(terms, self._kl_weight(epoch))
        metrics = {"loss": loss, **self._metrics(terms)}
        if terms.log_ratio is not None:
            metrics["iw_bound"] = _log_mean_exp(terms.log_ratio - terms.nll).mean()
        return loss, metrics

    def _negative_bound(self, terms: _Terms, kl_weight: Tensor | float) -> Tensor:
        """Compute the training loss. With several samples `kl_weight` is an exponent of
        p(z) / q(z|x)."""
        free_bits = self.config.free_bits
        if terms.log_ratio is not None:
            return -_log_mean_exp(kl_weight * terms.log_ratio - terms.nll).mean()
        counted = terms.kl.clamp(min=free_bits) if on(free_bits) else terms.kl
        return (terms.nll + kl_weight * counted.sum(1)).mean()

    def _kl_weight(self, epoch: Tensor | float) -> Tensor | float:
        warmup = self.config.kl_warmup_epochs
        if not on(warmup):
            return self.config.kl_weight
        return self.config.kl_weight * torch.as_tensor(epoch / warmup).clamp(max=1.0)

    def _terms(self, networks: Networks, batch: Batch, draws: Draws) -> _Terms:
        mu, logvar = self._posterior(networks, batch)
        eps = draws["eps"].transpose(0, -2)  # (S, N, latent_dim), or as it is
        z = mu + torch.exp(0.5 * logvar) * eps
        kl = 0.5 * (mu.square() + logvar.exp() - 1.0 - logvar)
        several = self.config.importance_samples > 1
        log_ratio = _log_ratio(z, logvar, eps) if several else None
        out = self._decode(networks, z, batch.labels)
        return _Terms(self._nll(out, batch.images), kl, log_ratio)

    def _metrics(self, terms: _Terms) -> Metrics:
        """Compute the bound at KL weight 1, and its two terms."""
        nll, kl = terms.nll, terms.kl.sum(1)
        return {"reconstruction": nll.mean(), "kl": kl.mean(), "elbo": -(nll + kl).mean()}

    def _nll(self, out: Tensor, images: Tensor) -> Tensor:
        """Compute -log p(x|z) (…, N) from the decoder's output (…, N, *shape): logits, or
        means."""
        if self.config.likelihood == "bernoulli":
            each = bernoulli_nll(out, images)
        else:
            std = self.config.decoder_std
            log_std = std.log() if isinstance(std, Tensor) else log(std)
            each = 0.5 * ((images - out) / std).square() + log_std + 0.5 * log(2 * pi)
        return each.flatten(-len(self.spec.shape)).sum(-1)

    def _mean(self, out: Tensor) -> Tensor:
        """Compute E[x|z] in [0, 1] from the decoder's output."""
        return out.sigmoid() if self.config.likelihood == "bernoulli" else out.clamp(0.0, 1.0)

    def generate(self, networks: Networks, noise: Tensor, labels: Tensor) -> Tensor:
        return self._mean(self._decode(networks, noise, labels))

    def reconstruct(self, networks: Networks, batch: Batch) -> Tensor:
        return self.generate(networks, self.encode(networks, batch), batch.labels)

    def encode(self, networks: Networks, batch: Batch) -> Tensor:
        return self._posterior(networks, batch)[0]

    def log_terms(
        self, networks: Networks, batch: Batch
    ) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        mu, logvar = self._posterior(networks, batch)
        std = torch.exp(0.5 * logvar)
        bernoulli = self.config.likelihood == "bernoulli"
        image_nll = bernoulli_image_nll if bernoulli else self._nll

        def terms(noise: Tensor) -> tuple[Tensor, Tensor]:
            z = mu + std * noise
            out = self._decode(networks, z, batch.labels)
            return -image_nll(out, batch.images), _log_ratio(z, logvar, noise)

        return terms

    def validate(self, networks: Networks, batch: Batch, draws: Draws) -> Metrics:
        """Compute the evidence lower bound at KL weight 1, and its two terms."""
        return self._metrics(self._terms(networks, batch, draws))

    def _posterior(self, networks: Networks, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of q(z|x), each (N, latent_dim). They alternate in the
        encoder's output, so that a narrower model's are its first entries."""
        mu, logvar = networks["encoder"](self._seen(batch)).unflatten(1, (-1, 2)).unbind(2)
        return mu, logvar

    def _seen(self, batch: Batch) -> Tensor:
        """Return the encoder's input: images, and labels if the model is class-conditional."""
        if not self.conditional:
            return batch.images
        labels = one_hot(batch.labels, self._num_labels)
        if self.config.arch == "conv":
            return label_maps(batch.images, labels)
        return torch.cat([labels, batch.images.flatten(1)], dim=1)

    def _decode(self, networks: Networks, z: Tensor, labels: Tensor) -> Tensor:
        """Decode (…, N, latent_dim) to (…, N, *shape), unbounded. Labels come before z, whose end
        may be padding."""
        if self.conditional:
            given = one_hot(labels, self._num_labels)
            z = torch.cat([given.expand(*z.shape[:-1], -1), z], dim=-1)
        out: Tensor = networks["decoder"](z.flatten(0, -2))
        return out.view(*z.shape[:-1], *out.shape[1:])


class _Terms(NamedTuple):
    nll: Tensor
    """-log p(x|z), (N,), or (S, N) of several z."""
    kl: Tensor
    """KL(q(z|x) || N(0, 1)) per dimension, (N, latent_dim)."""
    log_ratio: Tensor | None
    """log p(z) - log q(z|x) of several z, (S, N)."""


def _log_ratio(z: Tensor, logvar: Tensor, eps: Tensor) -> Tensor:
    """Compute log p(z) - log q(z|x), (…, N), at z = mu + exp(logvar / 2) eps. The difference is
    taken in each dimension, so that padding, where all three are 0, adds 0."""
    return 0.5 * (eps.square() - z.square() + logvar).sum(-1)


def _log_mean_exp(log_weights: Tensor) -> Tensor:
    """Compute the logarithm of the mean weight, (S, …) -> (…)."""
    return log_weights.logsumexp(0) - log(len(log_weights))
