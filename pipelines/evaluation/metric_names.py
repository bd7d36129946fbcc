"""Names of validation and test metrics.

A name holds what the number depends on: `val/fd/lenet-mnist/2k` is a Fréchet distance in the
feature space `lenet-mnist`, from 2,048 samples, and `test/nll/iw5000/1000` a bound by 5,000
samples of each of 1,000 images. Numbers of samples and images are exact: `2k` is 2,048 and `10k`
is 10,000, the defaults of validation and of `evaluate`, and every other number is written out. (Up
to version 0.2 the rest above thousands was cut off, so that `2k` of the test split could be 2,500
samples.) This module imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable

BEST_CURVE = "best/curve"
"""The best value so far of the metric that ranks: of a run after each epoch, of a search after
each trial that ends. MLflow's pages sort charts by the part of a name before the last slash, then
by the rest, and put names without a slash last: so this one is the first."""

NUM_SAMPLES = 2048
"""Samples drawn for the Fréchet distance of a validation."""


BOUNDED_IMAGES = 1000
"""Validation images, the first ones, whose likelihood is bounded: each takes many decodings."""
_ABBREVIATED = {NUM_SAMPLES: "2k", 10_000: "10k"}
_STANDARD_ERROR = "_standard_error"


def where(space: str, num: int) -> str:
    """Return the end of a metric's name: the feature space (or what assigns modes) and the number
    of samples, such as `lenet-mnist/10k` or `ring8/300`."""
    return f"{space}/{_ABBREVIATED.get(num, num)}"


def bound_of(samples: int, images: int) -> str:
    """Return the end of the name of an importance-weighted bound: the samples of each image, and
    the images, as in `iw5000/1000`."""
    return f"iw{samples}/{images}"


def mean_over(samples: int, images: int) -> str:
    """Return the end of the name of a Monte Carlo mean: the samples of each image, and the
    images, as in `mc5000/1000`."""
    return f"mc{samples}/{images}"


def standard_error(name: str) -> str:
    """Return the name of a quantity's standard error: `kd_standard_error` of `kd`."""
    return f"{name}{_STANDARD_ERROR}"


def frechet_name(space: str) -> str:
    """Return the name of the Fréchet distance that validation reports in a feature space."""
    return f"val/fd/{where(space, NUM_SAMPLES)}"


def described(metric: str) -> str:
    """Return a metric's name with what the name leaves out: of how many validation images the
    bound on the likelihood is the mean."""
    bounded = metric == "val/nll" or metric.startswith("val/nll/")
    return f"{metric} of at most {BOUNDED_IMAGES} images" if bounded else metric


def matching(metric: str, names: Iterable[str]) -> list[str]:
    """Return those of `names` that equal `metric` or lie below it: `val/fd` matches
    `val/fd/lenet-mnist/2k`."""
    return [name for name in names if name == metric or name.startswith(f"{metric}/")]
