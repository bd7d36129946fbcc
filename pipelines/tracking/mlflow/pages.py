"""What a person finds on MLflow's pages: saved views of an experiment's runs, and descriptions.

A saved view is a tag of the experiment, as MLflow's pages themselves write it: a filter of runs,
their order and their columns. Views and descriptions follow from the journals, so that they are
written again where a store is recorded anew. A description that somebody has edited stays.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zlib
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from pipelines.evaluation.metric_names import BEST_CURVE
from pipelines.store.journal import Journal, Outcome, RunInfo
from pipelines.store.layout import SearchFolder
from pipelines.store.secrets import redact
from pipelines.tracking.mlflow.runs import KnownRun
from pipelines.tracking.mlflow.server import TRIALS, VIEW, run_link, view_link

SEARCHES, PARETO = "searches", "pareto"
"""Keys of views, beside `TRIALS`. That of the trials of one search is the search's id."""
_DIGEST = "description_digest"
"""Tag with the digest of the description that was written: somebody may have edited it."""
_SHOWN_TRIALS = 10
_MAX_KEY = 100
_MAX_DESCRIPTION = 7500
"""Characters; MLflow takes 8,000 of a run's tag."""
_DEFAULTS: Mapping[str, Any] = {
    **{"searchFilter": "", "orderByKey": "attributes.start_time", "orderByAsc": False},
    **{"startTime": "ALL", "lifecycleFilter": "Active", "datasetsFilter": []},
    **{"modelVersionFilter": "All Runs", "columnOrder": [], "columnWidths": {}},
    **{"runsExpanded": {}, "runsPinned": [], "runsHidden": [], "runsVisibilityMap": {}},
    **{"runsHiddenMode": "FIRST_10_RUNS", "viewMaximized": False, "runListHidden": False},
    **{"isAccordionReordered": False, "useGroupedValuesInCharts": True, "hideEmptyCharts": True},
    **{"groupBy": None, "groupsExpanded": {}, "autoRefreshEnabled": True},
    "globalLineChartConfig": {
        **{"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    },
}
"""The state of MLflow's table of runs, where a view does not say otherwise."""


class Pages:
    """Writes the views and descriptions of the runs that one process delivers."""

    def __init__(self, client: MlflowClient, here: str) -> None:
        """`here`: the tracking URI without a password."""
        self._client, self._here = client, here
        self._begun: set[str] = set()
        """Ids of the runs that are shown as going on."""

    def show(self, run: KnownRun, journal: Journal, outcome: Outcome | None) -> None:
        """Show a run or a search in its experiment, and describe it: when it begins, and when it
        has ended."""
        info = journal.required_info()
        if info.kind == "trial" or (outcome is None and run.run_id in self._begun):
            return
        self._begun.add(run.run_id)
        known = dict(self._client.get_experiment(run.experiment_id).tags)
        at = journal.started_ms()
        for key, name, state in _views(info):
            if info.kind == "run" and f"{VIEW}{key}" in known:
                continue  # that of a search has the searched settings as columns
            if at >= _shown_at(known.get(f"{VIEW}{key}", "")):
                self._set(run.experiment_id, known, f"{VIEW}{key}", _view(name, state, at))
        text = _experiment_text(run.experiment_id, known)
        for tag, value in _described(known, text).items():
            self._set(run.experiment_id, known, tag, value)
        if text := self._text(run, journal, info, outcome):
            own = self._client.get_run(run.run_id).data.tags
            for tag, value in _described(own, text).items():
                self._client.set_tag(run.run_id, tag, value)

    def _set(self, experiment_id: str, known: dict[str, str], tag: str, value: str) -> None:
        if known.get(tag) != value:
            self._client.set_experiment_tag(experiment_id, tag, value)
            known[tag] = value

    def _text(
        self, run: KnownRun, journal: Journal, info: RunInfo, outcome: Outcome | None
    ) -> str:
        """Return the description of a run or a search, in Markdown."""
        experiment_id = run.experiment_id
        note = run.labels.note
        if info.kind == "run":
            return note
        metric, folder = _metrics(info)[0], SearchFolder(journal.run_folder, journal.files)
        family, data = info.tags.get("family", ""), info.dataset.get("name", "")
        ranked = f"{family} on {data}, ranked by `{metric}` ({info.tags.get('mode', '')})"
        links = [("All trials", view_link(experiment_id, _key(info.search_id)))]
        if len(_metrics(info)) > 1:
            links.append(("Pareto front", view_link(experiment_id, PARETO)))
        parts = [note, ranked, " · ".join(f"[{name}]({link})" for name, link in links)]
        if outcome and outcome.ending == "completed":
            parts.append(self._ranking(experiment_id, folder, metric))
        space = {k: v for k, v in info.params.items() if k.startswith("space.")}
        rows = [[name.removeprefix("space."), f"`{domain}`"] for name, domain in space.items()]
        parts.append(_table(["searched", "domain"], rows))
        return "\n\n".join(filter(None, parts))

    def _ranking(self, experiment_id: str, folder: SearchFolder, metric: str) -> str:
        """Return the table of the best trials, the best one first."""
        if not folder.files.exists(folder.table):
            return ""
        text = folder.files.read(folder.table).decode()
        rows = []
        for number, line in enumerate(csv.DictReader(io.StringIO(text)), 1):
            if number > _SHOWN_TRIALS:
                break
            trial = folder.trial(line["trial_id"]).journal
            info, run_id = trial.info(), trial.delivered(self._here).get("run_id")
            name = (info.label if info else "") or line["trial_id"]
            linked = f"[{name}]({run_link(experiment_id, run_id)})" if run_id else name
            rest = [line["trial_id"], _number(line.get(metric, "")), line["best_epoch"]]
            rows.append([str(number), linked, *rest, line["outcome"].replace("_", " ")])
        return _table(["rank", "trial", "id", metric, "best epoch", "outcome"], rows)


# -- views ------------------------------------------------------------------------------------
def _views(info: RunInfo) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Iterate over the views that a run or a search adds to its experiment: key, name, state."""
    metrics = _metrics(info)
    best = [_column("metrics", f"best/{metric}") for metric in metrics]
    names = str(info.params.get("searched", "")).split()
    columns = [
        *best,
        *(_column("params", name) for name in names),
        _column("metrics", "best/epoch"),
        _column("tags", "outcome"),
    ]
    order = {"orderByKey": best[0], "orderByAsc": info.tags.get("mode") != "max"}
    trials = {**order, "selectedColumns": columns}
    single = "tags.kind != 'search' and tags.kind != 'confirmation'"
    yield TRIALS, f"Trials by best {metrics[0]}", {**trials, "searchFilter": single}
    if info.kind == "run":
        return
    yield SEARCHES, "Searches", _searches_state(best)
    quote = '"' if "'" in info.search_id else "'"
    own = f"tags.search_id = {quote}{info.search_id}{quote} and tags.kind = 'trial'"
    yield _key(info.search_id), info.label or info.name, {**trials, "searchFilter": own}
    if len(metrics) > 1:
        front = "tags.pareto_front = 'true'"
        yield PARETO, "Pareto front", {**trials, "searchFilter": front}


def _searches_state(best: Sequence[str]) -> dict[str, Any]:
    counts = ("trials/ended", "trials/running", "trials/stopped_early", "trials/failed")
    columns = [
        *best,
        *(_column("metrics", name) for name in (BEST_CURVE, *counts, "device_hours")),
        *(_column("params", name) for name in ("trials", "searcher", "scheduler")),
        _column("tags", "outcome"),
    ]
    kinds = "tags.search_id != '' and tags.kind != 'trial' and tags.kind != 'run'"
    return {"selectedColumns": columns, "searchFilter": kinds}


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"


def _metrics(info: RunInfo) -> list[str]:
    """Return the metrics of a run's objectives, the first of which ranks."""
    objectives = info.tags.get("objectives", "")
    several = [each.rpartition(" (")[0] for each in objectives.split(", ") if each]
    return several or [info.tags.get("metric", "")]


def _key(search_id: str) -> str:
    """Return the key of the view of a search: of what a tag's name takes."""
    if len(search_id) <= _MAX_KEY and all(c.isalnum() or c in "._-" for c in search_id):
        return search_id
    return hashlib.sha256(search_id.encode()).hexdigest()[:16]


def _view(name: str, state: Mapping[str, Any], at: int) -> str:
    """Return the value of a view's tag. `at`: when it was made, in milliseconds since 1970."""
    content = json.dumps({**_DEFAULTS, **state}).encode()
    packed = f"deflate;{b64encode(zlib.compress(content, 9)).decode()}"
    return json.dumps({"name": name, "createdAt": at, "updatedAt": at, "state": packed})


def _shown_at(value: str) -> int:
    """Return when the view of a tag's value was made; 0 of one that is not ours."""
    try:
        return int(json.loads(value)["createdAt"])
    except (ValueError, KeyError, TypeError):
        return 0


# -- descriptions -----------------------------------------------------------------------------
def _experiment_text(experiment_id: str, tags: Mapping[str, str]) -> str:
    names = {TRIALS: "Trials, the best first", SEARCHES: "Searches", PARETO: "Pareto front"}
    links = [
        f"[{name}]({view_link(experiment_id, key)})"
        for key, name in names.items()
        if f"{VIEW}{key}" in tags
    ]
    return " · ".join(links)  # in one line: the page shows the first one alone


def _described(tags: Mapping[str, str], text: str) -> dict[str, str]:
    """Return the tags that describe a run or an experiment with these tags by a text; {} if it is
    so described, or somebody has edited the description."""
    text = redact(text)[:_MAX_DESCRIPTION]
    before = tags.get(MLFLOW_RUN_NOTE, "")
    if before == text or (before and _digest(before) != tags.get(_DIGEST)):
        return {}
    return {_DIGEST: _digest(text), MLFLOW_RUN_NOTE: text}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown; "" without rows."""
    lines = [names, ["---"] * len(names), *rows] if rows else []
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _number(text: str) -> str:
    try:
        return f"{float(text):.5g}"
    except ValueError:
        return text
