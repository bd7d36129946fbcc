"""How long MLflow's pages of a search take in a browser.

A search of 24 trials of each family on scikit-learn's digits, and one of 1,000 whose journals are
written without training, are served by `genpipe browse` and opened in headless Chromium: the table
of trials, their charts, the page and the charts of the best trial, the page of the search. A page
is open once its rows and charts are drawn. Every page is loaded anew, by a browser that has seen
MLflow's scripts before, as that of a person who browses has.

    python -m benchmarks.mlflow_pages
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import tyro
from mlflow import MlflowClient

from benchmarks.browser import browser_page
from benchmarks.figures import (
    ROOT,
    environment,
    finish,
    genpipe,
    run_genpipe,
    say,
    scratch,
    setting,
)
from benchmarks.processes import answers, free_ports, kill_tree, wait_for
from benchmarks.report import write_search
from pipelines.store.layout import Store
from pipelines.tracking.mlflow.server import TRIALS, run_link, view_link

if TYPE_CHECKING:
    from playwright.sync_api import Page

FAMILIES = ("autoencoder", "gan", "vae")
NUM_REPLAYED = 1_000
_SEARCH = ("--data=digits", "--features=pca", "--trials=24", "--epochs=6", "--grace-period=2")
_LIMIT_SECONDS = 300.0
_REST_SECONDS = 1.5
TALL = 8_000
"""Pixels of a window in which all charts are."""

_ROWS = """() => {
    const rows = new Map();
    for (const cell of document.querySelectorAll(".ag-row .ag-cell")) {
        const at = Number(cell.closest(".ag-row").getAttribute("row-index"));
        const row = rows.get(at) || {at, colour: "", link: "", cells: {}};
        const column = cell.getAttribute("col-id").replaceAll("`", "").replace(/^\\w+\\./, "");
        row.cells[column] = cell.innerText.trim();
        if (column === "Run Name") {
            row.cells[column] = cell.querySelector("a").innerText.trim();
            row.link = cell.querySelector("a").getAttribute("href");
        }
        if (column === "runDateAndNestInfo")
            row.colour = getComputedStyle(cell.querySelector("[role=img]")).color;
        rows.set(at, row);
    }
    return [...rows.values()].sort((a, b) => a.at - b.at);
}"""
_CARDS = """() => [...document.querySelectorAll(
    "[data-testid=experiment-view-compare-runs-card]")].map(card => ({
        title: card.innerText.trim().split("\\n")[0],
        points: [...card.querySelectorAll(".js-plotly-plot")].flatMap(plot => plot.data || [])
            .reduce((sum, trace) => sum + (trace.x || []).length, 0),
        pictures: [...card.querySelectorAll("img")].filter(image => image.naturalWidth > 0).length,
        bottom: card.getBoundingClientRect().bottom,
    }))"""
_DRAWN = f"""() => {{
    const seen = ({_CARDS})().filter(
        (card, at) => at === 0 || card.bottom < window.innerHeight - 100);
    return seen.length > 0 && seen.every(card => card.points || card.pictures);
}}"""
"""A chart is drawn once it is in the window, whose last lines the charts leave free."""


@dataclass(frozen=True)
class Options:
    """Open MLflow's pages of small and large searches."""

    repeats: int = 5
    """Times that each page is opened; the figures are medians."""
    store: Path | None = None
    """Folder of the store, kept and used again; without it, one that is removed."""


class Row(NamedTuple):
    """A run, as MLflow's table shows it."""

    cells: Mapping[str, str]
    """What it shows of the run, by the name of the column."""
    link: str
    """Where its name leads."""
    colour: str
    """Of the sign of its status, as CSS writes it: `rgb(R, G, B)`."""

    @property
    def run_id(self) -> str:
        return self.link.rpartition("/")[2].partition("?")[0]

    @property
    def is_red(self) -> bool:
        red, green, blue = (int(part) for part in self.colour.strip("rgb()").split(",")[:3])
        return red > green + 60 and red > blue + 60


class Card(NamedTuple):
    """A chart, as MLflow's pages show it."""

    title: str
    points: int
    pictures: int


class MlflowPages:
    """MLflow's pages in a browser."""

    def __init__(self, page: Page, address: str) -> None:
        self.page, self._address = page, address
        self._height = (page.viewport_size or {"height": 900})["height"]

    def table(self, experiment_id: str, view: str = TRIALS) -> list[Row]:
        """Open the runs of a view; return those that the window has room for."""
        self._open(view_link(experiment_id, view))
        self.page.wait_for_selector(".ag-pinned-left-cols-container .ag-row a")
        self.page.wait_for_selector(".ag-center-cols-container .ag-row .ag-cell")
        return [Row(row["cells"], row["link"], row["colour"]) for row in self._evaluate(_ROWS)]

    def charts(self, experiment_id: str, view: str = TRIALS) -> None:
        """Open the charts of the runs of a view."""
        self._open(f"{view_link(experiment_id, view)}&compareRunsMode=CHART")
        self.page.wait_for_function(_DRAWN)

    def run(self, experiment_id: str, run_id: str) -> None:
        """Open the page of a run."""
        self._open(run_link(experiment_id, run_id))
        self.page.wait_for_selector("text=Run ID")

    def run_charts(self, experiment_id: str, run_id: str) -> None:
        """Open the charts of a run."""
        link = run_link(experiment_id, run_id)
        self._open(link.replace(run_id, f"{run_id}/model-metrics"))
        self.page.wait_for_function(_DRAWN)

    def cards(self) -> list[Card]:
        """Return all charts of the page that is open, which are drawn for it."""
        width = (self.page.viewport_size or {"width": 1_400})["width"]
        self.page.set_viewport_size({"width": width, "height": TALL})
        found, before = self._drawn(), None
        while found != before:  # sections are added as there is room
            time.sleep(_REST_SECONDS)
            found, before = self._drawn(), found
        self.page.set_viewport_size({"width": width, "height": self._height})
        return found

    def _drawn(self) -> list[Card]:
        self.page.wait_for_function(_DRAWN)
        names = Card._fields
        return [Card(*(card[name] for name in names)) for card in self._evaluate(_CARDS)]

    def _open(self, link: str) -> None:
        self.page.goto("about:blank")  # else the page would only be changed
        self.page.goto(f"{self._address}/{link}")

    def _evaluate(self, code: str) -> Any:
        return self.page.evaluate(code)


@contextmanager
def served(store: Path) -> Iterator[str]:
    """Serve MLflow's page of a store for the block; return its address."""
    (port,) = free_ports(1)
    command = [sys.executable, *genpipe(["browse", f"--store={store}", f"--port={port}"])]
    with (store / "browse.log").open("w") as log:
        server = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(lambda: answers(f"{address}/health"), _LIMIT_SECONDS, "no page of MLflow's")
        yield address
    finally:
        kill_tree(server.pid)
        server.wait()


def recorded(store: Path, family: str) -> tuple[MlflowClient, str]:
    """Return MLflow's client for a store, and the id of a family's experiment on digits."""
    client = MlflowClient(f"sqlite:///{Store.at(store).database}")
    experiment = client.get_experiment_by_name(f"{family}-digits")
    if experiment is None:
        raise SystemExit(f"nothing of {family} is recorded in {store}")
    return client, experiment.experiment_id


def search(family: str, store: Path) -> None:
    """Search a family, with 24 trials."""
    run_genpipe(["search", family, *_SEARCH, f"--store={store}", f"--name={family} of 24"])


def record_replayed(store: Path) -> None:
    """Record a search of 1,000 trials that nothing was trained for."""
    write_search(Store.at(store).search("vae of 1000"), NUM_REPLAYED, epochs=6)
    run_genpipe(["sync", f"--store={store}"])


def main() -> None:
    options = tyro.cli(Options, description=__doc__, args=sys.argv[1:])
    found = setting(options)
    figures: dict[str, float] = {}
    with ExitStack() as stack:
        root = (options.store or stack.enter_context(scratch())).absolute()
        small, large = root / "small", root / "large"
        if not small.exists():
            for family in FAMILIES:
                say(f"searching: {family}")
                search(family, small)
        if not large.exists():
            record_replayed(large)
        for store, families in ((small, FAMILIES), (large, ("vae",))):
            for family in families:
                name = family if store == small else f"{NUM_REPLAYED}_trials"
                figures |= _measure(store, family, name, options.repeats)
    figures["slowest_seconds"] = max(figures.values())
    finish("mlflow_pages", figures, found)


def _measure(store: Path, family: str, name: str, repeats: int) -> dict[str, float]:
    """Return the seconds that each kind of page of a search takes."""
    client, experiment = recorded(store, family)
    (search,) = client.search_runs([experiment], "tags.kind = 'search'")
    times: dict[str, list[float]] = {}
    with served(store) as address, browser_page() as page:
        pages = MlflowPages(page, address)
        best = pages.table(experiment)[0].run_id
        kinds: dict[str, Callable[[], object]] = {
            "table": lambda: pages.table(experiment),
            "charts": lambda: pages.charts(experiment),
            "trial": lambda: pages.run(experiment, best),
            "trial_charts": lambda: pages.run_charts(experiment, best),
            "search": lambda: pages.run(experiment, search.info.run_id),
        }
        for _ in range(repeats):
            for kind, opened in kinds.items():
                start = time.perf_counter()
                opened()
                times.setdefault(kind, []).append(time.perf_counter() - start)
    return {f"{name}_{kind}_seconds": median(values) for kind, values in times.items()}


if __name__ == "__main__":
    main()
