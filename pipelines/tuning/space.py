"""Who chooses the configs of a search, and who stops its trials: Tune's and Optuna's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from ray import tune
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    PopulationBasedTraining,
    TrialScheduler,
)
from ray.tune.search import BasicVariantGenerator, SearchAlgorithm, Searcher
from ray.tune.search.sample import Categorical, Domain, Float, Integer, LogUniform

from gen_models.core.config import flatten
from gen_models.core.errors import InputError
from pipelines.config.run import Search, to_dict
from tune_spaces import space


def domains(run: Search) -> dict[str, Any]:
    """What is searched: the family's space, less what was given on the command line.

    Where a run is confirmed, the seeds after its own, which was chosen for what came of it.
    """
    if run.confirms:
        return {"seed": tune.choice(range(run.seed + 1, run.seed + 1 + run.trials))}

    def free(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for name, value in content.items():
            path = f"{prefix}{name}"
            if isinstance(value, Mapping):
                kept |= {name: inner} if (inner := free(value, f"{path}.")) else {}
            elif path not in run.fixed:
                kept[name] = _as_text(value)
        return kept

    found = free(space(run.family).domains)
    if not found:
        raise InputError("every setting of the space was given: `genpipe train` runs one config")
    if run.scheduler == "pbt" and not _continuous(found):
        raise InputError(
            "scheduler = 'pbt': expected a continuous setting that is searched, to change"
        )
    return found


def _as_text(domain: Any) -> Any:
    """A choice among tuples, such as layers' widths, as one among their texts: Tune looks for
    domains within tuples, and Optuna knows none. `from_dict` reads them."""
    if not isinstance(domain, Categorical):
        return domain
    return tune.choice([_text(category) for category in domain.categories])


def _text(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (tuple, list)) else value


def default_point(run: Search, searched: Mapping[str, Any]) -> dict[str, Any]:
    """The config's own values of what is searched, in the same shape: the first trial."""
    own = to_dict(run)

    def pick(shape: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: pick(inner, values[name]) if isinstance(inner, Mapping) else _text(values[name])
            for name, inner in shape.items()
        }

    return pick(searched, own)


def grid(run: Search, searched: Mapping[str, Any]) -> dict[str, Any]:
    """The space as a grid, in the same shape: every choice, and of each continuous setting
    `grid_points` values from end to end, evenly, or by equal factors if that is its scale."""

    def points(domain: Any) -> Any:
        if isinstance(domain, Mapping):
            return {name: points(inner) for name, inner in domain.items()}
        return tune.grid_search(_points(domain, run.grid_points))

    found: dict[str, Any] = points(searched)
    return found


def grid_size(run: Search) -> int:
    """Trials of a search over the grid."""
    leaves = flatten(domains(run)).values()
    return prod(len(_points(domain, run.grid_points)) for domain in leaves)


def _points(domain: Domain, num: int) -> list[Any]:
    if isinstance(domain, Categorical):
        return list(domain.categories)
    if not isinstance(domain, (Float, Integer)):
        raise InputError(f"searcher = 'grid': expected a space without {domain}")
    spaced = np.geomspace if isinstance(domain.get_sampler(), LogUniform) else np.linspace
    values: list[float] = spaced(domain.lower, domain.upper, num).tolist()
    if isinstance(domain, Integer):
        return sorted({min(round(value), domain.upper - 1) for value in values})
    return values


def make_searcher(run: Search, searched: Mapping[str, Any]) -> Searcher | SearchAlgorithm:
    """Who chooses the configs."""
    first = default_point(run, searched)
    if run.chosen_searcher == "grid":
        return BasicVariantGenerator()
    if run.chosen_searcher == "random":
        return BasicVariantGenerator(points_to_evaluate=[first], random_state=run.seed)
    from pipelines.tuning.searchers import make_tpe  # and with it Optuna

    return make_tpe(run, first)


def make_scheduler(run: Search, searched: Mapping[str, Any]) -> TrialScheduler:
    """Who stops trials. Epochs are those that a trial reports: Tune's own count restarts."""
    if run.chosen_scheduler == "fifo":
        return FIFOScheduler()
    if run.chosen_scheduler == "hyperband":
        return HyperBandScheduler(
            time_attr="epoch", max_t=run.epochs, reduction_factor=run.reduction_factor
        )
    if run.chosen_scheduler == "pbt":
        return PopulationBasedTraining(
            time_attr="epoch",
            perturbation_interval=run.grace_period,
            hyperparam_mutations=_continuous(searched),
            log_config=False,
        )
    return AsyncHyperBandScheduler(
        time_attr="epoch",
        max_t=run.epochs,
        grace_period=run.grace_period,
        reduction_factor=run.reduction_factor,
    )


def _continuous(searched: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a space that may change within a trial: numbers that shape no network."""
    kept: dict[str, Any] = {}
    for name, domain in searched.items():
        if isinstance(domain, Mapping):
            kept |= {name: inner} if (inner := _continuous(domain)) else {}
        elif isinstance(domain, Float):
            kept[name] = domain
    return kept
