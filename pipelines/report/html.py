"""The page of one search, or of several side by side: one HTML file with everything in it, the
script and the pictures too, that loads nothing from a network.

The template, the style and the script lie in `page/`; plotly.js is that of the package plotly.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean, median
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from pipelines.analysis.comparability import short
from pipelines.analysis.importance import FEW_TRIALS, MIN_TRIALS
from pipelines.analysis.ranking import TrialResult
from pipelines.config.command import resume_command
from pipelines.config.objectives import Objective, describe
from pipelines.report.contents import (
    SearchContents,
    best_so_far,
    differing_settings,
)
from pipelines.report.embedding import file_url
from pipelines.report.figures import (
    COLOURED,
    Figure,
    contour_figure,
    curves_figure,
    history_figures,
    importance_figure,
    joint_history_figures,
    parallel_figure,
    pareto_figures,
    rungs_figure,
    seeds_figure,
    shown_trials,
    slice_figures,
    slice_legend,
)
from pipelines.report.gallery import make_gallery

_ROWS = 200
"""Trials in the table; all are in trials.csv."""
_NAMED = 12
"""Trials that failed for one reason, and running ones, that are named."""
_PARTS = (
    "seeds",
    "pareto",
    "history",
    "importance",
    "slices",
    "contour",
    "parallel",
    "curves",
    "rungs",
)
"""Parts of a search's section that have figures."""
_PAGE = Path(__file__).parent / "page"


def write_report(contents: SearchContents) -> None:
    """Write the page of a search that ends into its folder."""
    contents.folder.files.write(contents.folder.report, render([contents]))


def render(searches: Sequence[SearchContents]) -> str:
    """Return the page of a search, or of several, as HTML."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_text("page.html"))
    sections = [_section(search, index) for index, search in enumerate(searches)]
    comparison = _comparison(searches) if len(searches) > 1 else None
    names = [search.name for search in searches]
    data = {
        "searches": [section.pop("data") for section in sections],
        "comparison": comparison.pop("data") if comparison else None,
    }
    return template.render(
        title=names[0] if len(names) == 1 else f"{len(names)} searches",
        style=Markup(_text("page.css")),  # nosec B704  # a file of this package
        script=Markup(_text("page.js")),  # nosec B704  # likewise
        plotly=Markup(_plotly()),  # nosec B704  # a file of the package plotly
        data=Markup(_embedded_json(data)),  # nosec B704  # JSON without any "<"
        sections=sections,
        comparison=comparison,
    )


@cache
def _text(name: str) -> str:
    return (_PAGE / name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    """Return plotly.js, without importing plotly."""
    found = find_spec("plotly")
    assert found and found.origin
    script = Path(found.origin).parent / "package_data" / "plotly.min.js"
    return script.read_text(encoding="utf-8").replace("</script", "<\\/script")


def _embedded_json(content: Any) -> str:
    """Return JSON that a script element can hold."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


# -- one search ----------------------------------------------------------------------------------
def _section(search: SearchContents, index: int) -> dict[str, Any]:
    """Return what the template shows of a search; `data` is for the script."""
    figures = _figures(search)
    columns, rows = _table(search)
    return {
        "id": f"s{index}",
        "name": search.name,
        "facts": _facts(search),
        "description": search.folder.journal.labels().note,
        "key": search.key,
        "short_key": short(search.key),
        "rerun": search.info.tags.get("rerun", ""),
        "url": search.run_url_of_search,
        "page_is_local": search.page_is_local,
        "champion": _champion(search),
        "notes": _notes(search),
        "figures": {name: [_placed(each) for each in figures.get(name, ())] for name in _PARTS},
        "slice_legend": slice_legend(search),
        "importance_text": _importance_text(search),
        "shown": _shown_text(search),
        "stopping": _stopping(search),
        "front": _front_table(search),
        "gallery": make_gallery(search),
        "failures": _failures(search),
        "cost": _cost(search),
        "columns": columns,
        "rows": rows,
        "left_out": max(0, len(search.ranking) - _ROWS),
        "coloured": COLOURED,
        "data": {
            "trials": _trials_data(search),
            "figures": {e.name: e.as_json() for group in figures.values() for e in group},
        },
    }


def _placed(figure: Figure) -> dict[str, Any]:
    """Return what the template needs of a figure."""
    own = {f.name: getattr(figure, f.name) for f in fields(figure)}
    return {name: own[name] for name in ("name", "title", "height", "legend", "min_width")}


def _figures(search: SearchContents) -> dict[str, list[Figure]]:
    """Return the figures of a search by the section that they stand in."""
    found: dict[str, list[Figure]] = {"rungs": [rungs_figure(search)] if search.trained else []}
    running = [r for r in search.running if best_so_far(r, search.objective) is not None]
    if search.valued or running:
        found["curves"] = [curves_figure(search)]
    if not search.valued:
        return found
    found["history"] = history_figures(search)
    if search.run.seed_study:
        return found | {"seeds": [seeds_figure(search)]}
    if search.front:
        found["pareto"] = pareto_figures(search)
    if search.importances:
        found["importance"] = [importance_figure(search.importances)]
    if search.searched:
        found["slices"] = slice_figures(search)
        found["parallel"] = [parallel_figure(search)]
    if contour := contour_figure(search):
        found["contour"] = [contour]
    return found


def _trials_data(search: SearchContents) -> dict[str, Any]:
    """Return the trials that figures show, as columns: the script makes their texts of them."""
    trials = [(place + 1, search.valued[place]) for place in shown_trials(search)]
    metrics = [objective.metric for objective in search.objectives]
    values = [trial.values(search.objectives) for _, trial in trials]
    return {
        "id": [trial.trial_id for _, trial in trials],
        "rank": [rank for rank, _ in trials],
        "outcome": [trial.outcome.ending.replace("_", " ") for _, trial in trials],
        "epochs": [trial.outcome.last_epoch for _, trial in trials],
        "values": {name: [row[i] for row in values] for i, name in enumerate(metrics)},
        "settings": {
            name: [trial.config.get(name) for _, trial in trials] for name in search.searched
        },
    }


def _facts(search: SearchContents) -> list[str]:
    endings = Counter(ending.replace("_", " ") for ending in search.endings)
    if search.running:
        endings[search.open_state] += len(search.running)
    told = ", ".join(f"{num:,} {name}" for name, num in endings.items()) or "none has begun"
    return [
        f"{sum(endings.values()):,} of {search.run.trials:,} trials: {told}",
        f"ranked by {search.objective}",
        f"{search.num_epochs:,} epochs",
        f"{_number(search.device_hours, 3)} device-hours",
        *_provenance(search),
    ]


def _provenance(search: SearchContents) -> list[str]:
    """Return when and where a search was started, by which code, and how long it has run."""
    tags = search.info.tags
    started = datetime.fromtimestamp(search.folder.journal.started_ms() / 1000, UTC)
    facts = [f"started {started:%Y-%m-%d %H:%M} UTC"]
    if search.usage.seconds:
        facts.append(f"{_number(search.usage.hours, 3)} hours over all its starts")
    if host := tags.get("hostname"):
        facts.append(f"on {host}")
    if (commit := tags.get("git_commit", "unknown")) != "unknown":
        facts.append(f"commit {_short_commit(commit)}")
    return facts


def _short_commit(commit: str) -> str:
    digits, dash, changed = commit.partition("-")
    return f"{digits[:10]}{dash}{changed}"


def _notes(search: SearchContents) -> list[str]:
    """Return what a reader must know of this search to understand the rest."""
    notes = []
    if search.state == "interrupted":
        command = resume_command(search.run, search.name)
        notes.append(f"The search was interrupted: `{command}` goes on with it.")
    elif search.running or search.state != "ended":
        notes.append("The search has not ended: this is how far it is.")
    if search.usage.ended_by:
        notes.append(f"The search ended before all its trials had: {search.usage.ended_by}.")
    if search.settings_change:
        notes.append(
            "Trials change their settings while they run (population based training): the "
            "settings shown are those of a trial's best epoch."
        )
    if search.damaged:
        notes.append(
            f"{len(search.damaged)} trials are set aside, because their journals are damaged."
        )
    without = len(search.ranking) - len(search.valued)
    if without and search.valued:
        notes.append(
            f"{without:,} of the trials that ended have no value (they diverged, or failed before "
            "their first checkpoint): only the sections on how far trials went, failures and cost "
            "count them."
        )
    if not search.valued:
        notes.append(f"No trial that has ended has a value of {search.objective.metric}.")
    return notes


# -- the champion --------------------------------------------------------------------------------
def _champion(search: SearchContents) -> dict[str, Any] | None:
    """Return which trial won and why; None if none has a value."""
    winner = search.selection.winner
    if winner is None or winner.best is None:
        return None
    metric = search.objective.metric
    rank = next(i for i, each in enumerate(search.ranking, 1) if each is winner)
    return {
        "trial_id": winner.trial_id,
        "rank": rank,
        "value": _number(winner.best.value, 6),
        "metric": metric,
        "epoch": winner.best.epoch,
        "url": search.run_url(winner.record),
        "reasons": _seed_reasons(search) if search.run.seed_study else _reasons(search, winner),
        "settings": [_setting_row(search, winner, name) for name in search.searched],
        "edges": [
            {
                "text": f"{each.name} = {_number(each.value, 6)} lies at the {each.edge} edge of "
                f"{each.range}",
                "flag": each.flag,
            }
            for each in search.edges
        ],
        "schedule": _schedule(winner),
        "metrics": [
            (name, _number(value, 6))
            for name, value in sorted(winner.best.metrics.items())
            if name.startswith("val/")
        ],
        "samples": file_url(search.folder.champion_samples),
    }


def _reasons(search: SearchContents, winner: TrialResult) -> list[str]:
    assert winner.best
    value, objective = winner.best.value, search.objective
    reasons = []
    if winner.seeds:
        reasons.append(
            f"its config has the best mean over {winner.seeds.seeds} seeds: "
            f"{_number(winner.seeds.mean, 6)}, standard error {_number(winner.seeds.sem, 2)}"
        )
    else:
        word = "highest" if objective.mode == "max" else "lowest"
        reasons.append(
            f"it has the {word} {objective.metric} of {len(search.valued):,} trials with a value, "
            "each at its best epoch of which a checkpoint is kept"
        )
    values = [each.best.value for each in search.valued if each.best]
    if len(values) > 1:
        second = values[1] if search.valued[0] is winner else values[0]
        reasons.append(
            f"the next one has {_number(second, 6)}, {_number(abs(second - value), 3)} away; the "
            f"median is {_number(median(values), 6)}"
        )
    first = min(search.valued, key=lambda each: each.record.folder.journal.started_ms())
    if first is not winner and first.best:
        reasons.append(
            f"the search's first trial, {first.trial_id}, has {_number(first.best.value, 6)}"
        )
    return reasons


def _seed_reasons(search: SearchContents) -> list[str]:
    study, seeds = search.run.seed_study, search.selection.seeds
    assert study
    if not seeds:
        return ["fewer than two seeds have a value"]
    reasons = [
        f"the mean over {seeds.seeds} seeds is {_number(seeds.mean, 6)}, standard error "
        f"{_number(seeds.sem, 2)}, standard deviation {_number(seeds.std, 3)}",
        f"best {_number(seeds.best, 6)}, median {_number(seeds.median, 6)}, worst "
        f"{_number(seeds.worst, 6)}",
        "the seed in the middle of the ranking stands for the config, because the best one would "
        "be the luckiest",
    ]
    if seeds.lost:
        reasons.append(f"{seeds.lost} more seeds have no value")
    if study.value is not None and search.seeds_beaten is not None:
        reasons.append(
            f"the studied run, {study.name}, has {_number(study.value, 6)}: better than "
            f"{search.seeds_beaten} of {seeds.seeds} seeds"
        )
    return reasons


def _setting_row(search: SearchContents, winner: TrialResult, name: str) -> dict[str, Any]:
    """Return a setting's value, its range, and where the best tenth of the trials lies in it."""
    value, scale = winner.config.get(name), search.ranges[name]
    best = search.valued[: max(1, len(search.valued) // 10)]
    values = [each.config.get(name) for each in best]
    known = [each for each in values if each is not None]
    if not known:
        text = ""
    elif scale.values:
        counted = Counter(map(str, known)).most_common(3)
        text = ", ".join(f"{each} ({num}×)" for each, num in counted)
    else:
        low, high = min(known), max(known)
        text = _number(low, 4) if low == high else f"{_number(low, 4)} to {_number(high, 4)}"
    place = float(scale.positions([value])[0]) if value is not None else None
    return {
        "name": name,
        "value": _number(value, 6),
        "range": str(scale) + ("" if scale.is_searched else " (of the trials)"),
        "place": None if place is None or place != place else round(100 * min(max(place, 0), 1)),
        "best": text,
        "num_best": len(best),
    }


def _schedule(winner: TrialResult) -> list[tuple[int, dict[str, str]]]:
    """Return the settings that the champion was trained with, and for how many epochs each, if
    they changed."""
    assert winner.best
    schedule = winner.record.epochs[winner.best.epoch].context.schedule
    return [
        (each.epochs, {name: _number(value, 4) for name, value in each.settings.items()})
        for each in schedule
    ]


# -- sections ------------------------------------------------------------------------------------
def _importance_text(search: SearchContents) -> dict[str, Any]:
    found = search.importances.get(search.objective)
    if found is None:
        text = (
            ""
            if search.run.seed_study
            else (
                f"Not computed: it needs at least {MIN_TRIALS} trials with different values, and "
                "settings that differ between them."
            )
        )
        return {"text": text, "weak": ""}
    weak = (
        f"It means little: it rests on {found.trials} trials. From {FEW_TRIALS} on, bars whose "
        "intervals do not overlap can be told apart."
    )
    return {
        "text": f"How much each setting decides whether a trial is among the best {found.top} of "
        f"{found.trials:,} (PED-ANOVA, by Optuna). The lines are the 5th to the 95th percentile "
        f"over {found.resamples} bootstrap resamples of the trials.",
        "weak": weak if found.is_weak else "",
    }


def _shown_text(search: SearchContents) -> str:
    shown, num = len(shown_trials(search)), len(search.valued)
    if shown == num:
        return ""
    return f"{shown:,} of {num:,} trials are drawn: the best ones, and the others evenly by rank."


def _stopping(search: SearchContents) -> dict[str, Any]:
    stopped = sum(ending == "stopped_early" for ending in search.endings)
    if stopped:
        text = (
            f"{stopped:,} of {len(search.trained):,} trials were stopped early "
            f"({search.run.chosen_scheduler}). That saved {search.saved_epochs:,} epochs, "
            f"{search.saved_share:.0%} of those that all trials would have taken."
        )
    else:
        text = f"No trial was stopped early ({search.run.chosen_scheduler})."
    columns = ["epoch", "trials that got there", "stopped there", "trials that went on"]
    rows = [
        [
            f"{each.epoch}",
            f"{each.reached:,}",
            f"{each.stopped:,}",
            "" if each.epoch >= search.run.epochs else f"{each.reached - each.stopped:,}",
        ]
        for each in search.rungs
    ]
    return {"text": text, "columns": columns, "rows": rows if stopped and len(rows) <= 16 else []}


def _front_table(search: SearchContents) -> dict[str, Any] | None:
    if not search.front:
        return None
    ranks = {result.trial_id: rank for rank, result in enumerate(search.ranking, 1)}
    rows = [(ranks[result.trial_id], result) for result in search.front[:_ROWS]]
    columns, cells = _rows(search, rows)
    return {
        "text": f"{len(search.front)} trials that no other beats in all of "
        f"{describe(search.objectives)}, each at its best epoch by {search.objective.metric}.",
        "columns": columns,
        "rows": cells,
    }


def _failures(search: SearchContents) -> list[dict[str, Any]]:
    urls = {each.trial_id: each.record for each in search.ranking}
    return [
        {
            "reason": each.reason,
            "num": len(each.trial_ids),
            "trials": [(name, search.run_url(urls[name])) for name in each.trial_ids[:_NAMED]],
            "more": max(0, len(each.trial_ids) - _NAMED),
        }
        for each in search.failures
    ]


def _cost(search: SearchContents) -> dict[str, Any]:
    """Return the device time of the search, of its trials, and of each way in which they ended."""
    seconds = [search.seconds(record) for record in search.trained]
    by_ending: dict[str, list[float]] = {}
    for result in search.ranking:
        by_ending.setdefault(result.outcome.ending, []).append(search.seconds(result.record))
    if search.running:
        by_ending[search.open_state] = [search.seconds(record) for record in search.running]
    rows = [
        [
            name.replace("_", " "),
            f"{len(each):,}",
            _number(sum(each) / 3600.0, 3),
            _number(fmean(each), 3),
            _number(max(each), 3),
        ]
        for name, each in by_ending.items()
    ]
    if len(rows) > 1:
        total = [sum(seconds) / 3600.0, fmean(seconds), max(seconds)]
        rows.append(["all", f"{len(seconds):,}", *(_number(each, 3) for each in total)])
    used = search.usage
    return {
        "columns": ["trials", "number", "device-hours", "mean seconds a trial", "most"],
        "rows": rows,
        "hours": _number(used.hours, 3) if used.seconds else "",
        "held_hours": _number(used.device_hours, 3),
    }


# -- tables --------------------------------------------------------------------------------------
def _table(search: SearchContents) -> tuple[list[str], list[list[Any]]]:
    """Return the best trials as a table, and those that run."""
    columns, rows = _rows(search, list(enumerate(search.ranking[:_ROWS], 1)))
    for record in search.running[:_NAMED]:
        assert record.info
        value = best_so_far(record, search.objective)
        link = {"text": record.folder.name, "url": search.run_url(record)}
        rest = [""] * (len(search.objectives) - 1 + 2)
        settings = [_number(record.info.params[name], 5) for name in search.searched]
        head = ["", link, search.open_state, str(record.last_epoch)]
        rows.append([*head, _number(value, 6), *rest, *settings])
    return columns, rows


def _rows(
    search: SearchContents, ranked: Sequence[tuple[int, TrialResult]]
) -> tuple[list[str], list[list[Any]]]:
    """Return the names of the columns and the rows of a table of trials with their ranks."""
    metrics = [objective.metric for objective in search.objectives]
    names = ["rank", "trial", "outcome", "epochs", *metrics, "mean over seeds", "std"]
    rows = []
    for rank, result in ranked:
        outcome, seeds = result.outcome, result.seeds
        link = {"text": result.trial_id, "url": search.run_url(result.record)}
        values = [_number(value, 6) for value in result.values(search.objectives)]
        statistics = [_number(seeds and seeds.mean, 6), _number(seeds and seeds.std, 3)]
        settings = [_number(result.config.get(name), 5) for name in search.searched]
        head = [str(rank), link, outcome.ending.replace("_", " "), str(outcome.last_epoch)]
        rows.append([*head, *values, *statistics, *settings])
    return [*names, *search.searched], rows


# -- several searches ----------------------------------------------------------------------------
def _comparison(searches: Sequence[SearchContents]) -> dict[str, Any]:
    """Return searches side by side: their curves together, what they reached and how they
    differ."""
    groups: dict[tuple[str, Objective], list[SearchContents]] = {}
    for search in searches:
        groups.setdefault((search.key, search.objective), []).append(search)
    figures = []
    for number, group in enumerate(groups.values()):
        if valued := [search for search in group if search.valued]:
            figures += joint_history_figures(valued, f"all-{number}-")
    settings = list(dict.fromkeys(name for search in searches for name in search.searched))
    rows = [_summary_row(search, settings) for search in searches]
    differing = differing_settings(searches)
    families: dict[str, float] = {}
    for search in searches:
        families[search.run.family] = families.get(search.run.family, 0.0) + search.device_hours
    return {
        "figures": [_placed(each) for each in figures],
        "comparable": len(groups) == 1,
        "columns": [
            "search",
            "family",
            "data",
            "trials",
            "device-hours",
            "metric",
            "best",
            "best trial",
            *settings,
        ],
        "rows": rows,
        "names": [search.name for search in searches],
        "differing": [
            (name, ["" if v is None else _number(v, 6) for v in values])
            for name, values in differing.items()
        ],
        "families": [(name, _number(hours, 3)) for name, hours in families.items()],
        "data": {"figures": {each.name: each.as_json() for each in figures}},
    }


def _summary_row(search: SearchContents, settings: Sequence[str]) -> list[Any]:
    winner = search.selection.winner
    best = winner.best if winner else None
    config: Mapping[str, Any] = winner.config if winner and best else {}
    trial = (
        {"text": winner.trial_id, "url": search.run_url(winner.record)} if winner and best else ""
    )
    return [
        {"text": search.name, "url": search.run_url_of_search},
        search.run.family,
        search.run.data,
        f"{len(search.trained):,}",
        _number(search.device_hours, 3),
        str(search.objective),
        _number(best.value if best else None, 6),
        trial,
        *(_number(config.get(name), 5) for name in settings),
    ]


# -- values --------------------------------------------------------------------------------------
def _number(value: Any, digits: int) -> str:
    """Return a value as text; a number with so many digits."""
    if value is None:
        return ""
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)
