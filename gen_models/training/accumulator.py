"""Accumulates metrics on the device, so that a step does not wait for it; read once an epoch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gen_models.training.distributed import sum_over_workers


class Meter:
    """Means of one set of metrics over rows, in float64.

    A metric is a scalar (), or has a value for each of K learners (K,). The sums are always in the
    same tensor, so that a step recorded as a CUDA graph adds to them.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.sums: Tensor | None = None
        """Sum of each metric, and last the number of rows: (metrics + 1,) or (metrics + 1, K)."""

    @torch.no_grad()
    def add(self, metrics: Mapping[str, Tensor], rows: int) -> None:
        """Add the means of metrics over `rows` images."""
        values = [value.detach() for value in metrics.values()]
        means = torch.stack([*values, torch.ones_like(values[0])])
        if self.sums is None:
            self.names = list(metrics)
            self.sums = torch.zeros_like(means, dtype=torch.float64)
        self.sums.add_(means, alpha=rows)

    def take(self, other: Meter, member: int) -> None:
        """Add the sums of learner number `member` of `other`."""
        if other.sums is None:
            return
        sums = other.sums[:, member]
        if self.sums is None:
            self.names, self.sums = other.names, sums.clone()
        else:
            self.sums.add_(sums)

    def pop(self) -> dict[str, float]:
        """Return the means over all images of all workers since the last call. Waits for the
        device."""
        if self.sums is None:
            return {}
        *totals, rows = sum_over_workers(self.sums.clone()).tolist()
        self.clear()
        return dict(zip(self.names, (t / rows for t in totals), strict=True)) if rows else {}

    def clear(self) -> None:
        """Set the sums to 0."""
        if self.sums is not None:
            self.sums.zero_()

    def tensors(self) -> list[Tensor]:
        """List the tensors that `add` changes."""
        return [] if self.sums is None else [self.sums]
