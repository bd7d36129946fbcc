"""What a search came to, as `--json` prints it and `pipelines.report.console` shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pipelines.analysis.champion import verdict
from pipelines.analysis.pareto import front, values_of
from pipelines.analysis.ranking import Standing, as_row
from pipelines.analysis.run_results import better
from pipelines.store.journal import Journal
from pipelines.training.payload import trial_folder
from pipelines.tuning.recorder import Recorder


def answer(search: Recorder, confirmations: Mapping[str, Recorder]) -> dict[str, Any]:
    """Of a search with the confirmations of its trials, by trial. The champion is the trial whose
    model stands for the search: of configs that were confirmed, a seed of the best one's."""
    found = _alone(search)
    if not search.run.confirm:
        return found
    found["confirmations"] = {name: _brief(_alone(each)) for name, each in confirmations.items()}
    found["champion"] = None
    if any(each.ending != "completed" for each in confirmations.values()):
        found["outcome"] = "interrupted"
    best = found["trials"][0] if found["trials"] else None
    if best and best["confirmed"] and best["trial_id"] in confirmations:
        own = _alone(confirmations[best["trial_id"]])
        found["champion"] = _champion(best, own["champion"])
        found["samples"] = own["samples"]
    return found


def _alone(search: Recorder) -> dict[str, Any]:
    ranking = search.standings()
    found = verdict(search.run, ranking)
    objectives = search.run.objectives
    on_front = front(ranking, objectives) if search.run.further else []
    rows = {standing.trial_id: _row(search, standing) for standing in ranking}
    picture = search.folder / "champion.png"
    confirms = search.run.confirms
    return {
        "search_id": search.search_id,
        "run_id": search.tracker.run_id(search.journal),
        "experiment": search.plan.experiment,
        "tracking_uri": search.plan.uri,
        "outcome": search.ending,
        "metric": search.run.metric,
        "mode": search.run.mode,
        "objectives": [{"metric": metric, "mode": mode} for metric, mode in objectives],
        "front": [standing.trial_id for standing in on_front],
        "champion": rows[found.winner.trial_id] if found.winner else None,
        "samples": str(picture) if picture.is_file() else None,
        "confirms": asdict(confirms) if confirms else None,
        "spread": asdict(found.spread) if found.spread else None,
        "beaten": _beaten(search, ranking),
        "trials": list(rows.values()),
    }


def _beaten(search: Recorder, ranking: Sequence[Standing]) -> int | None:
    """How many seeds the run that is confirmed is better than, with its own."""
    confirms, mode = search.run.confirms, search.run.mode
    if confirms is None or confirms.value is None:
        return None
    return sum(better(confirms.value, s.best.value, mode) for s in ranking if s.best)


def _brief(confirmation: Mapping[str, Any]) -> dict[str, Any]:
    names = ("search_id", "run_id", "outcome", "confirms", "spread", "beaten")
    return {name: confirmation[name] for name in names}


def _champion(trial: Mapping[str, Any], seed: Mapping[str, Any]) -> dict[str, Any]:
    """The trial whose config has the best mean, with the model of the seed that stands for it."""
    config = {**trial["config"], **seed["config"]}
    return {**seed, "config": config, "confirmed": trial["confirmed"], "of": trial["trial_id"]}


def _row(search: Recorder, standing: Standing) -> dict[str, Any]:
    journal = Journal(trial_folder(search.folder, standing.trial_id))
    delivered = journal.delivered()
    recorded = {
        "run_id": search.tracker.run_id(journal),
        "model": delivered.get("model_uri"),
        "version": delivered.get("version"),
    }
    metrics = [metric for metric, _ in search.run.objectives]
    found = dict(zip(metrics, values_of(standing, search.run.objectives), strict=True))
    return as_row(standing) | {"values": found} | recorded
