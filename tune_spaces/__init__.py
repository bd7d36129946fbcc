"""What is searched: a space per family, in the file of the family's name."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal


@dataclass(frozen=True)
class Space:
    """What is searched for a family."""

    domains: Mapping[str, Any]
    """Ray Tune domains, shaped like the config: `{"model": {…}, "optim": {…}}`."""
    metric: str
    """Ranks trials. It must not depend on anything that is searched but through the model."""
    mode: Literal["min", "max"]
    epochs: int
    """What a trial may use at most."""
    grace_period: int
    """Epochs before a trial may be stopped."""


def space(family: str) -> Space:
    """The space of a family."""
    found: Space = import_module(f"tune_spaces.{family}").SPACE
    return found
