"""A search's page: one file with everything in it, from journals as trials leave them."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.journals import (
    ELBO_MAX,
    FD,
    FD_MIN,
    METRIC,
    PNG,
    open_journal,
    read_trials,
    write_checkpoint,
    write_run,
)

from pipelines.analysis.comparability import comparison_key, short
from pipelines.analysis.pareto import pareto_front
from pipelines.analysis.ranking import TrialResult, rank_trials
from pipelines.config.objectives import Objective
from pipelines.report.html import render, write_report
from pipelines.store.journal import Outcome, RunStatus
from pipelines.store.layout import SearchFolder

SEARCHED = ["model.latent_dim", "model.arch", "optim.lr"]
TWO = [ELBO_MAX, FD_MIN]


class Page(HTMLParser):
    """The texts of a page's cells and the sources of its pictures; tags must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.pictures: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe")
        if tag == "img":
            self.pictures.append(dict(attrs)["src"] or "")
        elif tag == "td":
            self.cells.append("")
            self.open.append(tag)
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "td":
            self.cells[-1] += data

    def rows(self, columns: int) -> list[list[str]]:
        return [
            self.cells[start : start + columns] for start in range(0, len(self.cells), columns)
        ]

    def images(self) -> list[Image.Image]:
        opened = []
        for picture in self.pictures:
            head, _, content = picture.partition(",")
            assert head == "data:image/png;base64"
            image = Image.open(io.BytesIO(base64.b64decode(content)))
            image.load()
            opened.append(image)
        return opened


def open_search(path: Path) -> SearchFolder:
    params = {"num_workers": 1}
    tags = {"rerun": "genpipe <b>"}
    open_journal(path, name="vae-1", kind="search", params=params, tags=tags)
    return SearchFolder.at(path)


def make_search(path: Path, num: int, epochs: int = 6) -> SearchFolder:
    """A search of `num` trials on paper, the last of which diverged."""
    folder, rng = open_search(path), np.random.default_rng(0)
    for index in range(num):
        rate = float(10 ** rng.uniform(-4, -2))
        arch = ["mlp", "conv", "<i>"][index % 3]
        config = {"model.latent_dim": int(rng.choice([4, 8, 16])), "model.arch": arch}
        best = -20.0 - 3.0 * abs(np.log10(rate) + 3) - index % 3
        status: RunStatus = "diverged" if index == num - 1 else "completed"
        trial(folder.trial(f"t{index}").path, config | {"optim.lr": rate}, best, epochs, status)
    return folder


def trial(
    path: Path, config: dict[str, str | int | float], best: float, epochs: int, status: RunStatus
) -> None:
    journal = open_journal(path, kind="trial", trial_id=path.name, params=config)
    for epoch in range(1, epochs + 1):
        metrics = {METRIC: best - 20.0 / epoch, "epoch_seconds": 60.0}
        journal.write_epoch(epoch, metrics, {"samples": PNG} if epoch == 1 else {})
    write_checkpoint(path, epochs)
    journal.close(Outcome(status, epochs))


def make_front(path: Path, num: int) -> SearchFolder:
    """A search of `num` trials on paper, whose objectives contradict each other."""
    folder, rng = open_search(path), np.random.default_rng(1)
    for index in range(num):
        x, off = rng.uniform(0.0, 1.0), rng.exponential(0.3)
        metrics = {METRIC: -20.0 - 10 * x - off, FD: 1.0 / (x + 0.1) + off, "val/kl": x}
        write_run(folder.trial(f"t{index}").path, [metrics], params={"optim.lr": x})
    return folder


def rank(
    folder: SearchFolder, searched: list[str], objective: Objective = ELBO_MAX
) -> list[TrialResult]:
    return rank_trials(read_trials(folder.path), objective, searched)


def test_the_page_holds_the_ranking_and_its_pictures(tmp_path: Path) -> None:
    folder = make_search(tmp_path, 40)
    write_report(folder, rank(folder, SEARCHED), [ELBO_MAX])
    text = folder.report.read_text()
    assert "http" not in text.replace("data:image", "") and "genpipe &lt;b&gt;" in text
    page = Page(text)
    assert len(page.images()) == 3 + 4  # diagrams, and samples of the best
    rows = page.rows(10)
    assert {row[1] for row in rows} == {f"t{index}" for index in range(40)}
    values = [float(row[4]) for row in rows[:-1]]
    assert values == sorted(values, reverse=True)
    assert rows[-1][1:3] == ["t39", "diverged"]
    assert f"ranked by {METRIC} (max)" in text and "Pareto" not in text
    # 40 trials of 6 epochs of a minute.
    assert re.search(r"\b4 hours of training", text) and "240 epochs" in text


def test_the_champion_s_samples_come_first(tmp_path: Path) -> None:
    folder = make_search(tmp_path, 4)
    ranking = rank(folder, SEARCHED)
    without = Page(render(folder, ranking, [ELBO_MAX])).images()
    out = io.BytesIO()
    Image.new("L", (11, 7), 128).save(out, "PNG")
    folder.files.write(folder.champion_samples, out.getvalue())
    images = Page(render(folder, ranking, [ELBO_MAX])).images()
    assert len(images) == len(without) + 1 and images[3].size == (11, 7)


def test_only_the_best_trials_of_a_large_search_are_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.report.html._ROWS", 3)
    folder = make_search(tmp_path, 5, epochs=1)
    text = render(folder, rank(folder, SEARCHED), [ELBO_MAX])
    assert len(Page(text).rows(10)) == 3 and "2 more are in trials.csv" in text


@pytest.mark.parametrize("num", [0, 1, 2])
def test_a_search_of_few_trials_has_a_page_too(num: int, tmp_path: Path) -> None:
    folder = make_search(tmp_path, num)
    page = Page(render(folder, rank(folder, SEARCHED), [Objective(METRIC, "min")]))
    assert len(page.images()) == (5 - 1 if num == 2 else 0)


# -- several objectives --------------------------------------------------------------------------
def test_the_page_shows_the_front(tmp_path: Path) -> None:
    folder = make_front(tmp_path, 30)
    ranking = rank(folder, ["optim.lr"])
    front = [result.trial_id for result in pareto_front(ranking, TWO)]
    assert 3 <= len(front) < 30
    text = render(folder, ranking, TWO)
    page = Page(text)
    assert "Pareto front" in text and f"{METRIC} (max), {FD} (min)" in text
    rows = page.rows(9)
    assert [row[1] for row in rows[: len(front)]] == front
    by_trial = {row[1]: row for row in rows[len(front) :]}
    assert len(by_trial) == 30 and all(row == by_trial[row[1]] for row in rows)
    assert len(page.images()) == 4
    for further in ([], [Objective("val/unknown", "min")]):
        without = render(folder, ranking, [ELBO_MAX, *further])
        assert "Pareto" not in without and len(Page(without).images()) == 3


def test_a_front_of_three_objectives_has_a_diagram_for_each_further_one(tmp_path: Path) -> None:
    folder = make_front(tmp_path, 8)
    ranking = rank(folder, ["optim.lr"])
    two, three = (
        Page(render(folder, ranking, objectives)).images()[0].width
        for objectives in (TWO, [*TWO, Objective("val/kl", "max")])
    )
    assert three > 1.5 * two


def test_the_page_says_what_its_values_may_be_compared_with(tmp_path: Path) -> None:
    """As `best` does: two keys can share an experiment and a registered model's name."""
    folder = make_search(tmp_path / "s", 3)
    ranking = rank_trials(read_trials(folder.path), ELBO_MAX, SEARCHED)
    info = folder.journal.info()
    assert info
    known = {**info.tags, "family": "vae", "data_digest": "d1", "metric": METRIC}
    for likelihood in ("bernoulli", "gaussian"):
        params = {**info.params, "model.likelihood": likelihood}
        folder.files.remove(folder.journal.folder / "identity.json")
        folder.journal.open(replace(info, params=params, tags=known))
        page = render(folder, ranking, [ELBO_MAX])
        key = comparison_key(params, known, METRIC)
        assert f"likelihood={likelihood}" in key
        assert f"compared with: {key}, key {short(key)}" in page
