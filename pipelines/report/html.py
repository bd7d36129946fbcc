"""The report's page: HTML with everything in it, pictures too, and no script."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment

from pipelines.analysis.pareto import front
from pipelines.analysis.ranking import Standing
from pipelines.config.objectives import described
from pipelines.config.run import Mode, Objective
from pipelines.report.figures import (
    COLOURED,
    against_settings,
    learning_curves,
    parallel_coordinates,
    pareto_front,
)
from pipelines.report.trials import Trial
from pipelines.store.journal import Journal

_ROWS = 200
"""Trials in the table; all are in trials.csv."""
_SAMPLES = 4
"""Trials of which samples are shown."""

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


def render(
    search_folder: Path,
    trials: Sequence[Trial],
    metric: str,
    mode: Mode,
    further: Sequence[Objective] = (),
) -> str:
    """The page of a search, of its trials in the ranking's order."""
    known = Journal(search_folder).identity()
    assert known
    ended = [trial for trial in trials if trial.standing.best]
    columns, rows = _table(list(enumerate(trials[:_ROWS], 1)), metric, further)
    diagrams = _diagrams(ended, metric, mode) if ended else []
    objectives = [(metric, mode), *further]
    if further and (members := front([trial.standing for trial in ended], objectives)):
        diagrams.insert(0, _front(ended, members, objectives))
    template = Environment(autoescape=True).from_string(_TEMPLATE)
    return template.render(
        title=known.name,
        facts=_facts(trials, int(known.params["num_workers"]), f"{metric} ({mode})"),
        rerun=known.tags["rerun"],
        diagrams=diagrams,
        samples=_samples(search_folder, ended),
        columns=columns,
        rows=rows,
        left_out=max(0, len(trials) - _ROWS),
    )


def _facts(trials: Sequence[Trial], num_workers: int, ranked_by: str) -> list[str]:
    endings = Counter(trial.standing.outcome.ending.replace("_", " ") for trial in trials)
    hours = sum(trial.seconds for trial in trials) * num_workers / 3600.0
    epochs = sum(len(trial.curve) for trial in trials)
    return [
        f"{len(trials)} trials: " + ", ".join(f"{n} {name}" for name, n in endings.items()),
        f"ranked by {ranked_by}",
        f"{epochs} epochs",
        f"{hours:.3g} hours of training on a core or GPU",
    ]


def _front(
    trials: Sequence[Trial], members: Sequence[Standing], objectives: Sequence[Objective]
) -> dict[str, Any]:
    """The Pareto front, as a diagram with a table of its trials."""
    ranked = {trial.standing.trial_id: (rank, trial) for rank, trial in enumerate(trials, 1)}
    shown = [ranked[standing.trial_id] for standing in members]
    (metric, _), *further = objectives
    columns, rows = _table(shown, metric, further)
    return {
        "title": "Pareto front",
        "text": f"{len(shown)} trials that no other beats in all of {described(objectives)}, each "
        f"at its best epoch by {metric}. Numbers are ranks by {metric}, as in the tables; the "
        "worst tenth lies at the edge.",
        "picture": _embedded(pareto_front(trials, shown, objectives)),
        "columns": columns,
        "rows": rows,
    }


def _diagrams(trials: Sequence[Trial], metric: str, mode: Mode) -> list[dict[str, Any]]:
    edge = "Colours go from the best trial's to the worst's; the worst tenth lies at the edge."
    return [
        {
            "title": "Learning curves",
            "text": f"The best {min(COLOURED, len(trials))} trials in colour.",
            "picture": _embedded(learning_curves(trials, metric, mode)),
        },
        {
            "title": f"{metric} against each setting",
            "text": edge,
            "picture": _embedded(against_settings(trials, metric, mode)),
        },
        {
            "title": "Parallel coordinates",
            "text": "A line for each trial, the best on top.",
            "picture": _embedded(parallel_coordinates(trials, metric, mode)),
        },
    ]


def _samples(search_folder: Path, trials: Sequence[Trial]) -> list[dict[str, str]]:
    """The champion's samples, and the last ones drawn of the best trials that have any."""
    champion = search_folder / "champion.png"
    found = [("of the search's model", champion)] if champion.is_file() else []
    drawn = [
        (f"rank {rank}, trial {t.standing.trial_id}", t.samples)
        for rank, t in enumerate(trials, 1)
        if t.samples
    ]
    shown = [*found, *drawn[:_SAMPLES]]
    return [{"text": text, "picture": _embedded(path.read_bytes())} for text, path in shown]


def _table(
    ranked: Sequence[tuple[int, Trial]], metric: str, further: Sequence[Objective]
) -> tuple[list[str], list[list[str]]]:
    """The names of the columns, and the rows, of trials with their ranks."""
    settings = list(ranked[0][1].standing.config) if ranked else []
    others = [name for name, _ in further]
    names = ["rank", "trial", "ending", "epochs", metric, *others, "mean over seeds", "std"]
    rows = []
    for rank, standing in ((rank, trial.standing) for rank, trial in ranked):
        best, spread, ended = standing.best, standing.spread, standing.outcome
        head = [rank, standing.trial_id, ended.ending.replace("_", " "), ended.last_epoch]
        values = [
            best.value if best else "",
            *(best.metrics.get(name, "") if best else "" for name in others),
            spread.mean if spread else "",
            spread.std if spread else "",
        ]
        rows.append([_text(value) for value in (*head, *values, *standing.config.values())])
    return [*names, *settings], rows


def _text(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _embedded(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
