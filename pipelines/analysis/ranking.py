"""How the trials of a search stand, read from their journals."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.analysis.run_results import Best, best_at_end
from pipelines.analysis.seeds import Spread, cost
from pipelines.config.run import Mode
from pipelines.store.journal import Journal, Outcome


@dataclass(frozen=True)
class Standing:
    """A trial in the ranking."""

    trial_id: str
    config: Mapping[str, Any]
    """What was searched, flat."""
    outcome: Outcome
    best: Best | None
    """None where it diverged, or died before its first epoch's end."""
    spread: Spread | None = None
    """Of its config over other seeds, where it was confirmed."""

    def key(self, mode: Mode) -> tuple[int, float, float]:
        """Sorts trials, the best first: those whose config was confirmed, by its mean; the
        others, by their own value; those that have none."""
        if self.spread:
            return 0, *self.spread.key(mode)
        return (1, 0.0, cost(self.best.value, mode)) if self.best else (2, 0.0, 0.0)


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
            spread = Spread.from_summary(ended.summary)
            found.append(Standing(known.trial_id, config, ended, best, spread))
    return sorted(found, key=lambda standing: standing.key(mode))


def most_promising(ranking: Sequence[Standing], mode: Mode, num: int) -> list[Standing]:
    """The best `num` trials by their own values, each of another config."""
    found = [(cost(each.best.value, mode), each) for each in ranking if each.best]
    configs: dict[tuple[Any, ...], Standing] = {}
    for _, standing in sorted(found, key=lambda pair: pair[0]):
        configs.setdefault(tuple(standing.config.items()), standing)
    return list(configs.values())[:num]


def as_row(standing: Standing) -> dict[str, Any]:
    """A standing as `--json` prints it."""
    best = standing.best
    return {
        "trial_id": standing.trial_id,
        "outcome": standing.outcome.ending,
        "epochs": standing.outcome.last_epoch,
        "value": best.value if best else None,
        "best_epoch": best.epoch if best else None,
        "confirmed": asdict(standing.spread) if standing.spread else None,
        "config": dict(standing.config),
        "metrics": dict(best.metrics) if best else {},
        "checkpoint": str(best.checkpoint) if best else None,
    }


def as_csv(
    ranking: Sequence[Standing],
    metric: str,
    further: Sequence[str] = (),
    front: Collection[str] = (),
) -> str:
    """The ranking as a table, a line a trial. `further`: metrics that it shows as well; `front`:
    the trials that it then marks."""
    lines = []
    for each in ranking:
        row, spread = as_row(each), each.spread
        line = {name: row[name] for name in ("trial_id", "outcome", "epochs", "best_epoch")}
        line |= {metric: row["value"]} | {name: row["metrics"].get(name) for name in further}
        line |= {"front": each.trial_id in front} if further else {}
        line |= {"mean": spread and spread.mean, "std": spread and spread.std}
        lines.append(line | dict(each.config))
    out = io.StringIO()
    rows = csv.DictWriter(out, lines[0])
    rows.writeheader()
    rows.writerows(lines)
    return out.getvalue()
