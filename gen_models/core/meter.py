"""Metrics summed on the device, so that a step never waits for it; read once an epoch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gen_models.core.distributed import sum_over_workers


class Meter:
    """Means of one set of metrics over the rows seen, in float64.

    A metric is a number (), or one a member (K,).
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.sums: Tensor | None = None
        self.rows = 0

    @torch.no_grad()
    def add(self, metrics: Mapping[str, Tensor], rows: int) -> None:
        """Count in the means over `rows` images."""
        values = torch.stack([value.detach() for value in metrics.values()])
        if self.sums is None:
            self.names = list(metrics)
            self.sums = torch.zeros_like(values, dtype=torch.float64)
        self.sums.add_(values, alpha=rows)
        self.rows += rows

    def take(self, other: Meter, member: int) -> None:
        """Count in what `other` has summed for one of its members."""
        if other.sums is None:
            return
        self.names = other.names
        sums = other.sums[:, member]
        self.sums = sums.clone() if self.sums is None else self.sums + sums
        self.rows += other.rows

    def pop(self) -> dict[str, float]:
        """Means since the last call over all images of all workers. Waits for the device."""
        if self.sums is None:
            return {}
        rows = self.sums.new_full((1,), float(self.rows))
        totals = sum_over_workers(torch.cat([self.sums, rows]))
        names, self.sums, self.rows = self.names, None, 0
        return dict(zip(names, (totals[:-1] / totals[-1]).tolist(), strict=True))
