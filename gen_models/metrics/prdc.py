"""Improved precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al.
2020), as the package `prdc` of the latter computes them: the radius of a point's ball is the
distance to its k-th nearest neighbour, and points on its surface are outside. Workers that hold
the same features share the computation of distances.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gen_models.core.errors import require
from gen_models.training.distributed import rank_and_world, sum_over_workers

BLOCK = 256
"""Rows of a matrix of distances in memory at once."""
K_NEAREST = 5
"""k of precision, recall, density and coverage (Naeem et al. 2020)."""


@dataclass(frozen=True)
class Neighbours:
    """Features and the balls around them. Those of the real images serve all models."""

    features: Tensor
    """(N, dim), float64, because a small distance is a difference of large products."""
    squared_radii: Tensor
    """Squared distance of each feature to its k-th nearest neighbour, (N,)."""
    k: int

    @classmethod
    @torch.no_grad()
    def of(cls, features: Tensor, k: int = K_NEAREST, block: int = BLOCK) -> Neighbours:
        """Compute the balls of features (N, dim). Raises `InputError` unless 1 <= k <= N - 1."""
        most = len(features) - 1
        require(1 <= k <= most, "k", k, f"1 to {most}, for {len(features)} features")
        features = features.double()
        radii = features.new_zeros(len(features))
        for rows in _own_blocks(len(features), block):
            distances = _squared_distances(features[rows], features)
            # The nearest is the feature itself.
            radii[rows] = distances.topk(k + 1, largest=False).values[:, -1]
        return cls(features, sum_over_workers(radii), k)


@dataclass(frozen=True)
class PRDC:
    """Precision, recall, density and coverage, each float64 () on the features' device."""

    precision: Tensor
    """Part of the generated features that lie in the ball of a real one."""
    recall: Tensor
    """Part of the real features that lie in the ball of a generated one."""
    density: Tensor
    """Mean number of real balls in which a generated feature lies, divided by k: about 1 for a
    perfect model; may exceed 1."""
    coverage: Tensor
    """Part of the real features in whose ball a generated one lies."""


def compute_prdc(real: Neighbours, generated: Tensor, block: int = BLOCK) -> PRDC:
    """Compare generated features (M, dim) with real ones; k is that of `real`.

    All results are nan if a feature is not finite. Raises `InputError` unless M is above k."""
    return estimate_prdc(real, generated, block)[0]


@torch.no_grad()
def estimate_prdc(real: Neighbours, generated: Tensor, block: int = BLOCK) -> tuple[PRDC, PRDC]:
    """Return what `compute_prdc` does, and the standard error of each value: of a mean over
    independent features, M generated or N real ones, with the balls of the other side as they
    are."""
    fake = Neighbours.of(generated, real.k, block)
    num_real, num = len(real.features), len(generated)
    balls = fake.squared_radii.new_zeros(num)  # real ones that each generated feature lies in
    recalled, covered = balls.new_zeros(()), balls.new_zeros(())
    for rows in _own_blocks(num_real, block):
        distances = _squared_distances(real.features[rows], fake.features)
        inside = distances < real.squared_radii[rows, None]
        balls += inside.sum(0)
        covered += inside.any(1).sum()
        recalled += (distances < fake.squared_radii).any(1).sum()
    for total in (balls, recalled, covered):
        sum_over_workers(total)
    precision, density = (balls > 0).double().mean(), balls.mean() / real.k
    recall, coverage = recalled / num_real, covered / num_real
    finite = torch.isfinite(real.features).all() & torch.isfinite(fake.features).all()
    values = torch.stack([precision, recall, density, coverage])
    variances = values * (1 - values)  # of 0 or 1 for each feature
    variances[2] = (balls / real.k).var()
    errors = (variances.clamp(min=0) / values.new_tensor([num, num_real, num, num_real])).sqrt()
    found, around = (torch.where(finite, each, torch.nan) for each in (values, errors))
    return PRDC(*found.unbind()), PRDC(*around.unbind())


def _own_blocks(num: int, block: int) -> list[slice]:
    """Return this worker's blocks of `num` rows."""
    rank, world = rank_and_world()
    return [slice(start, start + block) for start in range(0, num, block)][rank::world]


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Compute squared distances between (N, dim) and (M, dim): (N, M)."""
    products = torch.addmm(b.square().sum(1), a, b.T, alpha=-2)
    return products.add_(a.square().sum(1, keepdim=True)).clamp_(min=0)
