"""The least that a search must compute: its configs in turn, in one process, in fp32.

Nothing is validated, saved or told to anybody, and only the loops are timed. With one config
it is also the steady state of plain PyTorch: it says when each epoch ended.

    python -m benchmarks.baselines.bare_loop --data mnist.npz --trials 48
"""

from __future__ import annotations

import time

from torch import Tensor

from benchmarks.baselines.request import Request, answer, parse
from benchmarks.baselines.vae import Point, load, make, points, train_epoch


def train(point: Point, images: Tensor, request: Request) -> list[float]:
    """Train one config; when each epoch ended."""
    model, optimizer = make(point, images)
    ends = []
    for _ in range(request.epochs):
        train_epoch(model, optimizer, images, request.batch_size, point.kl_weight)
        ends.append(time.perf_counter())
    return ends


def main() -> None:
    request = parse(__doc__)
    images, _ = load(request.data)
    chosen = [Point()] if request.trials == 1 else points(request.trials)
    start = time.perf_counter()
    ends = [train(point, images, request) for point in chosen]
    seconds = time.perf_counter() - start
    per_epoch = len(images) // request.batch_size * request.batch_size
    answer({"seconds": seconds, "epoch_ends": ends[0], "images_per_epoch": per_epoch})


if __name__ == "__main__":
    main()
