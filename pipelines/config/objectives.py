"""What is asked for on the command line: metrics, and which of their values are good."""

from __future__ import annotations

import re
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar, cast, get_args

from gen_models.core.errors import InputError, require
from pipelines.config.run import Mode, Objective, Run, Search
from tune_spaces import space

_KNOWN: dict[Mode, set[str]] = {
    "max": {"elbo", "bound", "likelihood", "precision", "recall", "density", "coverage"},
    "min": {"error", "distance", "fd", "kd", "nll", "reconstruction"},
}
"""Words of a metric's name that say which of its values are good."""
R = TypeVar("R", bound=Run)


def split_objectives(
    args: Sequence[str], prog: str
) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    """The values of every `--metric`, those of every `--mode`, and the other arguments."""
    parser = ArgumentParser(prog=prog, usage=SUPPRESS, add_help=False, allow_abbrev=False)
    parser.add_argument("--metric", action="append", default=[])
    parser.add_argument("--mode", action="append", default=[])
    found, rest = parser.parse_known_args(args)
    return found.metric, found.mode, rest


def with_objectives(run: R, metrics: Sequence[str], modes: Sequence[str]) -> R:
    """`run` with the objectives that were given, if any.

    Raises `InputError` where there are more than `run` can have, or a mode is wrong or missing.
    """
    given = [_as_mode(mode) for mode in modes]
    if not metrics and not modes:
        return run
    asked = metrics or [run.metric]
    each = f"none, or one for each --metric, {len(asked)}"
    require(len(modes) in (0, len(asked)), "mode", " ".join(modes), each)
    found = given or [direction(run.family, metric) for metric in asked]
    (metric, mode), *further = zip(asked, found, strict=True)
    if not further:
        return replace(run, metric=metric, mode=mode)
    if not isinstance(run, Search):
        several = " ".join(asked)
        raise InputError(f"metric = {several!r}: expected one, for only a search takes several")
    return replace(run, metric=metric, mode=mode, further=tuple(further))


def _as_mode(text: str) -> Mode:
    require(text in get_args(Mode), "mode", text, "min or max")
    return cast(Mode, text)


def direction(family: str, metric: str) -> Mode:
    """Whether a small or a large metric is good: as the family's space says, or the metric's name.

    Raises `InputError` where neither does.
    """
    own = space(family)
    if f"{metric}/".startswith(f"{own.metric}/"):
        return own.mode
    words = set(re.split("[/_]", metric))
    found = [mode for mode, known in _KNOWN.items() if words & known]
    either = f"one whose name says what is good, as {own.metric}, or --mode min or max with it"
    require(len(found) == 1, "metric", metric, either)
    return found[0]


def described(objectives: Sequence[Objective]) -> str:
    """`val/elbo (max), val/fd (min)`"""
    return ", ".join(f"{metric} ({mode})" for metric, mode in objectives)
