"""How the trials of a search stand, read from their journals."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.config import Mode
from pipelines.journal import Journal, Outcome
from pipelines.results import Best, best_at_end


@dataclass(frozen=True)
class Standing:
    """A trial in the ranking."""

    trial_id: str
    config: Mapping[str, Any]
    """What was searched, flat."""
    outcome: Outcome
    best: Best | None
    """None where it diverged, or died before its first epoch's end."""


def journals(search_folder: Path) -> list[Journal]:
    """The journals of a search's trials."""
    return [Journal(path.parent) for path in sorted(search_folder.glob("trials/*/journal"))]


def standings(
    search_folder: Path, metric: str, mode: Mode, searched: Sequence[str]
) -> list[Standing]:
    """The trials that have ended, the best first; last those without a best epoch. Without
    those that the search has tried again."""
    found = []
    for journal in journals(search_folder):
        known, ended = journal.identity(), journal.outcome()
        if known and ended and ended.ending != "superseded":
            folder, last = journal.run_folder, ended.last_epoch
            best = best_at_end(folder, metric, mode, ended.ending, last)
            own = best.metrics if best else {}  # its config may have changed while it ran
            config = {name: own.get(f"config/{name}", known.params[name]) for name in searched}
            found.append(Standing(known.trial_id, config, ended, best))
    sign = -1.0 if mode == "max" else 1.0
    return sorted(found, key=lambda s: (s.best is None, sign * s.best.value if s.best else 0.0))


def as_row(standing: Standing) -> dict[str, Any]:
    """A standing as `--json` prints it."""
    best = standing.best
    return {
        "trial_id": standing.trial_id,
        "outcome": standing.outcome.ending,
        "epochs": standing.outcome.last_epoch,
        "value": best.value if best else None,
        "best_epoch": best.epoch if best else None,
        "config": dict(standing.config),
        "metrics": dict(best.metrics) if best else {},
        "checkpoint": str(best.checkpoint) if best else None,
    }


def as_csv(ranking: Sequence[Standing], metric: str) -> str:
    """The ranking as a table, a line a trial."""
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(["trial_id", "outcome", "epochs", "best_epoch", metric, *ranking[0].config])
    for each in ranking:
        row = as_row(each)
        head = [row[name] for name in ("trial_id", "outcome", "epochs", "best_epoch", "value")]
        rows.writerow([*head, *each.config.values()])
    return out.getvalue()
