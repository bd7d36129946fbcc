"""What validation says of models, through their contract alone.

The same numbers whatever the number of workers and the batch size: validation images come in
fixed blocks with fixed noise, workers take blocks in turn, and sums are added up over workers.
Models of one structure can be validated as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from operator import add

import torch
from torch import Generator, Tensor, nn

from gen_models.core.contract import Draws, FitsSampler, Metrics, Model, Networks, Reconstructs
from gen_models.core.data import Batch, blocks, floats
from gen_models.core.rng import seeded
from gen_models.core.sampling import BLOCK as SAMPLES
from gen_models.core.sampling import block_labels, block_noise, sample
from gen_models.fused.stacking import Alone, Ensemble
from gen_models.metrics import FeatureSpace, Moments, features_in_blocks, frechet_distance
from gen_models.training.distributed import rank_and_world, sum_over_workers
from pipelines.evaluation.images import drawing_of
from pipelines.evaluation.measures import Measure, measures, names_of

BLOCK = 500
"""Validation images in a block."""
NUM_SAMPLES = 2048
"""Samples for the Fréchet distance."""
NUM_CODES = 4096
"""Training images that a sampler is fitted to."""
_SHOWN = 32
_SEED = 0  # of validation: the same noise for every trial, so that they are compared fairly


class Evaluator:
    """Metrics of models on one validation split, and pictures.

    `train`, `validation`: images as uint8 (N, C, H, W), or floats (N, *shape) in [0, 1], on the
    device. `space`: where samples are compared with the validation data. `real`: the moments of
    their features; without it, they are computed.
    """

    def __init__(
        self, train: Batch, validation: Batch, space: FeatureSpace, real: Moments | None = None
    ) -> None:
        self.codes_from = train.rows(slice(NUM_CODES))
        self.validation = validation
        self.device = validation.images.device
        self.space = space
        images = validation.images
        self.real = real or reduce(add, map(Moments.of, features_in_blocks(space, images)))

    @torch.no_grad()
    def metrics(
        self, models: Sequence[Model], networks: Sequence[dict[str, nn.Module]]
    ) -> list[dict[str, float]]:
        """Validation metrics of each model by name, `val/…`. Several models must be of one
        structure. On several workers, every one must call."""
        for model, own in zip(models, networks, strict=True):
            if isinstance(model, FitsSampler):
                model.fit_sampler(own, map(floats, blocks(self.codes_from, BLOCK)), _SEED)
        alone = len(models) == 1
        subject = Alone(models[0], networks[0]) if alone else Ensemble(models, networks)
        found = {frechet_name(self.space.name): self._frechet(subject)}
        for measure in measures(models[0]):
            found |= self._means(subject, measure)
        table = torch.stack(list(found.values())).reshape(len(found), -1).T.tolist()
        return [dict(zip(found, row, strict=True)) for row in table]

    def _means(self, subject: Alone | Ensemble, measure: Measure) -> dict[str, Tensor]:
        """Means over the measure's images by name, each (), or (K,) of an ensemble."""
        images = self.validation.rows(slice(measure.num_images))
        rank, world = rank_and_world()
        every = list(enumerate(blocks(images, BLOCK)))
        mine = every[rank::world] or every[:1]  # without one, for the shape of the sums
        parts = []
        for index, block in mine:
            parts.append(self._block_sums(subject, measure, index, floats(block)))
            if not parts[0]:
                return {}  # it has nothing to say of these models
        found = {}
        for name in sorted(parts[0]):
            total = reduce(add, (part[name] for part in parts)) * (rank < len(every))
            found[f"val/{name}"] = sum_over_workers(total) / images.num
        return found

    def _block_sums(
        self, subject: Alone | Ensemble, measure: Measure, index: int, block: Batch
    ) -> Metrics:
        """Float64."""

        def of(model: Model, networks: Networks, draws: Draws) -> Metrics:
            return measure.of(model, networks, block, draws)

        def draw(model: Model) -> Draws:
            generator = seeded(Generator(self.device), _SEED, "validation", index)
            return measure.draws(model, block.num, generator)

        return {name: value.double() * block.num for name, value in subject.map(of, draw).items()}

    def _frechet(self, subject: Alone | Ensemble) -> Tensor:
        """() or (K,)"""
        rank, world = rank_and_world()
        indices = range(-(-NUM_SAMPLES // SAMPLES))
        moments = [self._block_moments(subject, i) for i in indices[rank::world] or indices[:1]]
        total = reduce(add, moments)
        for each in (total.count, total.total, total.outer):
            sum_over_workers(each.mul_(rank < len(indices)))
        return frechet_distance(self.real, total)

    def _block_moments(self, subject: Alone | Ensemble, index: int) -> Moments:
        labels = block_labels(self.validation.labels, index)

        def generate(model: Model, networks: Networks, draws: Draws) -> Tensor:
            return model.generate(networks, draws["noise"], labels)

        def draw(model: Model) -> Draws:
            return {"noise": block_noise(model, index, _SEED, self.device)}

        return Moments.of(self.space(subject.map(generate, draw)))

    @torch.no_grad()
    def pictures(self, model: Model, networks: Networks) -> dict[str, bytes]:
        """PNG files by name: samples, and reconstructions where the family can reconstruct.

        The same noise and the same images each time, so that a slider shows them change."""
        draw = drawing_of(model)
        samples = sample(model, networks, draw.num_samples, _SEED, self.device)
        found = {"samples": draw.samples(samples)}
        if isinstance(model, Reconstructs):
            first = floats(self.validation.rows(slice(_SHOWN)))
            found["reconstructions"] = draw.pairs(first.images, model.reconstruct(networks, first))
        return found


def frechet_name(space: str) -> str:
    """The name of the Fréchet distance: it holds the feature space and the number of samples."""
    return f"val/fd/{space}/{NUM_SAMPLES // 1000}k"


def matching(metric: str, names: Iterable[str]) -> list[str]:
    """The names that `metric` is, or is the beginning of: `val/fd` of `val/fd/lenet-mnist/2k`."""
    return [name for name in names if name == metric or name.startswith(f"{metric}/")]


def metric_names(model: Model, space: str) -> list[str]:
    """The names of what `Evaluator.metrics` reports of a model, in a feature space."""
    own = (f"val/{name}" for measure in measures(model) for name in names_of(measure, model))
    return [*sorted(own), frechet_name(space)]
