"""A search's page in a browser: every figure is drawn, and what is brushed is listed."""

import re
from pathlib import Path

import pytest

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
BRUSH = """
<script>
setTimeout(async () => {
  const plot = document.querySelector('[data-figure="parallel"]');
  const place = plot.data[0].dimensions.findIndex((each) => each.label.includes("lr"));
  await Plotly.restyle(plot, { ["dimensions[" + place + "].constraintrange"]: [[0.8, 1.0]] });
  setTimeout(() => { document.body.dataset.done = "yes"; }, 500);
}, 4000);
</script>
</body>
"""
OPEN = """
<script>
setTimeout(() => {
  const search = document.querySelector("details.search");
  search.open = true;
  search.scrollIntoView();
}, 6000);
</script>
</body>
"""
SETTLED = "--virtual-time-budget=30000"
"""Chromium waits for no script by itself."""


@pytest.fixture(scope="module")
def searches(tmp_path_factory: pytest.TempPathFactory) -> list[SearchContents]:
    """A search of 60 trials, and one of 25."""
    store = Store.at(tmp_path_factory.mktemp("store"))
    found = []
    for name, trials in (("vae-1", 60), ("vae-2", 25)):
        write_search(store.search(name), trials)
        found.append(read_contents(store.search(name), recorded_search(store, name, "searches")))
    return found


def drawn(page: str, folder: Path) -> str:
    path = folder / "page.html"
    path.write_text(page)
    return drawn_page(path, SETTLED)


def plots(dom: str) -> dict[str, bool]:
    """Return whether each figure was drawn: plotly then marks its element."""
    found = re.findall(r'<div class="(plot[^"]*|missing)"[^>]*data-figure="([^"]+)"', dom)
    return {name: "js-plotly-plot" in marks for marks, name in found}


def test_every_figure_is_drawn(searches: list[SearchContents], tmp_path: Path) -> None:
    dom = drawn(render(searches[:1]), tmp_path)
    figures = plots(dom)
    assert {"history-hours", "contour", "parallel", "curves", "rungs"} < set(figures)
    assert all(figures.values()), figures
    assert 'data-drawn-ms="' in dom and "This figure could not be drawn: " not in text_of(dom)


def test_figures_of_searches_side_by_side_are_drawn(
    searches: list[SearchContents], tmp_path: Path
) -> None:
    page = render(searches)
    figures = plots(drawn(page, tmp_path))
    assert figures["all-0-history-trials"] and figures["all-0-history-hours"]
    assert not figures["history-trials"]  # of a search whose part of the page is closed
    opened = drawn(page.replace("</body>", OPEN), tmp_path)
    first, second = opened.split('<details class="search"')[1:]
    assert plots(first)["history-trials"] and not any(plots(second).values())


def test_what_is_brushed_is_listed(searches: list[SearchContents], tmp_path: Path) -> None:
    (search, _) = searches
    dom = drawn(render([search]).replace("</body>", BRUSH), tmp_path)
    assert 'data-done="yes"' in dom
    places = search.ranges["optim.lr"].positions(t.config["optim.lr"] for t in search.valued)
    chosen = [t for t, place in zip(search.valued, places, strict=True) if place >= 0.8]
    brushed = dom.partition('class="brushed"')[2].partition("<h2")[0]
    assert f"{len(chosen)} trials are chosen; the best 10:" in brushed and len(chosen) > 10
    listed = re.findall(r"<tr><td>\d+</td><td>([^<]+)</td>", brushed)
    assert listed == [trial.trial_id for trial in chosen[:10]]


def text_of(dom: str) -> str:
    """Return the page without its scripts."""
    return re.sub(r"<script.*?</script>", "", dom, flags=re.DOTALL)
