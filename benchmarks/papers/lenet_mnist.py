"""How well the classifier whose features samples of MNIST are compared in tells its digits apart.

Published is LeNet-5 without distortions (LeCun et al. 1998, section III: 0.95% of the test images
wrong). Ours has rectifiers and more channels, is trained for six passes over five sixths of the
training images, and must reach 99.2%.

    python -m benchmarks.papers.lenet_mnist --data-root DIR
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.figures import DATA_ROOT, finish, scratch, setting
from pipelines.data import load
from pipelines.evaluation.feature_spaces import make_extractor
from pipelines.store.layout import Store


@dataclass(frozen=True)
class Options:
    """Train the classifier of a data set."""

    data: str = "mnist"
    """A labelled data set."""
    data_root: Path = DATA_ROOT
    """Where torchvision's MNIST lies; the environment's GENPIPE_DATA_ROOT is the default."""


def main() -> None:
    options = tyro.cli(Options, description=__doc__, args=sys.argv[1:])
    found = setting(options)
    dataset = load(options.data, options.data_root)
    start = time.perf_counter()
    with scratch() as store:
        accuracy = make_extractor(dataset, Store.at(store)).accuracy
    if accuracy is None:
        raise SystemExit(f"data = {options.data!r}: expected images with labels")
    figures = {"accuracy": accuracy, "seconds": time.perf_counter() - start}
    published = {"accuracy_published": 0.9905} if options.data == "mnist" else {}
    finish("papers.lenet_mnist", figures | published, found)


if __name__ == "__main__":
    main()
