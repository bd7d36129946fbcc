"""Metrics summed on the device, so that a step never waits for it; read once an epoch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gen_models.training.distributed import sum_over_workers


class Meter:
    """Means of one set of metrics over the rows seen, in float64.

    A metric is a number (), or one a member (K,). Sums stay in one tensor for good, so that a
    step recorded as a CUDA graph finds them.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.sums: Tensor | None = None
        """A row for each metric, and in the last one the number of rows seen."""

    @torch.no_grad()
    def add(self, metrics: Mapping[str, Tensor], rows: int) -> None:
        """Count in the means over `rows` images."""
        values = [value.detach() for value in metrics.values()]
        means = torch.stack([*values, torch.ones_like(values[0])])
        if self.sums is None:
            self.names = list(metrics)
            self.sums = torch.zeros_like(means, dtype=torch.float64)
        self.sums.add_(means, alpha=rows)

    def take(self, other: Meter, member: int) -> None:
        """Count in what `other` has summed for one of its members."""
        if other.sums is None:
            return
        sums = other.sums[:, member]
        if self.sums is None:
            self.names, self.sums = other.names, sums.clone()
        else:
            self.sums.add_(sums)

    def pop(self) -> dict[str, float]:
        """Means since the last call over all images of all workers. Waits for the device."""
        if self.sums is None:
            return {}
        *totals, rows = sum_over_workers(self.sums.clone()).tolist()
        self.clear()
        return dict(zip(self.names, (t / rows for t in totals), strict=True)) if rows else {}

    def clear(self) -> None:
        """Forget what was summed."""
        if self.sums is not None:
            self.sums.zero_()

    def tensors(self) -> list[Tensor]:
        """What `add` changes."""
        return [] if self.sums is None else [self.sums]
