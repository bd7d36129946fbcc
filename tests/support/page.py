"""A search's page, read back from its HTML, and searches on paper to make pages of."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from support.journals import METRIC, open_journal, write_checkpoint

from pipelines.config.run import defaults
from pipelines.config.search import Search
from pipelines.config.serialization import dump_config
from pipelines.report.contents import SearchContents, read_contents
from pipelines.store.journal import EpochContext, Outcome, RunStatus, Segment
from pipelines.store.layout import SearchFolder

SEARCHED = ["model.latent_dim", "model.kl_weight", "optim.lr"]
DELIVERED = {"uri": "sqlite:////s/mlflow.db", "experiment_id": "7"}
_VOID = ("meta", "img", "br", "link", "input", "hr")


class Page(HTMLParser):
    """The parts of a page: its data for the script, its tables by heading, its pictures and its
    links. Every tag must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.data: dict[str, Any] = {}
        self.headings: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        """Rows by the last heading above the table; those of further tables follow."""
        self.pictures: list[str] = []
        self.links: list[str] = []
        self.plots: list[tuple[str, str]] = []
        """Owner and name of each figure."""
        self.notes: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self._json = ""
        self._attributes: dict[str, str | None] = {}
        self.feed(text)
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        assert tag not in ("link", "iframe", "object") and not (tag == "script" and "src" in known)
        if tag == "img":
            self.pictures.append(known["src"] or "")
        if tag == "a":
            self.links.append(known["href"] or "")
        if "data-figure" in known:
            self.plots.append((known["data-owner"] or "", known["data-figure"] or ""))
        if tag in ("h1", "h2", "h3", "summary"):
            self.headings.append("")
        if tag == "p" and known.get("class") == "note":
            self.notes.append("")
        if tag == "tr":
            self.tables.setdefault(self.headings[-1], []).append([])
        if tag in ("td", "th"):
            self.tables[self.headings[-1]][-1].append("")
        if tag not in _VOID:
            self._open.append(tag)
            self._attributes = known

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, tag
        if tag == "script" and self._json:
            self.data, self._json = json.loads(self._json), ""

    def handle_data(self, data: str) -> None:
        if not self._open:
            return
        if self._open[-1] == "script":
            if self._attributes.get("id") == "data":
                self._json += data
            return
        if self._open[-1] == "style":
            return
        self.text += data
        if {"h1", "h2", "h3", "summary"} & {self._open[-1]}:
            self.headings[-1] += data
        if {"td", "th"} & set(self._open):
            self.tables[self.headings[-1]][-1][-1] += data
        if self._open[-1] == "p" and self._attributes.get("class") == "note":
            self.notes[-1] += data

    def figure(self, name: str, search: int = 0) -> dict[str, Any]:
        """Return what the script draws of a figure."""
        found: dict[str, Any] = self.data["searches"][search]["figures"][name]
        return found

    def figures(self, search: int = 0) -> list[str]:
        """Return the names of a search's figures."""
        return list(self.data["searches"][search]["figures"])

    def words(self) -> str:
        """Return the page's text with single spaces."""
        return re.sub(r"\s+", " ", self.text)


def config_of(**settings: Any) -> Search:
    """Return the config of a search of VAEs, ranked by `METRIC`."""
    known = {"metric": METRIC, "mode": "max", "trials": 4, "epochs": 6}
    return replace(defaults(Search, "vae"), **{**known, **settings})


def open_search(
    folder: Path, run: Search | None = None, searched: Sequence[str] = SEARCHED, **tags: str
) -> SearchFolder:
    """Record that a search has begun."""
    run = run or config_of()
    search = SearchFolder.at(folder)
    search.files.write(search.config, dump_config(run))
    params = {"num_workers": run.num_workers, "searched": " ".join(searched), "data": "digits"}
    kind = "confirmation" if run.seed_study else "search"
    known = {"rerun": "genpipe search <b>", "family": "vae", "metric": METRIC, "mode": run.mode}
    open_journal(
        folder, name=folder.name, kind=kind, params=params, tags={**known, **tags}
    ).mark_delivered({**DELIVERED, "run_id": "search-run"})
    return search


def write_trial(
    search: SearchFolder,
    name: str,
    config: Mapping[str, Any],
    epochs: Sequence[Mapping[str, float] | float],
    status: RunStatus | None = "completed",
    *,
    pictures: Mapping[int, bytes] | None = None,
    message: str = "",
    schedule: Sequence[Segment] = (),
    saved: bool = True,
) -> None:
    """Record a trial. `epochs`: the metrics of each, or its `METRIC`; an epoch takes a minute.
    `pictures`: samples by epoch. `status`: None leaves it running."""
    folder = search.trial(name)
    params = {**dict.fromkeys(SEARCHED, 1), **config}
    journal = open_journal(folder.path, kind="trial", trial_id=name, params=params)
    for epoch, each in enumerate(epochs, 1):
        metrics = dict(each) if isinstance(each, Mapping) else {METRIC: each}
        drawn = (pictures or {}).get(epoch)
        context = EpochContext(schedule=tuple(schedule))
        samples = {"samples": drawn} if drawn else {}
        journal.write_epoch(epoch, {"epoch_seconds": 60.0, **metrics}, samples, context)
    if saved and epochs:
        for epoch in range(1, len(epochs) + 1):
            write_checkpoint(folder.path, epoch)
    if status:
        tags = {"message": message} if message else {}
        journal.close(Outcome(status, len(epochs), tags=tags))
    journal.mark_delivered({**DELIVERED, "run_id": f"run-of-{name}"})


def contents_of(search: SearchFolder, run: Search | None = None) -> SearchContents:
    """Read what the page shows."""
    return read_contents(search, run or config_of())
