"""Search spaces of the families: a file a family, of the same name. Imports neither torch nor
Ray."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gen_models.core import families


@dataclass(frozen=True)
class Space:
    """The hyperparameters that a search of a family varies, and how it ranks trials."""

    domains: Mapping[str, Any]
    """What is searched, nested as the config: `{"model": {…}, "optim": {…}}`. Each is text in Ray
    Tune's words, `"loguniform(3e-4, 1e-2)"`, as of `--space`, or one of Ray Tune's domains,
    `tune.loguniform(3e-4, 1e-2)`. With text, `genpipe search FAMILY --help` need not import Ray,
    which takes seconds."""
    metric: str
    """The metric that ranks trials. It must depend on searched settings through the trained model
    alone: a loss that contains a searched weight ranks the smallest weight best."""
    mode: Literal["min", "max"]
    """Whether a small or a large `metric` is better."""
    epochs: int
    """Maximum number of epochs of a trial."""
    grace_period: int
    """Epochs before a trial may be stopped."""
    measures: Mapping[str, str | bool] = field(default_factory=dict)
    """Fields of the model's config on which it depends what the metrics measure, such as the
    likelihood, each with its value in runs that were recorded before it was a field. Runs that
    differ in one are never ranked together, so a search cannot vary it."""


def space(family: str) -> Space:
    """Import the search space of a family.

    Raises `InputError` if there is no such family, or if its package is broken.
    """
    search_space: Space = families.space(family)
    return search_space
