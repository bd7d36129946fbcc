"""What validation says of a model, through its contract alone.

The same numbers whatever the number of workers and the batch size: validation images come in
fixed blocks with fixed noise, workers take blocks in turn, and sums are added up over workers.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from gen_models.core.contract import FitsSampler, Model, Networks, Reconstructs
from gen_models.core.distributed import rank_and_world, sum_over_workers
from gen_models.core.randomness import seeded
from gen_models.core.sampling import sample, sample_blocks
from gen_models.metrics import Moments, PCAFeatures, frechet_distance
from pipelines.pictures import grid_png, pairs_png

BLOCK = 500
"""Validation images in a block."""
NUM_SAMPLES = 2048
"""Samples for the Fréchet distance."""
NUM_CODES = 4096
"""Training images that a sampler is fitted to."""
_SEED = 0  # of validation: the same noise for every trial, so that they are compared fairly


def unit(images: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """uint8 images as floats in [0, 1], on the device."""
    return images.to(device, non_blocking=True).to(torch.get_default_dtype()).div_(255.0)


class Evaluator:
    """Metrics of a model on one validation split, and pictures.

    `train`, `validation`: uint8 (N, C, H, W), on the device or off it.
    """

    def __init__(
        self, model: Model, train: Tensor, validation: Tensor, device: torch.device | str
    ) -> None:
        self.model = model
        self.codes_from = train[:NUM_CODES]
        self.validation = validation
        self.device = torch.device(device)
        self.names = validation_names(model)
        self.features = PCAFeatures(unit(validation, self.device))

    @torch.no_grad()
    def metrics(self, networks: Networks) -> dict[str, float]:
        """Validation metrics by name, `val/…`. On several workers, every one must call."""
        if isinstance(self.model, FitsSampler):
            parts = torch.split(self.codes_from, BLOCK)
            batches = (unit(part, self.device) for part in parts)
            self.model.fit_sampler(networks, batches, _SEED)
        found = self._means(networks) | {"frechet_pca": self._frechet(networks)}
        return {f"val/{name}": value for name, value in found.items()}

    def _means(self, networks: Networks) -> dict[str, float]:
        rank, world = rank_and_world()
        generator = Generator(self.device)
        totals = torch.zeros(len(self.names), dtype=torch.float64, device=self.device)
        for index, block in enumerate(torch.split(self.validation, BLOCK)):
            if index % world == rank:
                draws = self.model.draws(len(block), seeded(generator, _SEED, "validation", index))
                found = self.model.validate(networks, unit(block, self.device), draws)
                if found:
                    totals += torch.stack([found[n].double() * len(block) for n in self.names])
        means = sum_over_workers(totals) / len(self.validation)
        return dict(zip(self.names, means.tolist(), strict=True))

    def _frechet(self, networks: Networks) -> float:
        moments = Moments.zero(self.features.dim, self.device)
        rank, world = rank_and_world()
        blocks = sample_blocks(
            self.model, networks, NUM_SAMPLES, _SEED, self.device, rank=rank, world=world
        )
        for block in blocks:
            moments.add(self.features(block))
        for total in (moments.count, moments.total, moments.outer):
            sum_over_workers(total)
        return frechet_distance(self.features.moments, moments)

    @torch.no_grad()
    def pictures(self, networks: Networks) -> dict[str, bytes]:
        """PNG files by name: samples, and reconstructions where the family can reconstruct.

        The same noise and the same images each time, so that a slider shows them change."""
        found = {"samples": grid_png(sample(self.model, networks, 64, _SEED, self.device))}
        if isinstance(self.model, Reconstructs):
            images = unit(self.validation[:32], self.device)
            found["reconstructions"] = pairs_png(images, self.model.reconstruct(networks, images))
        return found


def validation_names(model: Model) -> list[str]:
    """What a model's `validate` reports, found by running it on blank images."""
    networks = {name: network.eval() for name, network in model.networks().items()}
    with torch.no_grad():
        blank = torch.zeros(2, *model.spec.shape)
        return sorted(model.validate(networks, blank, model.draws(2, Generator())))


def metric_names(model: Model) -> list[str]:
    """The names of what `Evaluator.metrics` reports of a model."""
    return [f"val/{name}" for name in [*validation_names(model), "frechet_pca"]]
