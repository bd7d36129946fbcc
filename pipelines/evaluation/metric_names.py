"""Names of validation and test metrics.

A name holds what the number depends on: `val/fd/lenet-mnist/2k` is a Fréchet distance in the
feature space `lenet-mnist`, from 2,048 samples. This module imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable

NUM_SAMPLES = 2048
"""Samples drawn for the Fréchet distance of a validation."""


def where(space: str, num: int) -> str:
    """Return the end of a metric's name: the feature space (or what assigns modes) and the number
    of samples, such as `lenet-mnist/10k` or `ring8/300`."""
    return f"{space}/{num // 1000}k" if num >= 1000 else f"{space}/{num}"


def frechet_name(space: str) -> str:
    """Return the name of the Fréchet distance that validation reports in a feature space."""
    return f"val/fd/{where(space, NUM_SAMPLES)}"


def matching(metric: str, names: Iterable[str]) -> list[str]:
    """Return those of `names` that equal `metric` or lie below it: `val/fd` matches
    `val/fd/lenet-mnist/2k`."""
    return [name for name in names if name == metric or name.startswith(f"{metric}/")]
