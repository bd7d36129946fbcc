"""The space of a search as text: which settings are searched, in Ray Tune's own words.

    optim.lr=loguniform(0.0003, 0.01)
    model.arch=choice(["mlp", "conv"])
    model.hidden=choice([[256], [512, 512]]) if model.arch == "mlp"

`--space` takes such texts, `config.json` records them, and a job file holds them. They are parsed
and never evaluated as code. A family's own space (`tune_spaces/`) is such texts, or Ray Tune's
domains, which become text here.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any, get_type_hints

import gen_models
from gen_models.core.config import MAX_INTEGER, convert
from gen_models.core.errors import InputError, did_you_mean, require, shown, shown_name
from pipelines.config.expressions import (
    Expression,
    as_expression,
    dotted_name,
    literal,
    parse_python,
)
from tune_spaces import space as family_space

EMPTY = "none"
"""Begins a space without the settings that the family's own has."""
RUN_SETTINGS = ("batch_size", "drop_last", "seed")
"""Settings of the run, beside those of the model and its optimizers, that can be searched."""
_FUNCTIONS = {
    "uniform": 2,
    "quniform": 3,
    "loguniform": 2,
    "randint": 2,
    "qrandint": 3,
    "lograndint": 2,
    "choice": 1,
}
"""Ray Tune's functions that a domain is written with, and how many arguments each takes."""


@dataclass(frozen=True)
class Range:
    """The numbers between two bounds, both included."""

    lower: float
    upper: float
    log: bool = False
    """Whether equal factors are equally likely, and not equal differences."""
    integer: bool = False
    step: float | None = None

    def __str__(self) -> str:
        """Return the domain in Ray Tune's words; `randint` leaves out its upper bound."""
        if self.integer and self.step is None:
            name, args = "lograndint" if self.log else "randint", [self.lower, self.upper + 1]
        elif self.integer:
            name, args = "qrandint", [self.lower, self.upper]
        else:
            plain = "uniform" if self.step is None else "quniform"
            name, args = "loguniform" if self.log else plain, [self.lower, self.upper]
        if self.step is not None:
            args.append(self.step)
        return f"{name}({', '.join(repr(each) for each in args)})"

    def has(self, value: Any) -> bool:
        """Return whether a value lies in the domain."""
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return is_number and self.lower <= value <= self.upper

    def ends(self) -> list[Any]:
        """Return the bounds."""
        return [self.lower, self.upper]


@dataclass(frozen=True)
class Choice:
    """One of several values; a list of numbers is a tuple, as in a config."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return f"choice({_as_list(self.values)!r})"

    def has(self, value: Any) -> bool:
        """Return whether a value lies in the domain."""
        return value in self.values

    def ends(self) -> list[Any]:
        """Return the values."""
        return list(self.values)


Domain = Range | Choice


def _as_list(value: Any) -> Any:
    return [_as_list(each) for each in value] if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Setting:
    """A setting that is searched."""

    name: str
    """Flat: `model.latent_dim`."""
    domain: Domain
    condition: Expression | None = None
    """When it is searched; otherwise it has the config's own value."""

    def is_active(self, values: Mapping[str, Any]) -> bool:
        """Return whether it is searched where the settings that are searched have these values; it
        is not where its condition names one that is not."""
        condition = self.condition
        return condition is None or (condition.names <= values.keys() and condition.holds(values))

    def __str__(self) -> str:
        condition = f" if {self.condition.text}" if self.condition else ""
        return f"{self.name}={self.domain}{condition}"


# -- text ----------------------------------------------------------------------------------------
def parse_setting(text: str) -> Setting:
    """Return the setting in a text such as `optim.lr=loguniform(1e-5, 1e-1)`.

    Raises `InputError` at a text that is not understood, and at a domain with bad bounds.
    """
    name, equals, body = text.partition("=")
    name = name.strip().replace("-", "_")
    example = "NAME=DOMAIN, such as optim.lr=loguniform(1e-5, 1e-1)"
    require(bool(equals and name), "space", text, example)
    field = f"space: {shown_name(name)}"
    tree, condition = parse_python(field, _on_one_level(body)), None
    if isinstance(tree, ast.IfExp):
        condition = as_expression(field, tree.test)
        tree = tree.body
    return Setting(name, _domain(field, tree), condition)


def _on_one_level(body: str) -> str:
    """Return `DOMAIN if CONDITION` as the expression of Python that it is without its `else`."""
    return f"{body} else 0" if _has_condition(body) else body


def _has_condition(body: str) -> bool:
    try:
        ast.parse(body.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return " if " in body
    return False


def _domain(field: str, tree: ast.expr) -> Domain:
    known = ", ".join(_FUNCTIONS)
    name = dotted_name(tree.func) if isinstance(tree, ast.Call) else None
    function = (name or "").removeprefix("tune.")
    if not isinstance(tree, ast.Call) or function not in _FUNCTIONS or tree.keywords:
        shape = f"a domain of Ray Tune: one of {known}, with its arguments by position"
        raise InputError(f"{field} = {shown(ast.unparse(tree))}: expected {shape}")
    args = [literal(field, each) for each in tree.args]
    return make_domain(field, function, args)


def make_domain(field: str, function: str, args: Sequence[Any]) -> Domain:
    """Return the domain that a function of Ray Tune makes of its arguments.

    Raises `InputError`, which names the field, unless they are as many as it takes and its bounds
    are finite, in order, and above 0 where the scale is logarithmic.
    """
    text = f"{function}({', '.join(shown(each) for each in args)})"
    num = _FUNCTIONS[function]
    _require(len(args) == num, field, text, f"{num} arguments")
    if function == "choice":
        (values,) = args
        is_list = isinstance(values, (list, tuple)) and len(values) > 0
        _require(is_list, field, text, "a list of one value or more")
        plain = tuple(_plain(value) for value in values)
        distinct = len({json.dumps(value) for value in plain}) == len(plain)
        _require(distinct, field, text, "each value once")
        return Choice(plain)
    integer = function.endswith("randint")
    kinds = (int,) if integer else (int, float)
    numbers = all(type(each) in kinds and math.isfinite(each) for each in args)
    _require(numbers, field, text, "integers" if integer else "finite numbers")
    small = not integer or all(abs(each) <= MAX_INTEGER for each in args)
    _require(small, field, text, "integers of at most 64 bits")
    lower, upper, *rest = args if integer else [float(each) for each in args]
    step = rest[0] if rest else None
    if integer and step is None:
        upper -= 1  # which Ray Tune's randint leaves out
        _require(lower <= upper, field, text, "a lower bound below the upper one")
    else:
        _require(lower < upper, field, text, "a lower bound below the upper one")
    log = "log" in function
    _require(not log or lower > 0, field, text, "bounds above 0, because the scale is logarithmic")
    _require(step is None or 0 < step <= upper - lower, field, text, "a step within the range")
    return Range(lower, upper, log, integer, step)


def _require(ok: bool, field: str, text: str, expected: str) -> None:
    if not ok:
        raise InputError(f"{field} = {text}: expected {expected}")


def _plain(value: Any) -> Any:
    return tuple(_plain(each) for each in value) if isinstance(value, (list, tuple)) else value


# -- Ray Tune's domains --------------------------------------------------------------------------
def domain_of_tune(field: str, domain: Any) -> Domain:
    """Return one of Ray Tune's domains, known by their attributes: this package imports no Ray.

    Raises `InputError` at one that cannot be searched here, such as a function, or a normal
    distribution.
    """
    if isinstance(domain, Mapping) and set(domain) == {"grid_search"}:
        return make_domain(field, "choice", [list(domain["grid_search"])])
    kind = type(domain).__name__
    if kind == "Categorical":
        return make_domain(field, "choice", [list(domain.categories)])
    if kind in ("Float", "Integer"):
        sampler, step = domain.get_sampler(), []
        if hasattr(sampler, "q"):
            sampler, step = sampler.sampler, [sampler.q]
        scale = type(sampler).__name__.strip("_")
        of = "randint" if kind == "Integer" else "uniform"
        name = f"{'q' if step else ''}{'log' if scale == 'LogUniform' else ''}{of}"
        if scale in ("LogUniform", "Uniform") and name in _FUNCTIONS:
            return make_domain(field, name, [domain.lower, domain.upper, *step])
    expected = f"a domain of Ray Tune made by one of {', '.join(_FUNCTIONS)}"
    raise InputError(f"{field} = {shown(domain)}: expected {expected}")


def as_text(value: Any) -> Any:
    """Return a list, such as layer widths, as JSON text, which `from_dict` parses: Tune looks for
    domains inside tuples, and Optuna does not accept tuples."""
    return json.dumps(value) if isinstance(value, (tuple, list)) else value


# -- spaces --------------------------------------------------------------------------------------
class SearchSpace(tuple[Setting, ...]):
    """The settings of a search, those that others depend on first."""

    @cached_property
    def by_name(self) -> dict[str, Setting]:
        """The settings by their flat name."""
        return {setting.name: setting for setting in self}

    @property
    def is_conditional(self) -> bool:
        """Whether a setting is searched only where others have some value."""
        return any(setting.condition for setting in self)

    def active(self, point: Mapping[str, Any]) -> list[Setting]:
        """Return the settings that are searched at a point. `point`: values by flat name, at
        least of those that are searched there."""
        found: list[Setting] = []
        values: dict[str, Any] = {}
        for setting in self:
            if setting.is_active(values):
                found.append(setting)
                values[setting.name] = point.get(setting.name)
        return found


def parse_space(texts: Sequence[str]) -> SearchSpace:
    """Return the space of a search's config, which begins with `none`.

    Raises `InputError` at a condition on a setting that is not searched, and at a circle of them.
    """
    settings = {each.name: each for each in map(parse_setting, texts[1:])}
    graph: dict[str, frozenset[str]] = {}
    for name, setting in settings.items():
        graph[name] = setting.condition.names if setting.condition else frozenset()
        for other in sorted(graph[name]):
            known = ", ".join(each for each in settings if each != name) or "no other"
            expected = f"a condition on a searched setting: {known}"
            _require(other in settings, f"space: {name}", f"… if {other}", expected)
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        raise InputError(f"space: {circle}: these conditions form a circle") from error
    rank = {name: index for index, name in enumerate(settings)}
    depth = {name: 0 for name in settings}
    for name in order:
        depth[name] = max((1 + depth[other] for other in graph[name]), default=0)
    return SearchSpace(sorted(settings.values(), key=lambda s: (depth[s.name], rank[s.name])))


def complete_space(family: str, texts: Sequence[str]) -> tuple[str, ...]:
    """Return a whole space as text, which begins with `none`. `texts`: of a whole space, or what
    is added to the family's own space or replaces a domain of it.

    Raises `InputError` as `parse_setting` does, and at a setting that is given twice.
    """
    is_whole = bool(texts) and texts[0].strip() == EMPTY
    settings = {} if is_whole else {each.name: each for each in own_space(family)}
    given: set[str] = set()
    for text in texts[1:] if is_whole else texts:
        setting = parse_setting(text)
        require(setting.name not in given, "space", text, f"{setting.name} once")
        given.add(setting.name)
        settings[setting.name] = setting
    return (EMPTY, *map(str, settings.values()))


def seed_space(seed: int, num: int) -> tuple[str, ...]:
    """Return the space of a seed study: the seeds after the studied run's own, which was selected
    for its result."""
    return (EMPTY, str(Setting("seed", Choice(tuple(range(seed + 1, seed + 1 + num))))))


def own_space(family: str) -> list[Setting]:
    """Return the settings of a family's own space."""
    return settings_of_tune(family_space(family).domains)


def fixed_settings(family: str, space: SearchSpace) -> set[str] | None:
    """Return the settings of a family's own space that a search has given a value; None if its
    space is another one than the family's without them."""
    own = {setting.name: setting for setting in own_space(family)}
    if any(own.get(setting.name) != setting for setting in space):
        return None
    return own.keys() - space.by_name.keys()


def settings_of_tune(domains: Mapping[str, Any]) -> list[Setting]:
    """Return the settings of a mapping in the config's shape, or flat, of Ray Tune's domains or of
    texts."""

    def walk(content: Mapping[str, Any], prefix: str) -> list[Setting]:
        found: list[Setting] = []
        for name, value in content.items():
            path = f"{prefix}{name}"
            if isinstance(value, str):
                found.append(parse_setting(f"{path}={value}"))
            elif isinstance(value, Mapping) and set(value) != {"grid_search"}:
                found += walk(value, f"{path}.")
            else:
                found.append(Setting(path, domain_of_tune(f"space: {path}", value)))
        return found

    return walk(domains, "")


def space_from_python(space: Any) -> tuple[str, ...]:
    """Return the space that a caller of the public functions means: texts, or a mapping of names
    to Ray Tune's domains or to texts. Raises `InputError` at anything else."""
    if isinstance(space, Mapping):
        return tuple(str(setting) for setting in settings_of_tune(space))
    is_texts = isinstance(space, (list, tuple)) and all(isinstance(each, str) for each in space)
    expected = "texts such as 'optim.lr=loguniform(1e-5, 1e-1)', or a mapping of names to domains"
    require(is_texts, "space", space, expected)
    return tuple(space)


# -- a space against a config --------------------------------------------------------------------
def require_searchable(family: str, space: SearchSpace, run: type[Any]) -> None:
    """Raise `InputError` unless each setting of a space is a field of the config that trials may
    differ in, with values of the field's type. `run`: the class of the config."""
    hints = _searchable(family, run)
    for setting in space:
        name, field = setting.name, f"space: {setting.name}"
        if name not in hints:
            raise InputError(f"{field}: {_why_not(name, hints, run)}")
        domain, hint = setting.domain, hints[name]
        for value in domain.ends():
            convert(field, hint, value)


def require_known(field: str, expression: Expression, family: str, run: type[Any]) -> None:
    """Raise `InputError` unless each name in an expression is a setting of the config."""
    hints = _all_settings(family, run)
    for name in sorted(expression.names - hints.keys()):
        near = did_you_mean(name, hints)
        expected = "expected a condition on settings of the config"
        raise InputError(f"{field} = {shown(expression.text)}: {name}{near}: {expected}")


def _searchable(family: str, run: type[Any]) -> dict[str, Any]:
    """Return the type hints of the settings that can be searched, by flat name."""
    settings = _all_settings(family, run)
    return {
        name: hint
        for name, hint in settings.items()
        if name.startswith(("model.", "optim.")) or name in RUN_SETTINGS
    }


def _all_settings(family: str, run: type[Any]) -> dict[str, Any]:
    """Return the type hints of a config's settings, by flat name."""
    module = gen_models.settings(family)
    found: dict[str, Any] = {}

    def walk(kind: type[Any], prefix: str) -> None:
        hints = get_type_hints(kind)
        for field in fields(kind):
            hint = hints[field.name]
            if hasattr(hint, "__dataclass_fields__"):
                walk(hint, f"{prefix}{field.name}.")
            else:
                found[f"{prefix}{field.name}"] = hint

    walk(module.Config, "model.")
    walk(module.Optim, "optim.")
    own = {f.name for f in fields(run)} - {"model", "optim"}
    hints = get_type_hints(run)
    return {**found, **{name: hints[name] for name in hints if name in own}}


def _why_not(name: str, hints: Mapping[str, Any], run: type[Any]) -> str:
    if name == "epochs":
        return "epochs is the budget of every trial, and cannot be searched: see --epochs"
    if name in {f.name for f in fields(run)}:
        known = ", ".join(RUN_SETTINGS)
        return f"trials cannot differ in it: expected a setting of model or optim, or {known}"
    return f"no such setting{did_you_mean(name, hints)}: expected one of {', '.join(hints)}"
