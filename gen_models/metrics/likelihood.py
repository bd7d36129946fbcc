"""Likelihood of images under a model with latent variables, by the importance-weighted bound
(Burda et al. 2016): log p(x) >= E log 1/K sum_k p(x, z_k) / q(z_k|x), tighter for larger K.

Noise depends on its position only: sample k of image n is the same for any division of the work
and on any worker. For that, images and samples are divided into fixed tiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from math import log

import torch
from torch import Generator, Tensor, nn

from gen_models.core.contract import BoundsLikelihood, Encodes, Model, Networks, Reconstructs
from gen_models.core.data import Batch, blocks, floats
from gen_models.core.errors import require
from gen_models.core.rng import seeded
from gen_models.metrics.frechet import Moments
from gen_models.training.precision import Precision

IMAGES = 20
"""Images in a tile."""
SAMPLES = 250
"""Samples of each image in a tile."""
ACTIVE = 0.01
"""A latent unit is active if the variance of its posterior mean over images is above this."""
_ROWS_ON_CPU = 1_000


@dataclass
class LikelihoodSums:
    """Sums over images, which can be added over blocks and workers. float64 on their device."""

    totals: Tensor
    """(6,): images, the importance-weighted bound, the bound by one sample, log p(x|z),
    log p(z) - log q(z|x), half the squared error of reconstructions."""
    squares: Tensor
    """(4,): squares of the bound, the bound by one sample, log p(x|z), log p(z) - log q(z|x)."""
    codes: Moments | None
    """Moments of the posterior means; None for a family that does not encode."""

    def __add__(self, other: LikelihoodSums) -> LikelihoodSums:
        codes = self.codes + other.codes if self.codes and other.codes else None
        return LikelihoodSums(self.totals + other.totals, self.squares + other.squares, codes)

    def tensors(self) -> list[Tensor]:
        """List the tensors, to be summed over workers in place; shapes are equal on all
        workers."""
        codes = self.codes
        return [
            self.totals,
            self.squares,
            *((codes.count, codes.total, codes.outer) if codes else ()),
        ]


@dataclass(frozen=True)
class Likelihood:
    """Means over images, in nats per image unless stated otherwise."""

    nll: float
    """Minus the importance-weighted bound: on average at least the negative log-likelihood."""
    bits_per_dim: float
    """`nll` in bits per value of an image."""
    elbo: float
    """The bound by one sample, averaged over the samples."""
    kl: float
    """log q(z|x) - log p(z), averaged over the samples."""
    reconstruction: float
    """-log p(x|z), averaged over the samples."""
    squared_error: float | None
    """Half the squared error of reconstructions, summed over an image; None where the family
    does not reconstruct."""
    active_units: int | None
    """Latent units whose posterior mean varies over the images by more than 0.01 (variance);
    None where the family does not encode."""
    num_images: int
    num_samples: int
    standard_errors: Mapping[str, float]
    """Of nll, bits_per_dim, elbo, kl and reconstruction as means over images; nan of one image."""

    @classmethod
    def of(cls, sums: LikelihoodSums, model: Model, num_samples: int) -> Likelihood:
        """Compute means from the sums over all images and workers."""
        num, *totals = sums.totals.tolist()
        bound, elbo, log_likelihood, log_ratio, error = (total / num for total in totals)
        variance = None if sums.codes is None else sums.codes.covariance.diagonal()
        nll_error, elbo_error, reconstruction_error, kl_error = _standard_errors(sums).tolist()
        nats_per_bit = log(2) * model.spec.num_values
        return cls(
            nll=-bound,
            bits_per_dim=-bound / nats_per_bit,
            elbo=elbo,
            kl=-log_ratio,
            reconstruction=-log_likelihood,
            squared_error=error if isinstance(model, Reconstructs) else None,
            active_units=None if variance is None else int((variance > ACTIVE).sum()),
            num_images=int(num),
            num_samples=num_samples,
            standard_errors={
                "nll": nll_error,
                "bits_per_dim": nll_error / nats_per_bit,
                "elbo": elbo_error,
                "kl": kl_error,
                "reconstruction": reconstruction_error,
            },
        )


def _standard_errors(sums: LikelihoodSums) -> Tensor:
    """Return the standard errors of the four means whose squares are summed, (4,)."""
    num, totals = sums.totals[0], sums.totals[1:5]
    variance = (sums.squares / num - (totals / num).square()) * num / (num - 1)
    return (variance.clamp(min=0) / num).sqrt()


@torch.no_grad()
def likelihood_sums(
    model: Model,
    networks: Mapping[str, nn.Module],
    data: Batch,
    *,
    num_samples: int = 5000,
    seed: int = 0,
    rank: int = 0,
    world: int = 1,
    max_rows: int | None = None,
    precision: Precision = "fp32",
) -> LikelihoodSums:
    """Compute the sums of worker `rank` of `world`, over its blocks of `data`.

    Bernoulli likelihoods are comparable on binary images only. `max_rows`: most codes that the
    decoder gets at a time, or the images of a block if these are more; by default what fits a
    CPU's cache, or a whole tile on a GPU. `precision`: of the networks' products. Raises
    `InputError` if the model has no likelihood, or networks are in training mode.
    """
    if max_rows is None:
        max_rows = _ROWS_ON_CPU if data.images.device.type == "cpu" else IMAGES * SAMPLES
    _check(model, networks, num_samples, max_rows)
    called = {name: _InPrecision(network, precision) for name, network in networks.items()}
    total = _nothing(model, called, data)
    for index, part in list(enumerate(blocks(data, IMAGES)))[rank::world]:
        block = floats(part)
        tiles = _tiles(model.noise_dim, block.num, num_samples, seed, index, block.images)
        total += _block_sums(model, called, block, tiles, max_rows)
    return total


def estimate_likelihood(
    model: Model,
    networks: Mapping[str, nn.Module],
    data: Batch,
    *,
    num_samples: int = 5000,
    seed: int = 0,
    precision: Precision = "fp32",
) -> Likelihood:
    """Estimate the likelihood of `data` on one worker; arguments as of `likelihood_sums`."""
    sums = likelihood_sums(
        model, networks, data, num_samples=num_samples, seed=seed, precision=precision
    )
    return Likelihood.of(sums, model, num_samples)


def _nothing(model: Model, networks: Networks, data: Batch) -> LikelihoodSums:
    """Return the sums over no image: zeros."""
    one = floats(data.rows(slice(1)))
    totals, squares = (one.images.new_zeros(num, dtype=torch.float64) for num in (6, 4))
    if not isinstance(model, Encodes):
        return LikelihoodSums(totals, squares, None)
    codes = Moments.of(model.encode(networks, one))
    parts = (torch.zeros_like(part) for part in (codes.count, codes.total, codes.outer))
    return LikelihoodSums(totals, squares, Moments(*parts))


class _InPrecision:
    """A network for evaluation in a precision: with bf16 a copy with cast weights, which autocast
    would cast at every call."""

    def __init__(self, network: nn.Module, precision: Precision) -> None:
        self.dtype = torch.bfloat16 if precision == "bf16" else None
        self.network = deepcopy(network).to(self.dtype) if self.dtype else network

    def __call__(self, inputs: Tensor) -> Tensor:
        out: Tensor = self.network(inputs.to(self.dtype) if self.dtype else inputs)
        return out.to(inputs.dtype)


def _check(
    model: Model, networks: Mapping[str, nn.Module], num_samples: int, max_rows: int
) -> None:
    name = type(model).__module__
    require(isinstance(model, BoundsLikelihood), "model", name, "a family with a likelihood")
    training = [name for name, network in networks.items() if network.training]
    require(not training, "networks", training, "networks in evaluation mode")
    require(num_samples >= 1, "num_samples", num_samples, "an integer of at least 1")
    require(max_rows >= 1, "max_rows", max_rows, "an integer of at least 1")


def _tiles(
    dim: int, num: int, num_samples: int, seed: int, block: int, like: Tensor
) -> Iterator[Tensor]:
    """Yield the noise of a block of `num` images in pieces (S, num, dim), `num_samples` in all."""
    generator, shape = Generator(like.device), (SAMPLES, IMAGES, dim)
    for tile in range(-(-num_samples // SAMPLES)):
        seeded(generator, seed, "likelihood", block, tile)
        noise = torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)
        yield noise[: num_samples - tile * SAMPLES, :num]


def _block_sums(
    model: Model, networks: Networks, block: Batch, tiles: Iterator[Tensor], max_rows: int
) -> LikelihoodSums:
    assert isinstance(model, BoundsLikelihood)
    terms = model.log_terms(networks, block)
    bound = block.images.new_full((block.num,), -torch.inf, dtype=torch.float64)
    totals, num_samples = bound.new_zeros(2, block.num), 0
    for tile in tiles:
        pieces = torch.split(tile, max(1, max_rows // block.num))
        both = zip(*(terms(piece) for piece in pieces), strict=True)
        log_likelihood, log_ratio = (torch.cat(part).double() for part in both)
        bound = torch.logaddexp(bound, (log_likelihood + log_ratio).logsumexp(0))
        totals += torch.stack([log_likelihood.sum(0), log_ratio.sum(0)])
        num_samples += len(tile)
    log_likelihood, log_ratio = (totals / num_samples).unbind()
    bound = bound - log(num_samples)
    count, error = bound.new_tensor(block.num), _squared_error(model, networks, block)
    each = torch.stack([bound, log_likelihood + log_ratio, log_likelihood, log_ratio])
    codes = Moments.of(model.encode(networks, block)) if isinstance(model, Encodes) else None
    totals = torch.cat([count[None], each.sum(1), error[None]])
    return LikelihoodSums(totals, each.square().sum(1), codes)


def _squared_error(model: Model, networks: Networks, block: Batch) -> Tensor:
    """Sum half the squared error over the block; 0 if the model does not reconstruct."""
    if not isinstance(model, Reconstructs):
        return torch.zeros((), dtype=torch.float64, device=block.images.device)
    error: Tensor = model.reconstruct(networks, block) - block.images
    return 0.5 * error.double().square().sum()
