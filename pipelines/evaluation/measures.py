"""What validation asks of a model, image by image; each a mean over images of the split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log

import torch
from torch import Generator

from gen_models.core.contract import BoundsLikelihood, Draws, Metrics, Model, Networks
from gen_models.core.data import Batch

IMPORTANCE_SAMPLES = 8
"""Of the bound on a validation image's likelihood."""
BOUNDED_IMAGES = 1000
"""Validation images, the first ones, whose likelihood is bounded: it takes many decodings."""


@dataclass(frozen=True)
class Measure:
    """Something to be measured on images."""

    of: Callable[[Model, Networks, Batch, Draws], Metrics]
    """Means over a batch, by name."""
    draws: Callable[[Model, int, Generator], Draws]
    """The randomness of that over so many images."""
    num_images: int | None
    """The first images of the split that it is measured on; None: all of them."""


def measures(model: Model) -> list[Measure]:
    """Those that a model is subject to."""
    bounded = [_BOUND] if isinstance(model, BoundsLikelihood) else []
    return [_OWN, *bounded]


def names_of(measure: Measure, model: Model) -> list[str]:
    """What a measure reports of a model, found by running it on blank images."""
    networks = {name: network.eval() for name, network in model.networks().items()}
    blank = Batch.of(torch.zeros(2, *model.spec.shape))
    with torch.no_grad():
        return list(measure.of(model, networks, blank, measure.draws(model, 2, Generator())))


def _importance_draws(model: Model, num: int, generator: Generator) -> Draws:
    """`noise` (num, 8, noise_dim)"""
    shape = (num, IMPORTANCE_SAMPLES, model.noise_dim)
    return {"noise": torch.randn(shape, generator=generator, device=generator.device)}


def _importance_bound(model: Model, networks: Networks, batch: Batch, draws: Draws) -> Metrics:
    """The importance-weighted bound on -log p(x) (Burda et al. 2016, equation 8), in nats."""
    assert isinstance(model, BoundsLikelihood)
    terms = model.log_terms(networks, batch)
    log_likelihood, log_ratio = terms(draws["noise"].transpose(0, 1))
    bound = (log_likelihood + log_ratio).logsumexp(0) - log(IMPORTANCE_SAMPLES)
    return {f"nll/iw{IMPORTANCE_SAMPLES}": -bound.mean()}


_OWN = Measure(
    lambda model, networks, batch, draws: model.validate(networks, batch, draws),
    lambda model, num, generator: model.draws(num, generator),
    None,
)
_BOUND = Measure(_importance_bound, _importance_draws, BOUNDED_IMAGES)
