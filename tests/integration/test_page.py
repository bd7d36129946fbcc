"""A search's page in a browser: every figure is drawn, and what is brushed is listed."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page

from benchmarks.browser import find_browser
from benchmarks.report import drawn_page, write_search
from pipelines.config.serialization import recorded_search
from pipelines.report.contents import SearchContents, read_contents
from pipelines.report.html import render
from pipelines.store.layout import Store

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(find_browser() is None, reason="wants Chromium"),
]
BRUSH = """async () => {
    const plot = document.querySelector('[data-figure="parallel"]');
    const place = plot.data[0].dimensions.findIndex((each) => each.label.includes("lr"));
    await Plotly.restyle(plot, { ["dimensions[" + place + "].constraintrange"]: [[0.8, 1.0]] });
}"""
DRAWN = """part => Object.fromEntries([...part.querySelectorAll("[data-figure]")].map(
    each => [each.dataset.figure, each.classList.contains("js-plotly-plot")]))"""
"""Whether each figure was drawn: plotly then marks its element."""
LIMIT_SECONDS = 120.0


@pytest.fixture(scope="module")
def searches(tmp_path_factory: pytest.TempPathFactory) -> list[SearchContents]:
    """A search of 60 trials, and one of 25."""
    store = Store.at(tmp_path_factory.mktemp("store"))
    found = []
    for name, trials in (("vae-1", 60), ("vae-2", 25)):
        write_search(store.search(name), trials)
        found.append(read_contents(store.search(name), recorded_search(store, name, "searches")))
    return found


@contextmanager
def opened(page: str, folder: Path) -> Iterator[Page]:
    """Open a page in a browser for the block, with its figures drawn."""
    path = folder / "page.html"
    path.write_text(page)
    with drawn_page(path) as shown:
        yield shown


def drawn(part: Locator) -> dict[str, bool]:
    found: dict[str, bool] = part.evaluate(DRAWN)
    return found


def test_every_figure_is_drawn(searches: list[SearchContents], tmp_path: Path) -> None:
    with opened(render(searches[:1]), tmp_path) as page:
        figures = drawn(page.locator("body"))
        assert {"history-hours", "contour", "parallel", "curves", "rungs"} < set(figures)
        assert all(figures.values()), figures
        assert "This figure could not be drawn: " not in page.inner_text("body")


def test_figures_of_searches_side_by_side_are_drawn(
    searches: list[SearchContents], tmp_path: Path
) -> None:
    with opened(render(searches), tmp_path) as page:
        figures = drawn(page.locator("body"))
        assert figures["all-0-history-trials"] and figures["all-0-history-hours"]
        first, second = page.locator("details.search").all()
        assert not any(drawn(first).values())  # its part of the page is closed
        first.locator("> summary").click()
        first.scroll_into_view_if_needed()
        wait_until(lambda: drawn(first)["history-trials"], page)
        assert not any(drawn(second).values())


def test_what_is_brushed_is_listed(searches: list[SearchContents], tmp_path: Path) -> None:
    (search, _) = searches
    places = search.ranges["optim.lr"].positions(t.config["optim.lr"] for t in search.valued)
    chosen = [t for t, place in zip(search.valued, places, strict=True) if place >= 0.8]
    with opened(render([search]), tmp_path) as page:
        page.evaluate(BRUSH)
        brushed = page.locator(".brushed")
        brushed.locator("table").wait_for()
        assert f"{len(chosen)} trials are chosen; the best 10:" in brushed.inner_text()
        listed = brushed.locator("td:nth-child(2)").all_inner_texts()
    assert len(chosen) > 10
    assert listed == [trial.trial_id for trial in chosen[:10]]


def wait_until(condition: Callable[[], bool], page: Page) -> None:
    """Wait for a condition of a page, which goes on meanwhile."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        page.wait_for_timeout(100)
