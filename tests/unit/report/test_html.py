"""A search's page: what it says of journals as trials leave them."""

import io
import json
import math
import os
import shutil
import tempfile
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.journals import ELBO_MAX, FD, FD_MIN, METRIC, PNG
from support.page import SEARCHED, Page, config_of, contents_of, open_search, write_trial

from pipelines.analysis.comparability import comparison_key, short
from pipelines.analysis.importance import FEW_TRIALS
from pipelines.config.search import Search, SeedStudy
from pipelines.report.html import render, write_report
from pipelines.store.journal import Outcome, RunStatus, Segment
from pipelines.store.layout import SearchFolder
from pipelines.store.lease import holding
from pipelines.store.usage import Usage, write_usage

PARTS = ["history-trials", "history-hours", "curves", "rungs", "parallel", "contour", "importance"]


def make_search(folder: Path, num: int, epochs: int = 6) -> SearchFolder:
    """A search of `num` trials on paper; of four or more, the last one diverged."""
    search, rng = open_search(folder), np.random.default_rng(0)
    for index in range(num):
        rate = float(10 ** rng.uniform(-3.4, -2.1))
        config = {"model.latent_dim": [4, 8, 16][index % 3], "optim.lr": rate}
        config["model.kl_weight"] = float(rng.uniform(0.3, 3.9))
        best = -20.0 - 3.0 * abs(math.log10(rate) + 3) - index % 3
        values = [best - 20.0 / epoch for epoch in range(1, epochs + 1)]
        status: RunStatus = "diverged" if index == num - 1 >= 3 else "completed"
        write_trial(search, f"t{index}", config, values, status, pictures={1: PNG})
    return search


def page_of(search: SearchFolder, run: Search | None = None) -> Page:
    return Page(render([contents_of(search, run)]))


def test_the_page_holds_everything_and_loads_nothing(tmp_path: Path) -> None:
    search = make_search(tmp_path / "vae-1", 40)
    search.files.write(search.champion_samples, PNG)
    write_report(contents_of(search))
    text = search.report.read_text()
    page = Page(text)  # which refuses whatever is loaded from elsewhere
    assert "genpipe search &lt;b&gt;" in text and "plotly.js v3" not in page.text
    assert all(picture.startswith("data:image/png;base64,") for picture in page.pictures)
    names = page.figures()
    assert set(PARTS) < set(names)
    assert {f"slice-{name}" for name in SEARCHED} < set(names)
    assert {name for _, name in page.plots} == set(names)
    rows = page.tables["Trials"]
    assert {row[1] for row in rows[1:]} == {f"t{index}" for index in range(40)}
    values = [float(row[4]) for row in rows[1:-1]]
    assert values == sorted(values, reverse=True)
    assert rows[-1][1:3] == ["t39", "diverged"]
    assert "240 epochs · 4 device-hours" in page.words()  # 40 trials of 6 epochs of a minute
    assert f"ranked by {METRIC} (max)" in page.words() and "Pareto" not in page.text


def test_links_lead_to_the_runs_in_mlflow(tmp_path: Path) -> None:
    search = make_search(tmp_path / "vae-1", 2)
    local = "http://127.0.0.1:5000/#/experiments/7/runs"
    page = page_of(search)
    assert f"{local}/search-run" in page.links and f"{local}/run-of-t1" in page.links
    assert "genpipe browse" in page.text
    for folder in (search, *search.trials()):
        known = folder.journal.delivered()
        uri = "https://somebody:secret@mlflow.example/base/"
        folder.journal.mark_delivered({"run_id": known["run_id"], "uri": uri})
    page = page_of(search)
    assert "https://mlflow.example/base/#/runs/run-of-t1" in page.links
    assert "genpipe browse" not in page.text


# -- the champion --------------------------------------------------------------------------------
def test_the_champion_is_compared_with_the_others(tmp_path: Path) -> None:
    search = open_search(tmp_path / "vae-1")
    for index, value in enumerate([-30.0, -22.0, -22.5]):
        rate = [0.0005, 0.0098, 0.002][index]
        write_trial(search, f"t{index}", {"optim.lr": rate, "model.latent_dim": 8}, [value])
    search.files.write(search.champion_samples, PNG)
    page = page_of(search)
    words = page.words()
    assert f"Trial t1: {METRIC} -22 at epoch 1" in words
    assert "the next one has -22.5, 0.5 away; the median is -22.5" in words
    assert "the search's first trial, t0, has -30" in words
    assert f"the highest {METRIC} of 3 trials with a value" in words
    rows = {row[0]: row for row in page.tables["Champion"][1:4]}
    assert rows["optim.lr"][1] == "0.0098"
    assert rows["optim.lr"][3] == "0.0003 to 0.01, logarithmic"
    (edge,) = [note for note in page.notes if "edge" in note]
    assert edge.startswith("optim.lr = 0.0098 lies at the upper edge of 0.0003 to 0.01")


def test_few_trials_say_little_of_the_settings(tmp_path: Path) -> None:
    few = page_of(make_search(tmp_path / "few", 12, epochs=1))
    assert any("It means little: it rests on 11 trials" in note for note in few.notes)
    many = page_of(make_search(tmp_path / "many", FEW_TRIALS + 1, epochs=1))
    assert not any("means little" in note for note in many.notes)
    assert many.figure("importance")["data"][0]["y"][-1] == "optim.lr"
    none = page_of(make_search(tmp_path / "none", 3))
    assert "importance" not in none.figures() and "Not computed" in none.text


# -- searches of every kind ----------------------------------------------------------------------
@pytest.mark.parametrize("num", [0, 1, 2])
def test_a_search_of_few_trials_has_a_page_too(num: int, tmp_path: Path) -> None:
    page = page_of(make_search(tmp_path / "vae-1", num))
    assert len(page.tables["Trials"]) == 1 + num
    assert ("Champion" in page.headings) == (num > 0)
    assert ("parallel" in page.figures()) == (num > 0)


def test_a_search_whose_trials_all_failed_says_why(tmp_path: Path) -> None:
    search = open_search(tmp_path / "vae-1")
    for index in range(3):
        message = f"no memory: {index}00 MiB <b>"
        write_trial(search, f"t{index}", {}, [], "failed", message=message, saved=False)
    write_trial(search, "t3", {}, [-1.0], "failed", message="killed", saved=False)
    page = page_of(search)
    assert page.tables["Failures"][1:] == [
        ["3", "no memory: 000 MiB <b>", "t0, t1, t2"],
        ["1", "killed", "t3"],
    ]
    assert any("No trial that has ended has a value" in note for note in page.notes)
    assert page.figures() == ["rungs"] and "Champion" not in page.headings
    assert page.tables["Cost"][-1][:3] == ["failed", "4", "0.0167"]


def test_a_search_that_runs_shows_how_far_it_is(tmp_path: Path) -> None:
    search = make_search(tmp_path / "vae-1", 3)
    write_trial(search, "t9", {"optim.lr": 0.001}, [-50.0, -12.0], None)
    with holding(search, "resume"):
        page = page_of(search)
    assert "4 of 4 trials: 3 completed, 1 running" in page.words()
    assert any("has not ended" in note for note in page.notes)
    row = page.tables["Trials"][-1]
    assert row[1:5] == ["t9", "running", "2", "-12"] and row[0] == ""
    assert page.tables["Trials"][1][1] != "t9"  # trials that run are not ranked
    running = [trace for trace in page.figure("curves")["data"] if "text" in trace]
    assert running[0]["y"] == [-50.0, -12.0, None]
    only = open_search(tmp_path / "vae-2")
    write_trial(only, "t0", {"optim.lr": 0.001}, [-50.0], None)
    assert page_of(only).figures() == ["rungs", "curves"]
    search.journal.close(Outcome("completed", 0))
    write_trial(search, "t9", {}, [-50.0, -12.0])
    assert not any("has not ended" in note for note in page_of(search).notes)


def test_a_search_whose_process_has_gone_is_interrupted(tmp_path: Path) -> None:
    search = make_search(tmp_path / "vae-1", 3)
    write_trial(search, "t9", {"optim.lr": 0.001}, [-50.0, -12.0], None)
    page = page_of(search)
    assert "4 of 4 trials: 3 completed, 1 interrupted" in page.words()
    assert any("--resume vae-1" in note for note in page.notes)
    assert page.tables["Trials"][-1][1:3] == ["t9", "interrupted"]


def test_the_page_says_when_where_and_by_which_code(tmp_path: Path) -> None:
    commit = f"{'0123456789' * 4}-dirty"
    search = open_search(tmp_path / "vae-1", hostname="node7", git_commit=commit)
    words = page_of(search).words()
    assert "on node7" in words and "commit 0123456789-dirty" in words
    assert f"started {datetime.now(UTC):%Y-%m-%d}" in words


def test_the_page_that_a_search_leaves_says_that_it_has_ended(tmp_path: Path) -> None:
    search = make_search(tmp_path / "vae-1", 3)
    contents = contents_of(search)
    assert contents.state == "interrupted"
    write_report(replace(contents, state="ended"))
    assert "has not ended" not in search.report.read_text()


def test_trials_ended_when_their_last_epoch_was_recorded(tmp_path: Path) -> None:
    """The outcome of the champion is written once more at the end of its search."""
    search = make_search(tmp_path / "vae-1", 3)
    first, *_ = before = [each.trial_id for each in contents_of(search).in_order]
    outcome = search.trial(first).journal.outcome_file
    os.utime(outcome, (outcome.stat().st_mtime + 1000,) * 2)
    assert [each.trial_id for each in contents_of(search).in_order] == before


def test_a_search_that_a_budget_ended_says_so(tmp_path: Path) -> None:
    search = make_search(tmp_path / "vae-1", 3)
    assert "device-hours, over all resumptions" not in page_of(search).words()
    write_usage(search, Usage(seconds=1800.0, device_seconds=3600.0, ended_by="--max-hours 0.5"))
    page = page_of(search)
    assert "The search ended before all its trials had: --max-hours 0.5." in page.notes
    assert "ran for 0.5 hours, and its trials held 1 device-hours" in page.words()


def test_trials_that_change_their_settings_show_their_schedule(tmp_path: Path) -> None:
    search = open_search(tmp_path / "vae-1")
    for index in range(3):
        segments = [Segment(1, {"optim.lr": 0.001}), Segment(2, {"optim.lr": 0.002 + index / 1e3})]
        write_trial(
            search, f"t{index}", {"optim.lr": 0.001}, [-3.0, -2.0, -1.0 - index], schedule=segments
        )
    page = page_of(search, config_of(scheduler="pbt"))
    assert any("population based training" in note for note in page.notes)
    assert "1 epoch with optim.lr = 0.001" in page.words()
    assert "2 epochs with optim.lr = 0.002" in page.words()
    assert page.data["searches"][0]["trials"]["settings"]["optim.lr"] == [0.002, 0.003, 0.004]


def test_the_page_of_a_seed_study_shows_its_seeds(tmp_path: Path) -> None:
    study = SeedStudy(run="r", name="lucky", search_id="", data_digest="d", value=-21.5)
    run = config_of(seed_study=study)
    search = open_search(tmp_path / "vae-1", run, ["seed"])
    values = [-20.0, -22.0, -23.0, -25.0]
    for index, value in enumerate(values):
        write_trial(search, f"t{index}", {"seed": index + 1}, [value])
    page = page_of(search, run)
    words = page.words()
    assert "the mean over 4 seeds is -22.5" in words
    assert "the studied run, lucky, has -21.5: better than 3 of 4 seeds" in words
    assert "Trial t2" in words  # the seed in the middle, of two the worse
    assert "importance" not in page.figures() and "parallel" not in page.figures()
    points, *lines = page.figure("seeds")["data"]
    assert points["x"] == values and [line["x"][0] for line in lines] == [-22.5, -21.5]


def test_damaged_trials_are_set_aside(tmp_path: Path) -> None:
    search = make_search(tmp_path / "vae-1", 3)
    search.trial("t1").journal.record_file(2).write_text("{")
    page = page_of(search)
    assert any("1 trials are set aside" in note for note in page.notes)
    assert [row[1] for row in page.tables["Trials"][1:]] == ["t0", "t2"]


def test_trials_without_a_setting_are_shown_without_it(tmp_path: Path) -> None:
    """As a setting that depends on another one is not there in every trial."""
    search = make_search(tmp_path / "vae-1", 12)
    contents = contents_of(search)
    for trial in contents.ranking[::2]:
        trial.config.pop("model.kl_weight")  # type: ignore[attr-defined]
    page = Page(render([contents]))
    values = page.data["searches"][0]["trials"]["settings"]["model.kl_weight"]
    assert values[0] is None and values[1] is not None
    assert page.tables["Trials"][1][-2] == ""


# -- several objectives --------------------------------------------------------------------------
def make_front(folder: Path, num: int) -> SearchFolder:
    """A search of `num` trials on paper, whose objectives contradict each other."""
    search, rng = open_search(folder, searched=["optim.lr"]), np.random.default_rng(1)
    for index in range(num):
        x, off = rng.uniform(0.001, 0.009), rng.exponential(0.3)
        metrics = {METRIC: -20.0 - 1000 * x - off, FD: 1.0 / (100 * x + 0.1) + off, "val/kl": x}
        write_trial(search, f"t{index}", {"optim.lr": x}, [metrics])
    return search


def test_the_page_shows_the_front(tmp_path: Path) -> None:
    search = make_front(tmp_path / "vae-1", 30)
    run = config_of(further=((FD, "min"),), scheduler="fifo")
    contents = contents_of(search, run)
    front = [result.trial_id for result in contents.front]
    assert 3 <= len(front) < 30
    page = Page(render([contents]))
    assert f"{ELBO_MAX}, {FD_MIN}" in page.text
    rows = page.tables["The trials of the front"]
    assert [row[1] for row in rows[1:]] == front
    others, drawn = page.figure("pareto-1")["data"]
    best = [(r.best.metrics[METRIC], r.best.metrics[FD]) for r in contents.front if r.best]
    assert list(zip(drawn["x"], drawn["y"], strict=True)) == best
    assert len(others["x"]) == 30
    assert len(page.figure("importance")["data"]) == 2  # for each objective
    three = config_of(further=((FD, "min"), ("val/kl", "max")), scheduler="fifo")
    assert {"pareto-1", "pareto-2"} < set(page_of(search, three).figures())
    assert "pareto-1" not in page_of(search).figures()
    unknown = config_of(further=(("val/unknown", "min"),), scheduler="fifo")
    assert "pareto-1" not in page_of(search, unknown).figures()


# -- several searches ----------------------------------------------------------------------------
def test_searches_stand_side_by_side(tmp_path: Path) -> None:
    first, second = make_search(tmp_path / "vae-1", 5), make_search(tmp_path / "vae-2", 9)
    contents = [contents_of(first), contents_of(second, config_of(trials=9))]
    page = Page(render(contents))
    rows = page.tables["Results"]
    assert [row[0] for row in rows[1:]] == ["vae-1", "vae-2"]
    best = rows[0].index("best")
    assert [row[best] for row in rows[1:]] == [
        f"{each.ranking[0].best.value:.6g}" for each in contents if each.ranking[0].best
    ]
    curves = page.data["comparison"]["figures"]["all-0-history-trials"]["data"]
    assert [curve["name"] for curve in curves] == ["vae-1", "vae-2"]
    assert [curve["y"][-1] for curve in curves] == [each.history[-1][3] for each in contents]
    assert "must not be compared" not in page.words()
    assert ("s1", "curves") in page.plots and len(page.data["searches"]) == 2


def test_searches_that_cannot_be_compared_have_curves_of_their_own(tmp_path: Path) -> None:
    first, second = make_search(tmp_path / "vae-1", 5), open_search(tmp_path / "vae-2", data="x")
    info = second.journal.info()
    assert info
    second.files.remove(second.journal.folder / "identity.json")
    second = open_search(tmp_path / "vae-2", data_digest="another")
    write_trial(second, "t0", {"optim.lr": 0.001}, [-3.0])
    page = Page(render([contents_of(first), contents_of(second)]))
    assert any("must not be compared" in note for note in page.notes)
    assert "all-1-history-trials" in page.data["comparison"]["figures"]
    assert ["data_digest", "", "another"] in page.tables["What differs"]
    for figure in page.data["comparison"]["figures"].values():  # it has no trials of its own
        assert all("customdata" not in trace for trace in figure["data"])


def test_the_page_says_what_its_values_may_be_compared_with(tmp_path: Path) -> None:
    """As `best` does: two keys can share an experiment and a registered model's name."""
    search = open_search(tmp_path / "vae-1", data_digest="d1")
    info = search.journal.info()
    assert info
    key = comparison_key(info.params, info.tags, METRIC)
    assert f"Compared with: {key}, key {short(key)}" in page_of(search).words()


# -- many trials ---------------------------------------------------------------------------------
def test_of_many_trials_the_best_and_a_sample_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.report.html._ROWS", 3)
    monkeypatch.setattr("pipelines.report.figures.MAX_POINTS", 10)
    search = make_search(tmp_path / "vae-1", 26, epochs=1)
    page = page_of(search)
    assert len(page.tables["Trials"]) == 1 + 3 and "23 more are in trials.csv" in page.words()
    assert "10 of 25 trials are drawn" in page.words()
    ranks = page.data["searches"][0]["trials"]["rank"]
    assert len(ranks) == 10 and ranks[0] == 1 and ranks[-1] == 25
    assert len(page.figure("parallel")["data"][0]["dimensions"][0]["values"]) == 10
    for name in page.figures():
        for trace in page.figure(name)["data"]:
            places = (
                (trace.get("customdata") or {})
                if isinstance(trace.get("customdata"), dict)
                else {}
            )
            assert all(p is None or p < 10 for p in places.get("trials", [])), name


# -- samples -------------------------------------------------------------------------------------
def test_samples_lie_over_the_two_most_important_settings(tmp_path: Path) -> None:
    search = open_search(tmp_path / "vae-1")
    tones = {}
    for index in range(16):
        dim, rate = [4, 16][index % 2], 0.0005 * (1 + index // 2)
        out = io.BytesIO()
        Image.new("L", (8, 8), index).save(out, "PNG")
        tones[f"t{index}"] = out.getvalue()
        config = {"model.latent_dim": dim, "optim.lr": rate, "model.kl_weight": 1.0}
        write_trial(search, f"t{index}", config, [-float(index)], pictures={1: out.getvalue()})
    search.trial("t0").journal._picture(1, "samples").unlink()
    page = page_of(search)
    rows = page.tables["Samples"]
    assert len(rows) in (3, 6) and "4" in {rows[0][1], rows[1][0]}
    cells = [cell for row in rows[1:] for cell in row[1:] if cell]
    assert len(page.pictures) == len(cells)
    assert "rank 2: -1" in " ".join(cells)
    assert "rank 1: 0" not in " ".join(cells)  # whose picture is gone: the next one of its cell


# -- every number --------------------------------------------------------------------------------
VALUE = st.floats(-1e3, 1e3, allow_nan=False)
TRIAL = st.tuples(
    st.sampled_from([4, 8, 12, 16]),
    st.floats(0.25, 4.0),
    st.floats(3e-4, 1e-2),
    st.lists(VALUE, min_size=0, max_size=4),
    st.sampled_from(["completed", "stopped_early", "diverged", "failed", "interrupted", None]),
)


@settings(
    max_examples=20, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    phases=[Phase.generate],
)  # fmt: skip
@given(trials=st.lists(TRIAL, max_size=9), mode=st.sampled_from(["max", "min"]))
def test_every_number_is_that_of_the_journals(
    monkeypatch: pytest.MonkeyPatch, trials: list[Any], mode: Any
) -> None:
    """Computed anew from the journals' files, by the plainest of means."""
    monkeypatch.setattr("pipelines.report.html._plotly", str)  # 5 MB that need not be parsed
    folder = Path(tempfile.mkdtemp())
    try:
        run = config_of(mode=mode)
        search = open_search(folder / "vae-1", run)
        for index, (dim, weight, rate, values, status) in enumerate(trials):
            config = {"model.latent_dim": dim, "model.kl_weight": weight, "optim.lr": rate}
            write_trial(
                search, f"t{index}", config, values, status, message="m" * (status == "failed")
            )
        check_numbers(search, run, page_of(search, run))
    finally:
        shutil.rmtree(folder)


def check_numbers(search: SearchFolder, run: Search, page: Page) -> None:
    sign = -1.0 if run.mode == "max" else 1.0
    trials: dict[str, Any] = {}
    for path in sorted((search.path / "trials").glob("*/journal")):
        info = json.loads((path / "identity.json").read_text())
        end = path / "outcome.json"
        epochs = [json.loads(each.read_text()) for each in sorted(path.glob("reports/*.json"))]
        values = [each["metrics"][METRIC] for each in epochs]
        ending = json.loads(end.read_text())["ending"] if end.exists() else ""
        best = sorted((sign * v, i) for i, v in enumerate(values)) if ending != "diverged" else []
        trials[path.parent.name] = {
            "params": info["params"],
            "values": values,
            "ending": ending,
            "best": best[0][0] * sign if best else None,
        }
    ended = {name: each for name, each in trials.items() if each["ending"]}
    valued = {name: each for name, each in ended.items() if each["best"] is not None}

    # The head, and the cost.
    num_epochs = sum(len(each["values"]) for each in trials.values())
    assert f"{num_epochs} epochs · {num_epochs / 60:.3g} device-hours" in page.words()
    endings = [each["ending"] or "interrupted" for each in trials.values()]
    counts = Counter(each.replace("_", " ") for each in endings)
    for name, num in counts.items():
        assert f"{num} {name}" in page.words()
    saved = sum(
        run.epochs - len(each["values"])
        for each in ended.values()
        if each["ending"] == "stopped_early"
    )
    if any(each["ending"] == "stopped_early" for each in ended.values()):
        share = saved / (saved + num_epochs)
        assert f"saved {saved} epochs, {share:.0%}" in page.words()

    # The trials that figures show.
    data = page.data["searches"][0]["trials"]
    assert set(data["id"]) == set(valued)
    for index, name in enumerate(data["id"]):
        each = valued[name]
        assert data["values"][METRIC][index] == each["best"]
        assert data["epochs"][index] == len(each["values"])
        assert data["outcome"][index] == each["ending"].replace("_", " ")
        for setting in SEARCHED:
            assert data["settings"][setting][index] == each["params"][setting]
    costs = [sign * value for value in data["values"][METRIC]]
    assert costs == sorted(costs) and data["rank"] == list(range(1, len(costs) + 1))

    # The figures.
    bars: Counter[tuple[int, str]] = Counter()
    for trace in page.figure("rungs")["data"] if trials else []:
        bars.update({(x, trace["name"]): y for x, y in zip(trace["x"], trace["y"], strict=True)})
    assert bars == Counter(
        (len(each["values"]), ending.replace("_", " "))
        for each, ending in zip(trials.values(), endings, strict=True)
    )
    if not valued:
        return
    best = min(costs) * sign
    points, line = page.figure("history-trials")["data"]
    assert line["y"][-1] == best and line["x"][-1] == len(ended)
    assert sorted(points["y"]) == sorted(each["best"] for each in valued.values())
    hours = page.figure("history-hours")["data"][1]["x"][-1]
    assert hours == pytest.approx(sum(len(each["values"]) for each in ended.values()) / 60)
    for setting in SEARCHED:
        figure = page.figure(f"slice-{setting}")
        axis = figure["layout"]["xaxis"]
        texts = axis["ticktext"] if axis["type"] == "linear" and "ticktext" in axis else None
        drawn = Counter(
            (str(texts[x]) if texts else x, y)
            for trace in figure["data"]
            for x, y in zip(trace["x"], trace["y"], strict=True)
        )
        expected = Counter(
            (str(each["params"][setting]) if texts else each["params"][setting], each["best"])
            for each in valued.values()
        )
        assert drawn == expected
    curves = [
        trace for trace in page.figure("curves")["data"] if trace.get("line", {}).get("width") == 2
    ]
    for trace in curves:
        name = data["id"][trace["customdata"]["trials"][0]]
        assert trace["y"] == valued[name]["values"]

    # The table.
    rows = page.tables["Trials"][1:]
    assert [row[1] for row in rows[: len(valued)]] == data["id"]
    for row in rows:
        each = trials[row[1]]
        assert row[2] == (each["ending"] or "interrupted").replace("_", " ") and row[3] == str(
            len(each["values"])
        )
        assert row[4] == ("" if each["best"] is None else f"{each['best']:.6g}")
        assert row[-1] == f"{each['params']['optim.lr']:.5g}"
