"""Objectives: a metric and the direction in which it is good."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from gen_models.core.errors import require
from tune_spaces import space

Mode = Literal["min", "max"]

_WORST = 1e30
"""A finite stand-in for a metric that is not finite: Tune never stops a trial that reports NaN,
and Optuna refuses NaN."""

_KNOWN: dict[Mode, set[str]] = {
    "max": {"elbo", "bound", "likelihood", "precision", "recall", "density", "coverage"},
    "min": {"error", "distance", "fd", "kd", "nll", "reconstruction"},
}
"""Words in a metric's name that say in which direction it is good."""


@dataclass(frozen=True, order=True)
class Objective:
    """A metric that is minimised or maximised."""

    metric: str
    mode: Mode

    def cost(self, value: float) -> float:
        """Return the value as a number that is small where the value is good: a sort key."""
        return -value if self.mode == "max" else value

    def value(self, cost: float) -> float:
        """Return the value that has a cost."""
        return -cost if self.mode == "max" else cost

    def better(self, a: float, b: float) -> bool:
        """Return whether `a` is strictly better than `b`."""
        return self.cost(a) < self.cost(b)

    @property
    def worst(self) -> float:
        """A finite value that is worse than any that a model reaches."""
        return -_WORST if self.mode == "max" else _WORST

    def __str__(self) -> str:
        return f"{self.metric} ({self.mode})"


def describe(objectives: Sequence[Objective]) -> str:
    """Return the objectives as text: `val/elbo (max), val/fd (min)`."""
    return ", ".join(map(str, objectives))


def as_list(name: str, value: str | Sequence[str] | None) -> list[str]:
    """Return one text, several or none as a list. Raises `InputError` that names the setting if
    the value is anything else."""
    values = [] if value is None else [value] if isinstance(value, str) else value
    is_list = isinstance(values, Sequence) and all(isinstance(each, str) for each in values)
    require(is_list and (value is None or bool(values)), name, value, "text, or a list of texts")
    return list(values)


def parse_mode(text: str) -> Mode:
    """Return `text` as a mode. Raises `InputError` unless it is `min` or `max`."""
    require(text in get_args(Mode), "mode", text, "min or max")
    return cast(Mode, text)


def make_objectives(
    family: str, metrics: Sequence[str], modes: Sequence[str] = ()
) -> list[Objective]:
    """Return an objective for each metric. Without modes, their directions are looked up.

    Raises `InputError` if a mode is unknown, or if there are neither none nor as many as metrics.
    """
    known = [parse_mode(mode) for mode in modes]
    expected = f"none, or one for each --metric, {len(metrics)}"
    require(len(known) in (0, len(metrics)), "mode", " ".join(modes), expected)
    known = known or [known_mode(family, metric) for metric in metrics]
    return [Objective(metric, mode) for metric, mode in zip(metrics, known, strict=True)]


def known_mode(family: str, metric: str) -> Mode:
    """Return the direction of a metric, from the family's space or from the metric's name.

    Raises `InputError` if neither tells.
    """
    own = space(family)
    if f"{metric}/".startswith(f"{own.metric}/"):
        return own.mode
    words = set(re.split("[/_]", metric))
    found = [mode for mode, known in _KNOWN.items() if words & known]
    expected = f"one whose name says what is good, as {own.metric}, or --mode min or max with it"
    require(len(found) == 1, "metric", metric, expected)
    return found[0]
