"""Ranges of searched settings: where a value lies in its range, and whether at an edge of it."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from pipelines.config.search import Search
from pipelines.config.space import Choice, Domain, Range

Edge = Literal["lower", "upper"]

_LOG_FROM = 20.0
"""An observed range whose upper end is this many times its lower one is taken as logarithmic."""
_FEW_VALUES = 8
"""Integers with at most this many values in all trials are taken as a choice among them."""
_AT_EDGE = 0.05
"""Part of a range, on its scale, that counts as its edge."""
_FACTOR = 10.0
"""By which a logarithmic range is widened."""


@dataclass(frozen=True)
class SettingRange:
    """The range of a setting: an interval of numbers, or the values of a choice."""

    lower: float = 0.0
    upper: float = 1.0
    log: bool = False
    integer: bool = False
    values: tuple[Any, ...] = ()
    """Of a choice: numbers ascending, others in the order of the space."""
    is_searched: bool = True
    """Whether it is that of the space; False if it is the one that the trials happen to have."""

    @property
    def is_number(self) -> bool:
        """Whether its values are numbers."""
        return not self.values or all(_is_number(value) for value in self.values)

    def positions(self, values: Iterable[Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the positions of N values in the range, from 0 to 1, (N,); NaN where a trial does
        not have the setting, or the value is not in the range of a choice."""
        if self.values:
            places = {as_choice(value): place for place, value in enumerate(self.values)}
            most = max(1, len(places) - 1)
            return np.array([places.get(as_choice(v), np.nan) for v in values]) / most
        numbers = np.array([np.nan if v is None else float(v) for v in values], np.float64)
        low, high = self.lower, self.upper
        if self.log:
            numbers, low, high = np.log(numbers), float(np.log(low)), float(np.log(high))
        return (numbers - low) / (high - low) if high > low else numbers * 0.0 + 0.5

    def edge(self, value: Any) -> Edge | None:
        """Return the edge of the space at which a value lies, beyond which better ones may be.

        None for choices of other things than numbers, and at a lower end of 0, below which few
        settings have a meaning.
        """
        choices = len(self.values)
        if value is None or not self.is_searched or not self.is_number or 0 < choices < 3:
            return None
        place = float(self.positions([value])[0])
        within = 0.0 if choices else _AT_EDGE
        if place <= within:
            return "lower" if (self.values[0] if choices else self.lower) > 0 else None
        return "upper" if place >= 1.0 - within else None

    def widened(self, edge: Edge) -> SettingRange:
        """Return a wider range at an edge: a factor of 10 of a logarithmic one, else as wide
        again; of a choice, a further number."""
        if self.values:
            first, second, *_ = self.values if edge == "lower" else self.values[::-1]
            further = 2 * first - second if edge == "upper" else first / 2
            if all(isinstance(value, int) for value in self.values):
                further = int(further)
            both = (*self.values, further) if edge == "upper" else (further, *self.values)
            return replace(self, values=both)
        if self.log:
            if edge == "upper":
                return replace(self, upper=self.upper * _FACTOR)
            return replace(self, lower=self.lower / _FACTOR)
        width = self.upper - self.lower
        if edge == "upper":
            return replace(self, upper=self.upper + width)
        return replace(self, lower=self.lower - width if self.lower < 0 else 0.0)

    def as_domain(self) -> str:
        """Return the range as `--space` takes it."""
        if self.values:
            texts = [as_choice(value) for value in self.values]
            is_list = [isinstance(text, str) and text[:1] == "[" for text in texts]
            pairs = zip(texts, is_list, strict=True)
            return str(
                Choice(tuple(tuple(json.loads(str(t))) if listed else t for t, listed in pairs))
            )
        lower, upper = (float(f"{each:.6g}") for each in (self.lower, self.upper))
        if self.integer:
            return str(Range(int(lower), int(upper), self.log, integer=True))
        return str(Range(lower, upper, self.log))

    def __str__(self) -> str:
        if self.values:
            return ", ".join(str(value) for value in self.values)
        scale = ", logarithmic" if self.log else ""
        return f"{self.lower:.6g} to {self.upper:.6g}{scale}"


def as_choice(value: Any) -> str | int | float | bool:
    """Return a value of a choice as what it is recognised by: a list of widths is `(256,)` in a
    run's parameters and `[256]` in the space."""
    if isinstance(value, str) and value[:1] in ("[", "("):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            return str(value)
    if isinstance(value, (tuple, list)):
        return json.dumps(list(value))
    return value if isinstance(value, (str, int, float, bool)) else str(value)


def setting_ranges(
    run: Search, searched: Sequence[str], configs: Sequence[Mapping[str, Any]]
) -> dict[str, SettingRange]:
    """Return the range of each searched setting: that of the space, if every trial lies in it, or
    else that of the trials' values."""
    known = {setting.name: _of_domain(setting.domain) for setting in run.searched}
    found = {}
    for name in searched:
        values = [value for each in configs if (value := each.get(name)) is not None]
        own = known.get(name)
        inside = own is not None and _holds(own, values)
        found[name] = own if own and inside else observed_range(values)
    return found


def observed_range(values: Sequence[Any]) -> SettingRange:
    """Return the range of the values that trials have."""
    if not values or not all(_is_number(value) for value in values):
        texts = sorted({as_choice(value) for value in values}, key=str)
        return SettingRange(values=tuple(texts), is_searched=False)
    distinct, integer = sorted(set(values)), all(isinstance(value, int) for value in values)
    low, high = distinct[0], distinct[-1]
    if (integer and len(distinct) <= _FEW_VALUES) or low == high:
        return SettingRange(values=tuple(distinct), is_searched=False)
    log = low > 0 and high > _LOG_FROM * low
    return SettingRange(low, high, log, integer, is_searched=False)


def _holds(own: SettingRange, values: Sequence[Any]) -> bool:
    """Return whether a range holds every value."""
    try:
        places = own.positions(values)
    except (TypeError, ValueError):
        return False
    return bool(np.all((places > -1e-6) & (places < 1.0 + 1e-6)))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _of_domain(domain: Domain) -> SettingRange:
    """Return a domain of the space as a range."""
    if isinstance(domain, Range):
        return SettingRange(domain.lower, domain.upper, domain.log, domain.integer)
    values = [as_choice(value) for value in domain.values]
    if all(_is_number(value) for value in values):
        values.sort()
    return SettingRange(values=tuple(values))
