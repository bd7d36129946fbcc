"""Conditions on recorded runs, such as `metric < 25 and model.latent_dim <= 16`.

They are expressions as of `--require` (`pipelines.config.expressions`), on what is recorded of a
run: `metric`, the value that it is ranked by; `epoch`, `kind`, `outcome`, `name`, `experiment`;
the settings of its config, as `optim.lr`; and other metrics by their names, as `val/fd`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from gen_models.core.errors import InputError, did_you_mean
from pipelines.config.expressions import Expression, parse_expression
from pipelines.evaluation.metric_names import matching
from pipelines.tracking.base import RunRow

_FIELDS = ("epoch", "kind", "outcome", "name", "experiment")
_QUOTED_OR_METRIC = re.compile(
    r"""'[^']*' | "[^"]*" | \b(?:train|val|test|best|confirm)(?:/[\w.-]*\w)+""", re.VERBOSE
)


class RunCondition:
    """A condition on recorded runs. `value`: returns the value that a run is ranked by."""

    def __init__(self, text: str, value: Callable[[RunRow], float | None]) -> None:
        """Raises `InputError` if the text is no condition."""
        self._metrics: dict[str, str] = {}
        parsed = parse_expression("where", _QUOTED_OR_METRIC.sub(self._as_identifier, text))
        self._expression: Expression = replace(parsed, text=f"where = {text}")
        self._value = value
        self._unknown = set(parsed.names)
        self._settings: set[str] = set()

    def holds(self, row: RunRow) -> bool:
        """Return whether the condition is true of a run; it is not of one that lacks what the
        condition names.

        Raises `InputError` if the run's values cannot be compared so, such as text with a number.
        """
        self._settings.update(row.params)
        found = {name: self._look_up(row, name) for name in self._expression.names}
        known = {name: value for name, value in found.items() if value is not None}
        self._unknown -= known.keys()
        return len(known) == len(found) and self._expression.holds(known)

    def require_known(self) -> None:
        """Raise `InputError` that names what none of the runs had of which `holds` was asked."""
        for name in sorted(self._unknown) if self._settings else ():
            metric = self._metrics.get(name)
            known = ["metric", *_FIELDS, *sorted(self._settings)]
            near = "" if metric else did_you_mean(name, known)
            expected = "metric, epoch, kind, outcome, name, experiment, a setting or a metric"
            raise InputError(
                f"{self._expression.text}: no run has {metric or name}{near}: expected {expected}"
            )

    def _as_identifier(self, match: re.Match[str]) -> str:
        """Return a metric's name as one that an expression can hold, and what is quoted as it
        is."""
        text = match[0]
        if text[0] in "'\"":
            return text
        name = re.sub(r"\W", "_", text)
        while self._metrics.setdefault(name, text) != text:
            name += "_"
        return name

    def _look_up(self, row: RunRow, name: str) -> Any:
        """Return what a run has under a name; None if it has nothing."""
        if name in self._metrics:
            metric = self._metrics[name]
            found = matching(f"best/{metric}", row.metrics) or matching(metric, row.metrics)
            return row.metrics[found[0]] if found else None
        if name == "metric":
            return self._value(row)
        if name in _FIELDS:
            return getattr(row, name)
        return _setting(row.params[name]) if name in row.params else None


def _setting(text: str) -> Any:
    """Return a setting's value; a tracking system holds it as text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
