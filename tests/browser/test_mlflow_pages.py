"""What a person sees on MLflow's pages of a search, in a browser."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from playwright.sync_api import Page

from benchmarks.browser import browser_page, find_browser
from benchmarks.mlflow_pages import (
    FAMILIES,
    NUM_REPLAYED,
    Card,
    MlflowPages,
    Row,
    record_replayed,
    recorded,
    search,
    served,
)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_browser() is None, reason="wants Chromium"),
]
TABLE = (1_900, 1_400)
"""Pixels, in which a table shows all columns of a view, and 24 trials."""
LABELS: Mapping[str, str] = {
    "autoencoder": r"ld\d+ ns\S+ lr\S+",
    "gan": r"ld\d+ dlr\S+ glr\S+",
    "vae": r"ld\d+ kl\S+ lr\S+",
}
"""Names of trials: what is searched, shortened."""


class Browsed(NamedTuple):
    """An experiment in the browser, and what MLflow holds of it."""

    pages: MlflowPages
    mlflow: MlflowClient
    experiment: str

    def runs(self, kind: str) -> list[Run]:
        return list(self.mlflow.search_runs([self.experiment], f"tags.kind = '{kind}'"))


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """An empty page of a browser."""
    with browser_page(*TABLE) as page:
        yield page


@pytest.fixture(scope="module")
def found(family: str, page: Page, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browsed]:
    """A search of 24 trials."""
    store = tmp_path_factory.mktemp(family)
    search(family, store)
    with served(store) as address:
        yield Browsed(MlflowPages(page, address), *recorded(store, family))


def best_first(rows: list[Row], metric: str) -> list[float]:
    """Return the metric of each row, which must be in ascending order."""
    values = [float(row.cells[f"best/{metric}"].rstrip("…. ")) for row in rows]
    assert values == sorted(values)
    return values


def require_red(rows: list[Row]) -> None:
    """What has failed is red, and nothing else."""
    for row in rows:
        assert row.is_red == (row.cells["outcome"] in ("failed", "diverged")), row


def require_charts(cards: list[Card]) -> None:
    """No chart is empty, nor is a strip of pictures before one moves its slider."""
    assert cards and all(card.points or card.pictures for card in cards), cards


def test_the_table_shows_the_best_trials_first(found: Browsed, family: str) -> None:
    rows = found.pages.table(found.experiment)
    assert len(rows) == 24 and all(re.fullmatch(LABELS[family], r.cells["Run Name"]) for r in rows)
    (parent,) = found.runs("search")
    searched = parent.data.tags["metric"]
    best_first(rows, searched)
    require_red(rows)
    names = {n.removeprefix("space.") for n in parent.data.params if n.startswith("space.")}
    assert names and names <= set(rows[0].cells), rows[0]
    assert found.pages.page.is_visible(f"text=Trials by best {searched}")
    table = found.pages.page.inner_text("body")
    assert "Model training" in table and "Trials, the best first" in table


def test_no_chart_is_empty_and_the_ranked_metric_is_the_first(found: Browsed) -> None:
    found.pages.charts(found.experiment)
    cards = found.pages.cards()
    assert cards[0].title == "best/curve" and cards[0].points > 24
    require_charts(cards)
    assert not any(card.title in ("epoch", "diverged") for card in cards), cards


def test_a_click_on_the_best_trial_shows_its_curves_and_its_pictures(found: Browsed) -> None:
    best = found.pages.table(found.experiment)[0]
    found.pages.page.click(f"text={best.cells['Run Name']}")
    found.pages.page.wait_for_selector("text=Run ID")
    assert best.run_id in found.pages.page.url
    found.pages.run_charts(found.experiment, best.run_id)
    cards = found.pages.cards()
    assert cards[0].title == "curve"
    require_charts(cards)
    assert "samples" in [card.title for card in cards if card.pictures], cards


def test_the_page_of_a_search_says_which_trial_won(found: Browsed, family: str) -> None:
    (parent,) = found.runs("search")
    found.pages.run(found.experiment, parent.info.run_id)
    page = found.pages.page
    page.wait_for_selector("text=Child runs")
    page.wait_for_selector("text=ranked by")
    text = page.inner_text("body")
    assert f"{family} of 24" in text and "All trials" in text and "Finished" in text
    best = min(found.runs("trial"), key=lambda run: run.data.metrics["best/curve"])
    link = page.get_attribute(f"td a:text-is('{best.info.run_name}') >> nth=0", "href")
    assert link and best.info.run_id in link
    found.pages.run_charts(found.experiment, parent.info.run_id)
    cards = found.pages.cards()
    assert cards[0].title == "curve" and cards[0].points >= 24, cards
    require_charts(cards)


def test_the_champion_is_a_registered_model(found: Browsed, family: str) -> None:
    page = found.pages.page
    (parent,) = found.runs("search")
    found.pages.run(found.experiment, parent.info.run_id)
    page.goto(f"{page.url.partition('#')[0]}#/models/{family}-digits")
    page.wait_for_selector("text=@ champion")
    text = page.inner_text("body")
    assert "@\xa0champion" in text and parent.data.tags["metric"] in text
    champion = found.mlflow.get_model_version_by_alias(f"{family}-digits", "champion")
    page.goto(f"{page.url.partition('#')[0]}#/models/{family}-digits/versions/{champion.version}")
    page.wait_for_selector("text=Source Run")


def test_a_search_of_a_thousand_trials(page: Page, tmp_path: Path) -> None:
    record_replayed(tmp_path)
    with served(tmp_path) as address:
        pages = MlflowPages(page, address)
        found = Browsed(pages, *recorded(tmp_path, "vae"))
        assert len(found.runs("trial")) == NUM_REPLAYED
        rows = pages.table(found.experiment)
        best_first(rows, "val/nll/iw8")
        require_red(rows)
        assert all(re.fullmatch(LABELS["vae"], row.cells["Run Name"]) for row in rows)
        pages.charts(found.experiment)
        cards = pages.cards()
        require_charts(cards)
