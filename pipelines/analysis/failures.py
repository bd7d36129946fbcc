"""Why trials failed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pipelines.analysis.ranking import TrialResult

_VARIABLE = re.compile(r"\b[0-9a-f]*\d[0-9a-f]*\b")
"""Numbers, and ids in hexadecimal digits."""


@dataclass(frozen=True)
class Failure:
    """Trials that failed for one reason."""

    reason: str
    """The message of the first."""
    trial_ids: tuple[str, ...]


def failures(results: Iterable[TrialResult]) -> list[Failure]:
    """Return why trials failed, the most frequent reason first. Messages that differ in numbers
    and ids only are one reason: that of the first."""
    found: dict[str, tuple[str, list[str]]] = {}
    for result in results:
        if result.outcome.ending == "failed":
            message = result.outcome.tags.get("message", "no reason is recorded")
            kind = _VARIABLE.sub("", message)
            found.setdefault(kind, (message, []))[1].append(result.trial_id)
    grouped = [Failure(message, tuple(trial_ids)) for message, trial_ids in found.values()]
    return sorted(grouped, key=lambda each: -len(each.trial_ids))
