"""Several objectives: the Pareto front, what Optuna is told of a trial, and a search with them."""

import base64
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_pipeline import client
from test_report import Page

from pipelines.analysis.pareto import front, non_dominated
from pipelines.analysis.ranking import Standing, as_csv, standings
from pipelines.analysis.run_results import Best
from pipelines.cli.main import main, parse_run
from pipelines.config.run import Objective, Search
from pipelines.report import write_report
from pipelines.store.journal import Identity, Journal, Outcome, checkpoint_name
from pipelines.training.loop import WORST
from pipelines.tuning.searchers import FrontSearch
from pipelines.tuning.space import domains, make_searcher

ELBO, FD = "val/elbo", "val/fd/lenet-digits/2k"
OBJECTIVES: list[Objective] = [(ELBO, "max"), (FD, "min")]


def beaten(point: Sequence[float], other: Sequence[float]) -> bool:
    """Whether `other` is nowhere worse than `point`, and somewhere better; small is good."""
    pairs = list(zip(point, other, strict=True))
    return all(b <= a for a, b in pairs) and any(b < a for a, b in pairs)


@pytest.mark.parametrize("num_objectives", [1, 2, 3, 4])
def test_the_front_is_what_brute_force_finds(num_objectives: int) -> None:
    rng = np.random.default_rng(num_objectives)
    for num in (1, 2, 7, 100):
        for costs in (
            rng.normal(size=(num, num_objectives)),
            rng.integers(0, 4, (num, num_objectives)),
        ):
            points = costs.astype(float).tolist()
            expected = [not any(beaten(a, b) for b in points) for a in points]
            assert non_dominated(np.array(points)) == expected
            assert any(expected)


def standing(name: str, **metrics: float) -> Standing:
    found = {{"elbo": ELBO, "fd": FD}[key]: value for key, value in metrics.items()}
    best = Best(1, found[ELBO], Path(name), found) if found else None
    return Standing(name, {}, Outcome("completed" if found else "failed", 1), best)


def test_equal_trials_share_the_front_and_those_without_a_value_have_no_place() -> None:
    trials = [
        standing("dead"),
        standing("near", elbo=-3.0, fd=1.0),
        standing("half", elbo=0.0),
        standing("twin", elbo=-2.0, fd=2.0),
        standing("beaten", elbo=-2.0, fd=2.5),
        standing("best", elbo=-1.0, fd=3.0),
        standing("also", elbo=-2.0, fd=2.0),
    ]
    assert [s.trial_id for s in front(trials, OBJECTIVES)] == ["best", "twin", "also", "near"]
    assert front(trials[:1], OBJECTIVES) == [] == front([], OBJECTIVES)
    up: list[Objective] = [(ELBO, "max"), (FD, "max")]
    assert [s.trial_id for s in front(trials, up)] == ["best"]


# -- what Optuna is told ------------------------------------------------------------------------
def make_searcher_of_two(metric: str, *further: str) -> FrontSearch:
    args = [word for name in (metric, *further) for word in ("--metric", name)]
    run = parse_run("search", ["vae", *args, "--seed", "3"])
    assert isinstance(run, Search)
    searcher = make_searcher(run, domains(run))
    assert isinstance(searcher, FrontSearch)
    assert searcher.set_search_properties(None, None, domains(run))
    return searcher


def result(elbo: float, fd: float, diverged: int = 0) -> dict[str, Any]:
    return {ELBO: elbo, FD: fd, "diverged": diverged, "training_iteration": 1}


def test_optuna_is_told_the_best_epoch_s_values_and_the_worst_of_what_diverged() -> None:
    searcher = make_searcher_of_two(ELBO, FD)
    for name in ("good", "last", "wild", "dead"):
        searcher.suggest(name)
    searcher.on_trial_result("good", result(-5.0, 1.0))
    searcher.on_trial_result("good", result(-3.0, 4.0))
    searcher.on_trial_complete("good", result(-4.0, 2.0))
    searcher.on_trial_result("last", result(-5.0, 1.0))
    searcher.on_trial_complete("last", result(-2.0, 7.0))
    searcher.on_trial_result("wild", result(-1.0, 0.0))
    searcher.on_trial_complete("wild", {ELBO: -WORST, "diverged": 1, "training_iteration": 2})
    searcher.on_trial_complete("dead", error=True)
    told = searcher._ot_study.trials
    assert [trial.values for trial in told] == [[-3.0, 4.0], [-2.0, 7.0], [-WORST, WORST], None]
    assert [trial.state.name for trial in told] == ["COMPLETE"] * 3 + ["FAIL"]
    assert [d.name for d in searcher._ot_study.directions] == ["MAXIMIZE", "MINIMIZE"]


def test_it_goes_on_from_what_was_saved(tmp_path: Path) -> None:
    one, other = (make_searcher_of_two(ELBO, FD) for _ in range(2))
    one.suggest("a")
    one.on_trial_result("a", result(-3.0, 4.0))
    one.save(str(tmp_path / "state"))
    other.restore(str(tmp_path / "state"))
    other.on_trial_complete("a", result(-4.0, 2.0))
    assert other._ot_study.trials[0].values == [-3.0, 4.0]


def test_the_sampler_comes_near_to_a_known_front() -> None:
    """Of f = (lr, distance of lr and of the KL weight from 1), trials end up near weight 1."""
    searcher = make_searcher_of_two(ELBO, FD)
    weights = []
    for index in range(60):
        config = searcher.suggest(str(index))
        assert config
        weight, rate = config["model"]["kl_weight"], config["optim"]["lr"]
        off = abs(np.log(weight))
        searcher.on_trial_complete(str(index), result(-100 * rate - off, off - 100 * rate))
        weights.append(off)
    assert np.mean(weights[30:]) < 0.6 * np.mean(weights[1:16])


# -- what is shown ------------------------------------------------------------------------------
def make_search(folder: Path, num: int) -> Path:
    """A search of `num` trials on paper, whose objectives contradict each other."""
    params = {"num_workers": 1}
    Journal(folder).open(
        Identity("vae-1", "vae-digits", "search", params=params, tags={"rerun": ""})
    )
    rng = np.random.default_rng(1)
    for index in range(num):
        own, x = folder / "trials" / f"t{index}", rng.uniform(0.0, 1.0)
        journal = Journal(own)
        journal.open(
            Identity(own.name, "vae-digits", "trial", trial_id=own.name, params={"optim.lr": x})
        )
        off = rng.exponential(0.3)
        metrics = {
            ELBO: -20.0 - 10 * x - off,
            FD: 1.0 / (x + 0.1) + off,
            "diverged": 0.0,
            "val/kl": x,
        }
        journal.report(1, metrics, {})
        (own / checkpoint_name(1)).mkdir()
        (own / checkpoint_name(1) / "model.json").write_text("{}")
        journal.close(Outcome("completed", 1))
    return folder


def test_the_report_shows_the_front(tmp_path: Path) -> None:
    folder = make_search(tmp_path, 30)
    ranking = standings(folder, ELBO, "max", ["optim.lr"])
    on_front = [s.trial_id for s in front(ranking, OBJECTIVES)]
    assert 3 <= len(on_front) < 30
    path = write_report(folder, ELBO, "max", ["optim.lr"], OBJECTIVES[1:])
    text, page = path.read_text(), Page(path.read_text())
    assert "Pareto front" in text and f"{ELBO} (max), {FD} (min)" in text
    rows = [page.cells[start : start + 9] for start in range(0, len(page.cells), 9)]
    assert [row[1] for row in rows[: len(on_front)]] == on_front
    by_trial = {row[1]: row for row in rows[len(on_front) :]}
    assert len(by_trial) == 30 and all(row == by_trial[row[1]] for row in rows)
    assert len(page.pictures) == 4
    for further in ([], [("val/unknown", "min")]):
        own = write_report(folder, ELBO, "max", ["optim.lr"], further).read_text()
        assert "Pareto" not in own and len(Page(own).pictures) == 3


def test_a_front_of_three_objectives_has_a_diagram_for_each_further_one(tmp_path: Path) -> None:
    three: list[Objective] = [(FD, "min"), ("val/kl", "max")]
    sizes = []
    folder = make_search(tmp_path, 8)
    for further in (three[:1], three):
        path = write_report(folder, ELBO, "max", ["optim.lr"], further)
        content = Page(path.read_text()).pictures[0].partition(",")[2]
        sizes.append(Image.open(io.BytesIO(base64.b64decode(content))).width)
    assert sizes[1] > 1.5 * sizes[0]


def test_the_table_marks_the_front(tmp_path: Path) -> None:
    ranking = standings(make_search(tmp_path, 5), ELBO, "max", ["optim.lr"])
    rows = list(csv.DictReader(io.StringIO(as_csv(ranking, ELBO, [FD], [ranking[0].trial_id]))))
    assert [row["front"] for row in rows] == ["True"] + ["False"] * 4
    assert all(float(row[FD]) > 0 for row in rows)
    assert "front" not in as_csv(ranking, ELBO)


# -- the whole ----------------------------------------------------------------------------------
@pytest.mark.slow
def test_a_search_for_a_front(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # No one wants a large distance; but so the two contradict each other.
    metrics = ["--metric", "val/squared_error", "--metric", "val/fd", "--mode=min", "--mode=max"]
    size = ["--trials", "6", "--epochs", "2", "--model.hidden", "32"]
    args = ["search", "autoencoder", "--store", str(tmp_path), *metrics, *size]
    code = main([*args, "--json"])
    out, said = capsys.readouterr()
    assert code == 0, said
    found = json.loads(out.splitlines()[-1])
    check_front(found, ["val/squared_error", FD])
    check_recorded(tmp_path, found)
    assert "Pareto front (*): " in out
    (report,) = tmp_path.glob("searches/*/report.html")
    assert "Pareto front" in report.read_text() and len(Page(report.read_text()).pictures) >= 4

    # Its one command means the same objectives, and so does going on with it.
    rerun = client(tmp_path).get_run(found["run_id"]).data.tags["rerun"]
    again = parse_run("search", rerun.split()[2:])
    assert isinstance(again, Search) and len(again.objectives) == 2
    assert main([*args[:4], "--resume", found["search_id"], "--json"]) == 0
    resumed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {**resumed, "trials": 0} == {**found, "trials": 0}


def check_front(found: dict[str, Any], metrics: list[str]) -> None:
    error, fd = metrics
    assert found["objectives"] == [
        {"metric": error, "mode": "min"},
        {"metric": fd, "mode": "max"},
    ]
    values = {t["trial_id"]: (t["values"][error], -t["values"][fd]) for t in found["trials"]}
    assert len(values) == 6 and len(found["front"]) > 1
    expected = [k for k, v in values.items() if not any(beaten(v, w) for w in values.values())]
    assert found["front"] == sorted(expected, key=values.__getitem__)
    assert found["champion"]["trial_id"] == found["front"][0]
    for trial in found["trials"]:
        assert trial["values"][error] == trial["value"]
        reports = Journal(Path(trial["checkpoint"]).parent).reports()
        best = min(reports, key=lambda report: report.metrics[error])
        assert {metric: best.metrics[metric] for metric in metrics} == trial["values"]
        assert trial["outcome"] == "completed"  # by default nothing stops them


def check_recorded(store: Path, found: dict[str, Any]) -> None:
    mlflow = client(store)
    search = mlflow.get_run(found["run_id"])
    assert search.data.tags["objectives"] == f"val/squared_error (min), {FD} (max)"
    assert search.data.params["scheduler"] == "fifo"
    tagged = mlflow.search_runs([search.info.experiment_id], "tags.pareto_front = 'true'")
    ids = {trial["trial_id"]: trial["run_id"] for trial in found["trials"]}
    assert {run.info.run_id for run in tagged} == {ids[name] for name in found["front"]}
