"""What validation says of models, through their contract alone.

The same numbers whatever the number of workers and the batch size: validation images come in
fixed blocks with fixed noise, workers take blocks in turn, and sums are added up over workers.
Models of one structure can be validated as one.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from functools import reduce
from operator import add

import torch
from torch import Generator, Tensor, nn

from gen_models.core.batches import unit
from gen_models.core.contract import Draws, FitsSampler, Metrics, Model, Networks, Reconstructs
from gen_models.core.distributed import rank_and_world, sum_over_workers
from gen_models.core.randomness import seeded
from gen_models.core.sampling import BLOCK as SAMPLES
from gen_models.core.sampling import block_noise, sample
from gen_models.core.stacking import Alone, Ensemble, structure
from gen_models.metrics import FeatureSpace, Moments, frechet_distance
from pipelines.pictures import drawing

BLOCK = 500
"""Validation images in a block."""
NUM_SAMPLES = 2048
"""Samples for the Fréchet distance."""
NUM_CODES = 4096
"""Training images that a sampler is fitted to."""
_SEED = 0  # of validation: the same noise for every trial, so that they are compared fairly


class Evaluator:
    """Metrics of models on one validation split, and pictures.

    `train`, `validation`: uint8 (N, C, H, W), or floats (N, *shape) in [0, 1], on the device.
    `space`: where samples are compared with the validation data.
    """

    def __init__(self, train: Tensor, validation: Tensor, space: FeatureSpace) -> None:
        self.codes_from = train[:NUM_CODES]
        self.validation = validation
        self.device = validation.device
        self.space = space
        blocks = torch.split(validation, BLOCK)
        self.real = reduce(add, (Moments.of(space(unit(block))) for block in blocks))
        self._names: dict[Hashable, list[str]] = {}

    @torch.no_grad()
    def metrics(
        self, models: Sequence[Model], networks: Sequence[dict[str, nn.Module]]
    ) -> list[dict[str, float]]:
        """Validation metrics of each model by name, `val/…`. Several models must be of one
        structure. On several workers, every one must call."""
        for model, own in zip(models, networks, strict=True):
            if isinstance(model, FitsSampler):
                parts = torch.split(self.codes_from, BLOCK)
                model.fit_sampler(own, (unit(part) for part in parts), _SEED)
        alone = len(models) == 1
        subject = Alone(models[0], networks[0]) if alone else Ensemble(models, networks)
        names = self._names_of(models[0])
        values = [*self._means(subject, names), self._frechet(subject)]
        table = torch.stack(values).reshape(len(values), -1).T.tolist()
        found = [*(f"val/{name}" for name in names), frechet_name(self.space.name)]
        return [dict(zip(found, row, strict=True)) for row in table]

    def _names_of(self, model: Model) -> list[str]:
        key = structure(model)
        if key not in self._names:
            self._names[key] = validation_names(model)
        return self._names[key]

    def _means(self, subject: Alone | Ensemble, names: Sequence[str]) -> list[Tensor]:
        """Means over the validation images: a tensor a name, (), or (K,) of an ensemble."""
        if not names:
            return []
        rank, world = rank_and_world()
        blocks = list(enumerate(torch.split(self.validation, BLOCK)))
        mine = blocks[rank::world] or blocks[:1]  # without one, for the shape of the sums
        sums = [self._block_sums(subject, names, index, block) for index, block in mine]
        total = reduce(add, sums) * (rank < len(blocks))
        return list(sum_over_workers(total) / len(self.validation))

    def _block_sums(
        self, subject: Alone | Ensemble, names: Sequence[str], index: int, block: Tensor
    ) -> Tensor:
        """(M,) or (M, K), float64."""
        images = unit(block)

        def validate(model: Model, networks: Networks, draws: Draws) -> Metrics:
            return model.validate(networks, images, draws)

        def draw(model: Model) -> Draws:
            generator = seeded(Generator(self.device), _SEED, "validation", index)
            return model.draws(len(block), generator)

        found = subject.map(validate, draw)
        return torch.stack([found[name].double() for name in names]) * len(block)

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
        def generate(model: Model, networks: Networks, draws: Draws) -> Tensor:
            return model.generate(networks, draws["noise"])

        def draw(model: Model) -> Draws:
            return {"noise": block_noise(model, index, _SEED, self.device)}

        return Moments.of(self.space(subject.map(generate, draw)))

    @torch.no_grad()
    def pictures(self, model: Model, networks: Networks) -> dict[str, bytes]:
        """PNG files by name: samples, and reconstructions where the family can reconstruct.

        The same noise and the same images each time, so that a slider shows them change."""
        draw = drawing(model.spec.shape)
        samples = sample(model, networks, draw.num_samples, _SEED, self.device)
        found = {"samples": draw.samples(samples)}
        if isinstance(model, Reconstructs):
            images = unit(self.validation[:32])
            found["reconstructions"] = draw.pairs(images, model.reconstruct(networks, images))
        return found


def validation_names(model: Model) -> list[str]:
    """What a model's `validate` reports, found by running it on blank images."""
    networks = {name: network.eval() for name, network in model.networks().items()}
    with torch.no_grad():
        blank = torch.zeros(2, *model.spec.shape)
        return sorted(model.validate(networks, blank, model.draws(2, Generator())))


def frechet_name(space: str) -> str:
    """The name of the Fréchet distance: it holds the feature space and the number of samples."""
    return f"val/fd/{space}/{NUM_SAMPLES // 1000}k"


def matching(metric: str, names: Iterable[str]) -> list[str]:
    """The names that `metric` is, or is the beginning of: `val/fd` of `val/fd/lenet-mnist/2k`."""
    return [name for name in names if name == metric or name.startswith(f"{metric}/")]


def metric_names(model: Model, space: str) -> list[str]:
    """The names of what `Evaluator.metrics` reports of a model, in a feature space."""
    return [*(f"val/{name}" for name in validation_names(model)), frechet_name(space)]
