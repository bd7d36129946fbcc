"""Evaluates models on the validation split, through the family contract alone.

The metrics do not depend on the number of workers or on the batch size of training: images come
in fixed blocks with fixed noise, workers take blocks in turn, and sums are added over workers.
Several models of one structure are evaluated at once, stacked.

A further metric of validation images is one function and one line of `VALIDATION_METRICS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from math import log
from operator import add

import torch
from torch import Generator, Tensor, nn

from gen_models.core.contract import (
    BoundsLikelihood,
    Draws,
    FitsSampler,
    Metrics,
    Model,
    Networks,
    Reconstructs,
)
from gen_models.core.data import Batch, blocks, floats
from gen_models.core.networks import build_networks
from gen_models.core.rng import seeded
from gen_models.core.sampling import BLOCK as SAMPLE_BLOCK
from gen_models.core.sampling import block_labels, block_noise, sample
from gen_models.fused.stacking import Alone, Ensemble
from gen_models.metrics import FeatureSpace, Moments, features_in_blocks, frechet_distance
from gen_models.training.distributed import rank_and_world, sum_over_workers
from gen_models.training.learner import initial_networks
from pipelines.evaluation.images import drawing_of
from pipelines.evaluation.metric_names import BOUNDED_IMAGES, NUM_SAMPLES, frechet_name

BLOCK = 500
"""Validation images in a block."""
NUM_CODES = 4096
"""Training images that a sampler is fitted to, where the family fits one."""
IMPORTANCE_SAMPLES = 8
"""Samples of the importance-weighted bound, for each validation image."""
MIN_IMAGES = 2
"""Validation images of which a Fréchet distance has a covariance."""
_SEED = 0  # the same noise for every trial, so that trials differ by their models alone


@dataclass(frozen=True)
class ValidationMetric:
    """One or several metrics that are means over validation images."""

    applies: Callable[[Model], bool]
    """Returns whether a model has the metric."""
    compute: Callable[[Model, Networks, Batch, Draws], Metrics]
    """Returns means over a batch, by name without `val/`; {} if the family reports none."""
    draws: Callable[[Model, int, Generator], Draws]
    """Returns the random numbers that `compute` needs for a number of images."""
    num_images: int | None = None
    """How many of the split's first images are used; None: all."""


def _family_metrics(model: Model, networks: Networks, batch: Batch, draws: Draws) -> Metrics:
    """Compute the metrics that the family defines itself."""
    return model.validate(networks, batch, draws)


def _family_draws(model: Model, num: int, generator: Generator) -> Draws:
    return model.draws(num, generator)


def _importance_bound(model: Model, networks: Networks, batch: Batch, draws: Draws) -> Metrics:
    """Compute the importance-weighted bound on -log p(x) (Burda et al. 2016, equation 8), nats."""
    assert isinstance(model, BoundsLikelihood)
    terms = model.log_terms(networks, batch)
    log_likelihood, log_ratio = terms(draws["noise"].transpose(0, 1))
    bound = (log_likelihood + log_ratio).logsumexp(0) - log(IMPORTANCE_SAMPLES)
    return {f"nll/iw{IMPORTANCE_SAMPLES}": -bound.mean()}


def _importance_draws(model: Model, num: int, generator: Generator) -> Draws:
    """Draw `noise` (num, IMPORTANCE_SAMPLES, noise_dim)."""
    shape = (num, IMPORTANCE_SAMPLES, model.noise_dim)
    return {"noise": torch.randn(shape, generator=generator, device=generator.device)}


def _bounds_likelihood(model: Model) -> bool:
    return isinstance(model, BoundsLikelihood)


VALIDATION_METRICS: tuple[ValidationMetric, ...] = (
    ValidationMetric(lambda model: True, _family_metrics, _family_draws),
    ValidationMetric(_bounds_likelihood, _importance_bound, _importance_draws, BOUNDED_IMAGES),
)


class Evaluator:
    """Computes the validation metrics of models, and pictures of samples and reconstructions."""

    def __init__(
        self, train: Batch, validation: Batch, space: FeatureSpace, real: Moments | None = None
    ) -> None:
        """Keep the data, which are on the device of evaluation.

        `train`, `validation`: images uint8 (N, C, H, W), or floats (N, *shape) in [0, 1]; of
        `train` the first NUM_CODES are kept. `space`: the feature space of the Fréchet distance.
        `real`: moments of the validation images' features; computed if not given.
        """
        self.train = train.rows(slice(NUM_CODES))
        self.validation = validation
        self.device = validation.images.device
        self.space = space
        images = validation.images
        self.real = real or reduce(add, map(Moments.of, features_in_blocks(space, images)))

    @torch.no_grad()
    def metrics(
        self, models: Sequence[Model], networks: Sequence[dict[str, nn.Module]]
    ) -> list[dict[str, float]]:
        """Return the metrics of each model by name, `val/…`.

        `networks[i]` are those of `models[i]`; several models must be of one structure. A family
        that fits a sampler gets it fitted here. On several workers, every one must call.
        """
        for model, its_networks in zip(models, networks, strict=True):
            self._fit_sampler(model, its_networks)
        one = len(models) == 1
        evaluated = Alone(models[0], networks[0]) if one else Ensemble(models, networks)
        values = {frechet_name(self.space.name): self._frechet(evaluated)}
        for metric in VALIDATION_METRICS:
            if metric.applies(models[0]):
                values |= self._means(evaluated, metric)
        table = torch.stack(list(values.values())).reshape(len(values), -1).T.tolist()
        return [dict(zip(values, row, strict=True)) for row in table]

    def _fit_sampler(self, model: Model, networks: Networks) -> None:
        if isinstance(model, FitsSampler):
            model.fit_sampler(networks, map(floats, blocks(self.train, BLOCK)), _SEED)

    def _means(self, models: Alone | Ensemble, metric: ValidationMetric) -> dict[str, Tensor]:
        """Return means over the metric's images by name, each () or, of an ensemble, (K,)."""
        images = self.validation.rows(slice(metric.num_images))
        rank, world = rank_and_world()
        all_blocks = list(enumerate(blocks(images, BLOCK)))
        # A worker without a block computes the first one for the shape of the sums, times 0.
        own_blocks = all_blocks[rank::world] or all_blocks[:1]
        block_sums = []
        for index, block in own_blocks:
            block_sums.append(self._block_sums(models, metric, index, floats(block)))
            if not block_sums[0]:
                return {}  # the family reports nothing, on every worker
        means = {}
        for name in sorted(block_sums[0]):
            total = reduce(add, (sums[name] for sums in block_sums)) * (rank < len(all_blocks))
            means[f"val/{name}"] = sum_over_workers(total) / images.num
        return means

    def _block_sums(
        self, models: Alone | Ensemble, metric: ValidationMetric, index: int, block: Batch
    ) -> Metrics:
        """Return sums over block number `index`, float64."""

        def compute(model: Model, networks: Networks, draws: Draws) -> Metrics:
            return metric.compute(model, networks, block, draws)

        def draw(model: Model) -> Draws:
            generator = seeded(Generator(self.device), _SEED, "validation", index)
            return metric.draws(model, block.num, generator)

        means = models.map(compute, draw)
        return {name: value.double() * block.num for name, value in means.items()}

    def _frechet(self, models: Alone | Ensemble) -> Tensor:
        """Return the Fréchet distance of samples to the validation images, () or (K,)."""
        rank, world = rank_and_world()
        indices = range(-(-NUM_SAMPLES // SAMPLE_BLOCK))
        own_indices = indices[rank::world] or indices[:1]  # as in `_means`
        total = reduce(add, [self._block_moments(models, index) for index in own_indices])
        for tensor in (total.count, total.total, total.outer):
            sum_over_workers(tensor.mul_(rank < len(indices)))
        return frechet_distance(self.real, total)

    def _block_moments(self, models: Alone | Ensemble, index: int) -> Moments:
        """Return the moments of the features of a block of samples."""
        labels = block_labels(self.validation.labels, index)

        def generate(model: Model, networks: Networks, draws: Draws) -> Tensor:
            return model.generate(networks, draws["noise"], labels)

        def draw(model: Model) -> Draws:
            return {"noise": block_noise(model, index, _SEED, self.device)}

        return Moments.of(self.space(models.map(generate, draw)))

    @torch.no_grad()
    def pictures(self, model: Model, networks: Networks) -> dict[str, bytes]:
        """Return PNG files by name: `samples`, and `reconstructions` if the family reconstructs.

        Noise and images are the same at every call, so that MLflow's step slider shows how they
        change in training. They are those whose metrics were computed last, which fits a sampler
        where the family has one.
        """
        draw = drawing_of(model)
        samples = sample(model, networks, draw.num_samples, _SEED, self.device)
        pictures = {"samples": draw.samples(samples)}
        if isinstance(model, Reconstructs):
            batch = floats(self.validation.rows(slice(draw.num_pairs)))
            reconstructions = model.reconstruct(networks, batch)
            pictures["reconstructions"] = draw.pairs(batch.images, reconstructions)
        return pictures

    @torch.no_grad()
    def start_pictures(self, model: Model, seed: int) -> dict[str, bytes]:
        """Return the `pictures` of the networks with which training by a seed begins."""
        fresh = initial_networks(model, seed, self.device)
        networks = {name: network.eval() for name, network in fresh.items()}
        self._fit_sampler(model, networks)
        return self.pictures(model, networks)


def metric_names(model: Model, space: str) -> list[str]:
    """Return the names of the metrics that `Evaluator.metrics` reports of a model, in the feature
    space named `space`. Found by running the metrics on blank images."""
    networks = {name: network.eval() for name, network in build_networks(model).items()}
    blank = Batch.of(torch.zeros(2, *model.spec.shape))
    names: list[str] = []
    with torch.no_grad():
        for metric in VALIDATION_METRICS:
            if metric.applies(model):
                draws = metric.draws(model, blank.num, Generator())
                names += metric.compute(model, networks, blank, draws)
    return [*sorted(f"val/{name}" for name in names), frechet_name(space)]
