"""The contestants of `metrics_throughput`: distances of two sets of features, timed.

genpipe's Fréchet distance, kernel distance and precision, recall, density and coverage; of
torchmetrics and torch-fidelity what they have of these, with their own defaults but for the
number of neighbours.

    python -m benchmarks.distances {ours,torchmetrics,torch_fidelity} FEATURES.npz
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

K_NEAREST = 5
_WARM_UP = 1_200
"""Features that each distance is computed of before it is timed: a kernel distance's subset of
1,000 and some more."""

Distance = Callable[[Tensor, Tensor], object]


def ours() -> dict[str, Distance]:
    from gen_models.metrics import (
        Moments,
        Neighbours,
        compute_prdc,
        frechet_distance,
        kernel_distance,
    )

    return {
        "frechet": lambda real, fake: frechet_distance(Moments.of(real), Moments.of(fake)),
        "kernel": kernel_distance,
        "prdc": lambda real, fake: compute_prdc(Neighbours.of(real, K_NEAREST), fake),
    }


class _AsTheyAre(nn.Module):
    """Features for torchmetrics that are already features."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.num_features = dim

    def forward(self, features: Tensor) -> Tensor:
        return features


def torchmetrics() -> dict[str, Distance]:
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    def distance(kind: Any, real: Tensor, fake: Tensor) -> object:
        metric = kind(feature=_AsTheyAre(real.shape[1]))
        metric.update(real, real=True)
        metric.update(fake, real=False)
        return metric.compute()

    return {
        "frechet": partial(distance, FrechetInceptionDistance),
        "kernel": partial(distance, KernelInceptionDistance),
    }


def torch_fidelity() -> dict[str, Distance]:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    def frechet(real: Tensor, fake: Tensor) -> object:
        statistics = (fid_features_to_statistics(features) for features in (real, fake))
        return fid_statistics_to_metric(*statistics, verbose=False)

    return {
        "frechet": frechet,
        "kernel": lambda real, fake: kid_features_to_metric(real, fake, verbose=False),
        "prdc": lambda real, fake: prc_features_to_metric(
            fake, real, prc_neighborhood=K_NEAREST, verbose=False
        ),
    }


CONTESTANTS = {"ours": ours, "torchmetrics": torchmetrics, "torch_fidelity": torch_fidelity}


def main() -> None:
    name, path = sys.argv[1:]
    with np.load(path) as archive:
        real, fake = (torch.from_numpy(archive[side]) for side in ("real", "generated"))
    seconds = {}
    for metric, distance in CONTESTANTS[name]().items():
        distance(real[:_WARM_UP], fake[:_WARM_UP])
        start = time.perf_counter()
        distance(real, fake)
        seconds[metric] = time.perf_counter() - start
    print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main()
