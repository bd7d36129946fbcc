"""The space of a search: which settings are searched, as Ray Tune domains."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, get_type_hints

import numpy as np
from ray import tune
from ray.tune.search.sample import Categorical, Domain, Float, Integer, LogUniform

import gen_models
from gen_models.core.config import flatten
from gen_models.core.data import DataSpec
from gen_models.core.errors import InputError
from pipelines.config.run import Run
from pipelines.config.search import Search
from pipelines.config.serialization import to_dict
from tune_spaces import space


def domains(run: Search) -> dict[str, Any]:
    """Return the domains that are searched: the family's space without the settings that were
    given.

    Of a seed study, the seeds after the studied run's own, which was selected for its result.
    Raises `InputError` if nothing is left to search, or if trials would differ in what is
    measured.
    """
    if run.seed_study:
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

    searched = free(space(run.family).domains)
    if not searched:
        raise InputError("every setting of the space was given: `genpipe train` runs one config")
    for name in space(run.family).measures:
        if name in searched.get("model", {}):
            raise InputError(
                f"model.{name}: expected one value, as by --model.{name.replace('_', '-')}, "
                f"because trials that differ in it cannot be ranked by {run.metric}: it changes "
                "what is measured"
            )
    if run.scheduler == "pbt" and not continuous_domains(searched):
        raise InputError(
            "scheduler = 'pbt': expected a continuous setting in the space, which it can perturb"
        )
    return searched


def _as_text(domain: Any) -> Any:
    """Return a choice among tuples, such as layer widths, as a choice among JSON texts, which
    `from_dict` parses: Tune looks for domains inside tuples, and Optuna does not accept tuples."""
    if not isinstance(domain, Categorical):
        return domain
    return tune.choice([_text(category) for category in domain.categories])


def _text(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (tuple, list)) else value


def default_point(run: Run, searched: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config's values of the searched settings, in the same shape; of the search's own
    config: its first trial."""
    config = to_dict(run)

    def pick(shape: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: pick(inner, values[name]) if isinstance(inner, Mapping) else _text(values[name])
            for name, inner in shape.items()
        }

    return pick(searched, config)


def grid(run: Search, searched: Mapping[str, Any]) -> dict[str, Any]:
    """Return the space as a grid, in the same shape: every choice, and `grid_points` values of
    each continuous setting, spaced evenly, or by equal factors if its scale is logarithmic."""

    def points(domain: Any) -> Any:
        if isinstance(domain, Mapping):
            return {name: points(inner) for name, inner in domain.items()}
        return tune.grid_search(_points(domain, run.grid_points))

    content: dict[str, Any] = points(searched)
    return content


def grid_size(run: Search) -> int:
    """Return the number of points of the grid."""
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


def continuous_domains(searched: Mapping[str, Any]) -> dict[str, Any]:
    """Return the domains that may change within a trial: numbers on which no tensor's shape
    depends."""
    kept: dict[str, Any] = {}
    for name, domain in searched.items():
        if isinstance(domain, Mapping):
            kept |= {name: inner} if (inner := continuous_domains(domain)) else {}
        elif isinstance(domain, Float):
            kept[name] = domain
    return kept


def settings_kept_apart(run: Search, spec: DataSpec, searched: Iterable[str]) -> list[str]:
    """Return the searched settings in which trials that are trained as one must agree: all but
    numbers and widths."""
    module = gen_models.family(run.family)
    widths = module.Model(run.model, spec).widths
    hints = get_type_hints(module.Config)
    fields = [name.removeprefix("model.") for name in searched if name.startswith("model.")]
    return [f"model.{f}" for f in fields if hints[f] is not float and f not in widths]


def widest_settings(run: Search, spec: DataSpec) -> dict[str, int]:
    """Return the largest value that the search gives to each searched width of the model, by the
    name of the config's field."""
    widths = gen_models.family(run.family).Model(run.model, spec).widths
    searched = domains(run).get("model", {})
    return {name: max(_integers(searched[name])) for name in widths if name in searched}


def _integers(domain: Domain) -> list[int]:
    return list(domain.categories) if isinstance(domain, Categorical) else [domain.upper - 1]
