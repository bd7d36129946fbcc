"""Kernel distance (the KID of Bińkowski et al. 2018): the squared maximum mean discrepancy of
features under k(x, y) = (x·y / dim + 1)^3.

The field draws 100 subsets of 1,000 and reports the mean over them. Here it is computed from all
pairs, to which that mean tends as subsets are added: no seed, right for few samples and unequal
numbers, and less work up to some 10,000 samples. The field's deviation over subsets divided by
the root of their number is what the choice of subsets does to the mean, not what the samples do;
the standard error here is the samples'.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gen_models.core.errors import require
from gen_models.training.distributed import rank_and_world, sum_over_workers

BLOCK = 1024
"""Samples of either side in a block: of all pairs, so many squared are in memory at once."""


@dataclass(frozen=True)
class KernelDistance:
    """Of one set of features from another, float64 on their device."""

    value: Tensor
    """Unbiased estimate of the squared discrepancy, (); it may lie below 0."""
    standard_error: Tensor
    """Of `value`, over samples of both sides, (), by the jackknife. Near a distance of 0 it is
    rather too large (Efron & Stein 1981)."""


@torch.no_grad()
def kernel_distance(real: Tensor, generated: Tensor, block: int = BLOCK) -> KernelDistance:
    """Between features (N, dim) and (M, dim), N and M at least 3; nan where one is not finite.

    Products have the features' precision, at least float32, for their rounding errors have
    either sign and cancel over N x M pairs; sums over blocks are float64, for the distance is
    a small difference of them. Workers that hold the same features share the pairs. Raises
    `InputError` where there are too few features.
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
    found = torch.stack([value, variance.sqrt()])
    return KernelDistance(*torch.where(finite, found, torch.nan).unbind())


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    """k of each pair of features (N, dim) and (M, dim): (N, M)."""
    return torch.addmm(a.new_ones(()), a, b.T, alpha=1 / a.shape[1]).pow_(3)


def _between(
    a: Tensor, b: Tensor, block: int, rank: int = 0, world: int = 1
) -> tuple[Tensor, Tensor]:
    """The sum of k over b for each of a, (N,), and over a for each of b, (M,): what the blocks of
    a add that are worker `rank`'s of `world`."""
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
    """The sum of k over all others for each of a, (N,). Each pair is computed once."""
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
    """What one side's samples add to the variance of the distance, from what leaving each of
    them out would do to it."""
    num = len(within)
    effects = within / (num - 2) - across / num_other
    return 4 * effects.var() / num
