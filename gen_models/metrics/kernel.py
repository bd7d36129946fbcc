"""Kernel distance (the KID of Bińkowski et al. 2018): the squared maximum mean discrepancy of
features under k(x, y) = (x·y / dim + 1)^3.

Usually the mean over 100 random subsets of 1,000 features is reported. Here all pairs are used, to
which that mean converges with more subsets: this needs no seed, holds for few samples and unequal
numbers, and is less work up to some 10,000 samples. The usual deviation over subsets measures the
effect of the choice of subsets; the standard error here measures the effect of the samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gen_models.core.errors import require
from gen_models.training.distributed import rank_and_world, sum_over_workers

BLOCK = 1024
"""Samples of either side in a block: BLOCK x BLOCK pairs are in memory at once."""


@dataclass(frozen=True)
class KernelDistance:
    """Distance between two sets of features, float64 on their device."""

    value: Tensor
    """Unbiased estimate of the squared discrepancy, (); it may be negative."""
    standard_error: Tensor
    """Standard error of `value` over samples of both sides, (), by the jackknife, which
    overestimates it near a distance of 0 (Efron & Stein 1981)."""


@torch.no_grad()
def kernel_distance(real: Tensor, generated: Tensor, block: int = BLOCK) -> KernelDistance:
    """Compute the distance between features (N, dim) and (M, dim), N and M at least 3.

    The result is nan if a feature is not finite. Products have the features' precision, at least
    float32, because their rounding errors have either sign and cancel over N x M pairs; sums over
    blocks are float64, because the distance is a small difference of them. Workers that hold the
    same features share the pairs. Raises `InputError` if there are too few features.
    """
    for name, features in (("real", real), ("generated", generated)):
        require(len(features) >= 3, f"{name} features", len(features), "at least 3")
    dtype = torch.promote_types(torch.promote_types(real.dtype, generated.dtype), torch.float32)
    a, b = real.to(dtype), generated.to(dtype)
    n, m = len(a), len(b)
    within_a, within_b = _within(a, block), _within(b, block)
    to_b, to_a = map(sum_over_workers, _between(a, b, block, *rank_and_world()))
    value = within_a.sum() / (n * (n - 1)) + within_b.sum() / (m * (m - 1))
    value -= 2 * to_b.sum() / (n * m)
    variance = _variance(within_a, to_b, m) + _variance(within_b, to_a, n)
    finite = torch.isfinite(a).all() & torch.isfinite(b).all()
    values = torch.stack([value, variance.sqrt()])
    return KernelDistance(*torch.where(finite, values, torch.nan).unbind())


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    """Compute k of each pair of features (N, dim) and (M, dim): (N, M)."""
    return torch.addmm(a.new_ones(()), a, b.T, alpha=1 / a.shape[1]).pow_(3)


def _between(
    a: Tensor, b: Tensor, block: int, rank: int = 0, world: int = 1
) -> tuple[Tensor, Tensor]:
    """Sum k over b for each feature of a, (N,), and over a for each of b, (M,), for the blocks
    of a that are worker `rank`'s of `world`."""
    to_b, to_a = (x.new_zeros(len(x), dtype=torch.float64) for x in (a, b))
    rows, row_sums = torch.split(a, block), torch.split(to_b, block)
    columns, column_sums = torch.split(b, block), torch.split(to_a, block)
    for i, each in list(enumerate(rows))[rank::world]:
        for j, other in enumerate(columns):
            values = _kernel(each, other)
            row_sums[i].add_(values.sum(1))
            column_sums[j].add_(values.sum(0))
    return to_b, to_a


def _within(a: Tensor, block: int) -> Tensor:
    """Sum k over all others for each feature of a, (N,). Each pair is computed once."""
    sums = a.new_zeros(len(a), dtype=torch.float64)
    rank, world = rank_and_world()
    for start in range(rank * block, len(a), world * block):
        stop = start + block
        rows = a[start:stop]
        to_later, from_rows = _between(rows, a[stop:], block)
        sums[start:stop] += to_later + _kernel(rows, rows).fill_diagonal_(0).sum(1)
        sums[stop:] += from_rows
    return sum_over_workers(sums)


def _variance(within: Tensor, across: Tensor, num_other: int) -> Tensor:
    """Compute one side's part of the variance of the distance, by the jackknife: from the effects
    of leaving out each sample."""
    num = len(within)
    effects = within / (num - 2) - across / num_other
    return 4 * effects.var() / num
