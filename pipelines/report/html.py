"""A search's page: one HTML file with everything in it, figures and samples too, and no script."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment

from pipelines.analysis.comparability import comparison_key, short
from pipelines.analysis.pareto import pareto_front
from pipelines.analysis.ranking import TrialResult
from pipelines.config.objectives import Objective, describe
from pipelines.report.figures import (
    COLOURED,
    against_settings,
    learning_curves,
    parallel_coordinates,
    pareto_diagram,
)
from pipelines.store.layout import SearchFolder

_ROWS = 200
"""Trials in the table; all are in trials.csv."""
_SAMPLES = 4
"""Trials whose samples are shown."""

_TEMPLATE = """\
{% macro table(columns, rows) %}
<div class="wide"><table>
<tr>{% for name in columns %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in rows %}
<tr>{% for value in row %}<td>{{ value }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
{% endmacro -%}
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{{ title }}</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 70rem; margin: 2rem auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd; }
th { border-bottom-color: #888; }
.wide { overflow-x: auto; }
img { max-width: 100%; }
figure { display: inline-block; margin: 0 1rem 1rem 0; vertical-align: top; max-width: 30rem; }
code { font-size: 13px; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p>{{ facts | join(" · ") }}</p>
<p>compared with: {{ comparable }}, key {{ key }}</p>
<p><code>{{ rerun }}</code></p>
{% for diagram in diagrams %}
<h2>{{ diagram.title }}</h2>
<p>{{ diagram.text }}</p>
<img alt="{{ diagram.title }}" src="{{ diagram.picture }}">
{{ table(diagram.columns, diagram.rows) if diagram.rows }}
{% endfor %}
{% if samples %}
<h2>Samples</h2>
{% for each in samples %}
<figure>
<img alt="samples" src="{{ each.picture }}">
<figcaption>{{ each.text }}</figcaption>
</figure>
{% endfor %}
{% endif %}
<h2>Trials</h2>
{{ table(columns, rows) }}
{% if left_out %}<p>{{ left_out }} more are in trials.csv.</p>{% endif %}
</body>
</html>
"""


def write_report(
    folder: SearchFolder, ranking: Sequence[TrialResult], objectives: Sequence[Objective]
) -> None:
    """Write the page into the search's folder. `ranking`: the trials that have ended, the best
    first. With several objectives the page shows the Pareto front."""
    folder.files.write(folder.report, render(folder, ranking, objectives))


def render(
    folder: SearchFolder, ranking: Sequence[TrialResult], objectives: Sequence[Objective]
) -> str:
    """Return the page as HTML."""
    info = folder.journal.info()
    assert info
    key = comparison_key(info.params, info.tags, objectives[0].metric)
    with_value = [result for result in ranking if result.best]
    columns, rows = _table(list(enumerate(ranking[:_ROWS], 1)), objectives)
    diagrams = _diagrams(with_value, objectives[0]) if with_value else []
    if len(objectives) > 1 and (front := pareto_front(with_value, objectives)):
        diagrams.insert(0, _front(with_value, front, objectives))
    template = Environment(autoescape=True).from_string(_TEMPLATE)
    return template.render(
        title=info.name,
        facts=_facts(ranking, int(info.params["num_workers"]), str(objectives[0])),
        comparable=key,
        key=short(key),
        rerun=info.tags["rerun"],
        diagrams=diagrams,
        samples=_samples(folder, with_value),
        columns=columns,
        rows=rows,
        left_out=max(0, len(ranking) - _ROWS),
    )


def _facts(ranking: Sequence[TrialResult], num_workers: int, ranked_by: str) -> list[str]:
    statuses = Counter(result.outcome.ending.replace("_", " ") for result in ranking)
    records = [record for result in ranking for record in result.record.counted()]
    seconds = sum(record.metrics.get("epoch_seconds", 0.0) for record in records)
    return [
        f"{len(ranking)} trials: " + ", ".join(f"{n} {name}" for name, n in statuses.items()),
        f"ranked by {ranked_by}",
        f"{len(records)} epochs",
        f"{seconds * num_workers / 3600.0:.3g} hours of training on a core or GPU",
    ]


def _front(
    ranking: Sequence[TrialResult],
    front: Sequence[TrialResult],
    objectives: Sequence[Objective],
) -> dict[str, Any]:
    """Return the Pareto front as a diagram with a table of its trials."""
    ranked = {result.trial_id: (rank, result) for rank, result in enumerate(ranking, 1)}
    shown = [ranked[result.trial_id] for result in front]
    metric = objectives[0].metric
    columns, rows = _table(shown, objectives)
    return {
        "title": "Pareto front",
        "text": f"{len(shown)} trials that no other beats in all of {describe(objectives)}, each "
        f"at its best epoch by {metric}. Numbers are ranks by {metric}, as in the tables; the "
        "worst tenth lies at the edge.",
        "picture": _embedded(pareto_diagram(ranking, shown, objectives)),
        "columns": columns,
        "rows": rows,
    }


def _diagrams(ranking: Sequence[TrialResult], objective: Objective) -> list[dict[str, Any]]:
    edge = "Colours go from the best trial's to the worst's; the worst tenth lies at the edge."
    return [
        {
            "title": "Learning curves",
            "text": f"The best {min(COLOURED, len(ranking))} trials in colour.",
            "picture": _embedded(learning_curves(ranking, objective)),
        },
        {
            "title": f"{objective.metric} against each setting",
            "text": edge,
            "picture": _embedded(against_settings(ranking, objective)),
        },
        {
            "title": "Parallel coordinates",
            "text": "A line for each trial, the best on top.",
            "picture": _embedded(parallel_coordinates(ranking, objective)),
        },
    ]


def _samples(folder: SearchFolder, ranking: Sequence[TrialResult]) -> list[dict[str, str]]:
    """Return the champion's samples, and the last ones drawn of the best trials that have any."""
    trials = []
    for rank, result in enumerate(ranking, 1):
        drawn = [r.pictures["samples"] for r in result.record.counted() if "samples" in r.pictures]
        if drawn:
            trials.append((f"rank {rank}, trial {result.trial_id}", drawn[-1]))
    champion = folder.champion_samples
    shown = [("of the search's model", champion)] if champion.is_file() else []
    shown += trials[:_SAMPLES]
    return [{"text": text, "picture": _embedded(path.read_bytes())} for text, path in shown]


def _table(
    ranked: Sequence[tuple[int, TrialResult]], objectives: Sequence[Objective]
) -> tuple[list[str], list[list[str]]]:
    """Return the names of the columns and the rows of a table of trials with their ranks."""
    settings = list(ranked[0][1].config) if ranked else []
    metrics = [objective.metric for objective in objectives]
    names = ["rank", "trial", "outcome", "epochs", *metrics, "mean over seeds", "std"]
    rows = []
    for rank, result in ranked:
        outcome, seeds = result.outcome, result.seeds
        head = [rank, result.trial_id, outcome.ending.replace("_", " "), outcome.last_epoch]
        values = ["" if v is None else v for v in result.values(objectives)]
        statistics = [seeds.mean if seeds else "", seeds.std if seeds else ""]
        cells = (*head, *values, *statistics, *result.config.values())
        rows.append([_text(cell) for cell in cells])
    return [*names, *settings], rows


def _text(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _embedded(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
