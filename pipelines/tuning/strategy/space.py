"""The space of a search as Ray Tune and Optuna take it, and its points.

Within Tune a trial's config is flat, `{"optim.lr": 0.001}`, because PB2 knows no other; a list,
such as layer widths, is JSON text (`pipelines.config.space.as_text`).
"""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import Any, get_type_hints

import numpy as np
from ray import tune

import gen_models
from gen_models.core.config import flatten, nest
from gen_models.core.data import DataSpec
from gen_models.core.errors import InputError, require, shown
from pipelines.config.run import Run
from pipelines.config.search import Search
from pipelines.config.serialization import to_dict, with_settings
from pipelines.config.space import Choice, Domain, Range, SearchSpace, as_text
from tune_spaces import space as family_space

_DRAWN = 1_000
"""Points that are drawn to see whether conditions can be evaluated, and whether any point
satisfies what is required."""
MAX_GRID = 100_000
"""Points of a grid, at most."""
_FEW = 20
"""Points at which the conditions of the space are evaluated, at least."""


def searched_space(run: Search) -> SearchSpace:
    """Return the space that is searched, after all checks that can be made without data.

    Raises `InputError` if nothing is left to search, if trials would differ in what is measured,
    or if a domain has a value that the config refuses.
    """
    searched = run.searched
    if not searched:
        raise InputError("every setting of the space was given: `genpipe train` runs one config")
    for name in family_space(run.family).measures:
        if f"model.{name}" in searched.by_name:
            raise InputError(
                f"model.{name}: expected one value, as by --model.{name.replace('_', '-')}, "
                f"because trials that differ in it cannot be ranked by {run.metric}: it changes "
                "what is measured"
            )
    if run.perturbs and not continuous(searched):
        raise InputError(
            f"scheduler = {run.scheduler!r}: expected a continuous setting in the space, which it "
            "can perturb"
        )
    _require_accepted(run, searched)
    return searched


def _require_accepted(run: Search, searched: SearchSpace) -> None:
    """Raise `InputError` if the config refuses an end of a domain. Where a setting is searched
    only under a condition, its values may be refused with the config's other values."""
    for setting in searched:
        if setting.condition is None:
            for value in setting.domain.ends():
                with_settings(run, nest({setting.name: value}))


def require_satisfiable(run: Search, searched: SearchSpace) -> None:
    """Raise `InputError` if a condition of the space cannot be evaluated, or if none of many
    points, drawn at random, satisfies what the search requires."""
    if not (run.required or searched.is_conditional):
        return
    domains = {setting.name: as_tune(setting.domain) for setting in searched}
    random, found, why = np.random.RandomState(0), False, ""
    for number in range(_DRAWN):
        values: dict[str, Any] = {}
        for setting in searched:
            if setting.is_active(values):
                raw = domains[setting.name].sample(random_state=random)
                values[setting.name] = value_of(setting.domain, raw)
        try:
            found = found or _satisfies(run, with_settings(run, nest(values)))
        except InputError as error:
            why = f" ({error})"
        if found and number >= _FEW:
            return
    required = " and ".join(condition.text for condition in run.required)
    expected = f"conditions that a point of the space satisfies: none of {_DRAWN:,} does{why}"
    raise InputError(f"require = {shown(required)}: expected {expected}")


# -- points --------------------------------------------------------------------------------------
def default_point(run: Run, searched: SearchSpace) -> dict[str, Any]:
    """Return a config's values of the searched settings, flat; of the search's own config: its
    first trial. A setting whose condition does not hold is left out."""
    config = flatten(to_dict(run))
    return {each.name: as_text(config[each.name]) for each in searched.active(config)}


def value_of(domain: Domain, raw: Any) -> Any:
    """Return a value as a config has it. `raw`: as Tune has it, a list as JSON text."""
    if isinstance(domain, Choice):
        return next((value for value in domain.values if as_text(value) == raw), raw)
    return raw


def values_of(searched: SearchSpace, point: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a point as a config has them."""
    return {name: value_of(searched.by_name[name].domain, raw) for name, raw in point.items()}


def is_allowed(run: Search, searched: SearchSpace, point: Mapping[str, Any]) -> bool:
    """Return whether a point satisfies what the search requires of it (`--require`), and makes a
    config. It does not where a condition cannot be evaluated, as at a division by zero."""
    if not run.required:
        return True
    try:
        return _satisfies(run, with_settings(run, nest(point)))
    except InputError:
        return False


def _satisfies(run: Search, config: Search) -> bool:
    settings = flatten(to_dict(config))
    return all(condition.holds(settings) for condition in run.required)


def refusal(run: Search, point: Mapping[str, Any]) -> str | None:
    """Return why a point is none of the space; None if it is one."""
    searched = run.searched
    for name, raw in point.items():
        if name not in searched.by_name:
            known = ", ".join(searched.by_name)
            return f"{name} is not searched: expected settings of {known}"
        domain = searched.by_name[name].domain
        if not domain.has(value_of(domain, raw)):
            return f"{name} = {raw!r} does not lie in {domain}"
    return None


# -- grids ---------------------------------------------------------------------------------------
def grid_points(run: Search) -> list[dict[str, Any]]:
    """Return the points of the grid: every choice, and `grid_points` values of each range, spaced
    evenly, or by equal factors if its scale is logarithmic. A setting whose condition does not
    hold is left out, and so are points that do not satisfy what the search requires."""
    searched = searched_space(run)

    def extend(point: dict[str, Any], rest: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
        if not rest:
            yield point
            return
        setting, *others = rest
        if not setting.is_active(values_of(searched, point)):
            yield from extend(point, tuple(others))
            return
        for value in _spaced(setting.domain, run.grid_points):
            yield from extend({**point, setting.name: as_text(value)}, tuple(others))

    return [point for point in extend({}, tuple(searched)) if is_allowed(run, searched, point)]


def grid_size(run: Search) -> int:
    """Return the number of points of the grid. Raises `InputError` if there are too many, or if
    none satisfies what is required."""
    searched = searched_space(run)
    few = f"at most {MAX_GRID:,}"
    require(run.grid_points <= MAX_GRID, "grid_points", run.grid_points, few)
    size = prod(len(_spaced(setting.domain, run.grid_points)) for setting in searched)
    fewer = f"fewer: the grid would have {size:,} points, and {MAX_GRID:,} are the most"
    require(size <= MAX_GRID, "grid_points", run.grid_points, fewer)
    if searched.is_conditional or run.required:
        size = len(grid_points(run))
        required = " and ".join(condition.text for condition in run.required)
        require(size > 0, "require", required, "conditions that a point of the grid satisfies")
    return size


def _spaced(domain: Domain, num: int) -> list[Any]:
    if isinstance(domain, Choice):
        return list(domain.values)
    spaced = np.geomspace if domain.log else np.linspace
    values: list[float] = spaced(domain.lower, domain.upper, num).tolist()
    if domain.step is not None:
        steps = [round((value - domain.lower) / domain.step) for value in values]
        values = [domain.lower + step * domain.step for step in steps]
    if domain.integer:
        return sorted({min(round(value), int(domain.upper)) for value in values})
    return sorted(set(values))


# -- what may change, what must agree -----------------------------------------------------------
def continuous(searched: SearchSpace) -> dict[str, Range]:
    """Return the ranges that may change within a trial, by name: numbers on which no tensor's
    shape depends."""
    return {
        setting.name: setting.domain
        for setting in searched
        if isinstance(setting.domain, Range)
        and not setting.domain.integer
        and setting.name.startswith(("model.", "optim."))
    }


def as_tune(domain: Domain) -> Any:
    """Return Ray Tune's domain; a choice of lists is one of texts."""
    if isinstance(domain, Choice):
        return tune.choice([as_text(value) for value in domain.values])
    name, _, args = str(domain).partition("(")
    return getattr(tune, name)(*literal_eval(f"({args}"))


def mutations(searched: SearchSpace) -> dict[str, Any]:
    """Return Tune's domains of the settings that may change within a trial."""
    return {name: as_tune(domain) for name, domain in continuous(searched).items()}


def settings_kept_apart(run: Search, spec: DataSpec, searched: Iterable[str]) -> list[str]:
    """Return the searched settings in which trials that are trained as one must agree: all but
    numbers and widths."""
    module = gen_models.family(run.family)
    widths = module.Model(run.model, spec).widths
    hints = get_type_hints(module.Config)
    fields = [name.removeprefix("model.") for name in searched if name.startswith("model.")]
    apart = [f"model.{f}" for f in fields if hints[f] is not float and f not in widths]
    return apart + [name for name in searched if name in ("batch_size", "drop_last")]


def widest_settings(run: Search, spec: DataSpec) -> dict[str, int]:
    """Return the largest value that the search gives to each searched width of the model, by the
    name of the config's field."""
    widths = gen_models.family(run.family).Model(run.model, spec).widths
    searched = {name: run.searched.by_name.get(f"model.{name}") for name in widths}
    return {name: int(max(each.domain.ends())) for name, each in searched.items() if each}


def largest(run: Search) -> Search:
    """Return the search with the largest batch that it searches, which takes the most memory."""
    batch = run.searched.by_name.get("batch_size")
    return with_settings(run, {"batch_size": max(batch.domain.ends())}) if batch else run
