"""THE rule for the champion: which trial a search selects, and which model holds the alias.

- A search selects its best trial.
- A seed study selects the seed in the middle of its ranking, of two the worse: what the config
  yields, as the mean over seeds is what the config is ranked by. The best seed's model would be
  the luckiest of many, chosen by the images that it is judged on.
- Of configs with a seed study, the one with the best mean is the champion, once all that were
  asked
  for are complete.
- A registered model claims an alias from the version that holds it, unless the holder is better. A
  mean over seeds is never beaten by a single value. Only models of one comparison key
  (`pipelines.analysis.comparability`) take an alias from each other: the best of each key has the
  alias `champion-KEY`, and `champion` stays within the key of the model that first held it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipelines.analysis.comparability import KEY
from pipelines.analysis.ranking import TrialResult
from pipelines.analysis.seeds import SeedStatistics
from pipelines.config.objectives import Objective, parse_mode
from pipelines.config.search import SeedStudy


@dataclass(frozen=True)
class Selection:
    """The trial that a search selects."""

    winner: TrialResult | None
    """The trial whose model represents the search; None if no trial has one."""
    summary: Mapping[str, float] = field(default_factory=dict)
    """MLflow's metrics of the search."""
    claim: Claim | None = None
    """What the winner claims the alias `champion` with."""
    seeds: SeedStatistics | None = None
    """Of a seed study in which two seeds or more have a value."""


@dataclass(frozen=True)
class Claim:
    """The value by which a model claims the alias `champion`."""

    objective: Objective
    value: float
    comparable: str = ""
    """The comparison key."""
    seeds: int | None = None
    """The number of seeds, if the value is a mean over them."""

    def as_tags(self) -> dict[str, str | float]:
        """Return the claim as `from_tags` reads it; the key is a tag of its own."""
        tags: dict[str, str | float] = {
            "metric": self.objective.metric,
            "mode": self.objective.mode,
            "value": self.value,
        }
        return tags if self.seeds is None else tags | {"seeds": self.seeds}

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> Claim | None:
        """Return the claim in the tags of a model version; None if it never made one, or not of
        ours."""
        if not {"metric", "mode", "value"} <= tags.keys():
            return None
        try:
            return cls(
                Objective(tags["metric"], parse_mode(tags["mode"])),
                float(tags["value"]),
                tags.get(KEY, ""),
                int(float(tags["seeds"])) if "seeds" in tags else None,
            )
        except (ValueError, OverflowError):
            return None

    def is_comparable(self, other: Claim) -> bool:
        """Return whether this value may be compared with another."""
        return self.objective == other.objective and self.comparable == other.comparable

    def takes_alias_from(self, holder: Claim | None) -> bool:
        """Return whether an alias passes from its holder to this claim."""
        if holder is None:
            return True
        if not self.is_comparable(holder):
            return False
        if (self.seeds is None) != (holder.seeds is None):
            return holder.seeds is None
        return not self.objective.better(holder.value, self.value)


def select_champion(
    ranking: Sequence[TrialResult], objective: Objective, study: SeedStudy | None = None
) -> Selection:
    """Select the champion of a search, whose trials are ranked, or of a seed study (`study`)."""
    return _by_mean(ranking, objective, study) if study else _by_value(ranking, objective)


def _by_value(ranking: Sequence[TrialResult], objective: Objective) -> Selection:
    winner = ranking[0] if ranking else None
    if winner is None or winner.best is None:
        return Selection(None)
    value = winner.best.value
    summary = {f"best/{objective.metric}": value}
    if winner.seeds:
        summary |= winner.seeds.summary()
    return Selection(winner, summary, Claim(objective, value))


def _by_mean(ranking: Sequence[TrialResult], objective: Objective, study: SeedStudy) -> Selection:
    whole = _whole(ranking)
    alive = [result for result in whole if result.best]
    winner = alive[len(alive) // 2] if alive else None
    values = [result.best.value if result.best else None for result in whole]
    seeds = SeedStatistics.of(values, objective)
    if seeds is None:
        return Selection(winner)
    recorded = {} if study.value is None else {"confirm/recorded": study.value}
    claim = Claim(objective, seeds.mean, seeds=seeds.seeds)
    return Selection(winner, seeds.summary() | recorded, claim, seeds)


def _whole(ranking: Sequence[TrialResult]) -> list[TrialResult]:
    """Return the seeds that count: what an interrupted one has so far is not what it comes to."""
    return [result for result in ranking if result.outcome.ending != "interrupted"]


def trial_with_best_mean(ranking: Sequence[TrialResult], *, complete: bool) -> str | None:
    """Return the trial whose seed study provides the champion; None before every seed study that
    was asked for is complete, and where none was made."""
    return ranking[0].trial_id if complete and ranking and ranking[0].seeds else None


def num_seeds_beaten(
    study: SeedStudy | None, ranking: Sequence[TrialResult], objective: Objective
) -> int | None:
    """Return how many seeds the studied run is better than with its own seed; None if it or every
    seed has no value, or this is no seed study."""
    values = [each.best.value for each in _whole(ranking) if each.best]
    if study is None or study.value is None or not values:
        return None
    return sum(objective.better(study.value, value) for value in values)
