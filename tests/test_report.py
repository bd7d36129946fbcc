"""A search's report: one page with everything in it, from journals as trials leave them."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.report import write_report
from pipelines.report.figures import Scale
from pipelines.store.journal import Ending, Identity, Journal, Outcome, checkpoint_name

METRIC = "val/elbo"
SEARCHED = ["model.latent_dim", "model.arch", "optim.lr"]
PNG = io.BytesIO()
Image.new("L", (8, 8), 128).save(PNG, "PNG")


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


def make_search(folder: Path, num: int, epochs: int = 6) -> Path:
    """A search of `num` trials on paper, the last of which diverged."""
    rng = np.random.default_rng(0)
    params = {"num_workers": 1}
    Journal(folder).open(
        Identity("vae-1", "vae-digits", "search", params=params, tags={"rerun": "genpipe <b>"})
    )
    for index in range(num):
        rate = float(10 ** rng.uniform(-4, -2))
        arch = ["mlp", "conv", "<i>"][index % 3]
        config = {"model.latent_dim": int(rng.choice([4, 8, 16])), "model.arch": arch}
        best = -20.0 - 3.0 * abs(np.log10(rate) + 3) - index % 3
        ending: Ending = "diverged" if index == num - 1 else "completed"
        trial(folder / "trials" / f"t{index}", config | {"optim.lr": rate}, best, epochs, ending)
    return folder


def trial(
    folder: Path, config: dict[str, str | int | float], best: float, epochs: int, ending: Ending
) -> None:
    journal = Journal(folder)
    journal.open(Identity(folder.name, "vae-digits", "trial", trial_id=folder.name, params=config))
    for epoch in range(1, epochs + 1):
        metrics = {METRIC: best - 20.0 / epoch, "epoch_seconds": 60.0}
        journal.report(epoch, metrics, {"samples": PNG.getvalue()} if epoch == 1 else {})
    checkpoint = folder / checkpoint_name(epochs)
    checkpoint.mkdir()
    (checkpoint / "model.json").write_text("{}")
    journal.close(Outcome(ending, epochs))


def test_the_page_holds_the_ranking_and_its_pictures(tmp_path: Path) -> None:
    path = write_report(make_search(tmp_path, 40), METRIC, "max", SEARCHED)
    text = path.read_text()
    assert "http" not in text.replace("data:image", "") and "genpipe &lt;b&gt;" in text
    page = Page(text)
    assert len(page.pictures) == 3 + 4  # diagrams, and samples of the best
    for picture in page.pictures:
        head, _, content = picture.partition(",")
        assert head == "data:image/png;base64"
        Image.open(io.BytesIO(base64.b64decode(content))).verify()
    rows = [page.cells[start : start + 10] for start in range(0, len(page.cells), 10)]
    assert {row[1] for row in rows} == {f"t{index}" for index in range(40)}
    values = [float(row[4]) for row in rows[:-1]]
    assert values == sorted(values, reverse=True)
    assert rows[-1][1:3] == ["t39", "diverged"]
    # 40 trials of 6 epochs of a minute.
    assert re.search(r"\b4 hours of training", text) and "240 epochs" in text


@pytest.mark.parametrize("num", [1, 2])
def test_a_search_of_few_trials_has_a_page_too(num: int, tmp_path: Path) -> None:
    page = Page(write_report(make_search(tmp_path, num), METRIC, "min", SEARCHED).read_text())
    assert len(page.pictures) == (5 - 1 if num == 2 else 0)


def test_a_setting_that_spans_decades_is_logarithmic() -> None:
    assert Scale([1e-4, 1e-2]).positions([1e-3]).tolist() == pytest.approx([-3.0])
    assert not Scale([4, 32]).is_log and not Scale([0.0, 100.0]).is_log
    names = Scale(["mlp", "conv", "mlp"])
    assert names.names == ["conv", "mlp"] and names.positions(["mlp"]).tolist() == [1.0]
    assert not Scale([True, False]).is_number
