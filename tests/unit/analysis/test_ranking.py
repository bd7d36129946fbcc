"""How trials are ranked, from journals as runs leave them."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest
from support.journals import (
    ELBO_MAX,
    FD,
    FD_MIN,
    METRIC,
    open_journal,
    read_trials,
    write_run,
)

from pipelines.analysis.ranking import TrialResult, as_csv, most_promising, rank_trials
from pipelines.analysis.seeds import SeedStatistics
from pipelines.config.objectives import Objective
from pipelines.store.journal import Journal, Outcome

ELBO_MIN = Objective(METRIC, "min")
RATE = {"optim.lr": 0.1}


def rank(folder: Path, objective: Objective = ELBO_MAX) -> list[TrialResult]:
    return rank_trials(read_trials(folder), objective, ["optim.lr"])


def ids(ranking: list[TrialResult]) -> list[str]:
    return [result.trial_id for result in ranking]


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture
def search(tmp_path: Path) -> Path:
    trials = tmp_path / "trials"
    write_run(trials / "good", [-3.0, -1.0, -2.0], [2, 3], params=RATE)
    write_run(trials / "wild", [-0.1, -0.2], [1], "diverged", params=RATE)
    write_run(trials / "poor", [-9.0], [1], "stopped_early", params=RATE)
    write_run(trials / "dead", [], [], "failed", last_epoch=0, params=RATE)
    write_run(trials / "again", [-0.5], [1], "superseded", params=RATE)
    open_journal(trials / "open", kind="trial", trial_id="open", params=RATE)
    return tmp_path


def test_diverged_and_dead_trials_are_last_and_running_and_superseded_ones_absent(
    search: Path,
) -> None:
    order = ids(rank(search))
    assert order[:2] == ["good", "poor"] and set(order[2:]) == {"wild", "dead"}
    order = ids(rank(search, ELBO_MIN))
    assert order[:2] == ["poor", "good"]
    assert rank(search / "nothing") == []


def test_a_result_holds_the_trial_s_config_and_its_best_epoch(search: Path) -> None:
    good, *_ = rank(search)
    assert good.config == RATE and good.best
    assert (good.best.epoch, good.best.value) == (2, -1.0)
    assert good.best.checkpoint == search / "trials/good/checkpoint_000002"
    assert good.values([ELBO_MAX, FD_MIN]) == [-1.0, None]
    assert good.outcome == Outcome("completed", 3) and good.seeds is None


def test_the_table_has_a_line_a_trial(search: Path) -> None:
    rows = rows_of(as_csv(rank(search), [ELBO_MAX]))
    assert rows[0]["trial_id"] == "good" and float(rows[0][METRIC]) == -1.0
    assert rows[0]["optim.lr"] == "0.1" and rows[0]["best_epoch"] == "2"
    assert len(rows) == 4 and rows[-1][METRIC] == ""
    assert rows[0]["mean"] == "" and "front" not in rows[0]
    assert as_csv([], [ELBO_MAX]).splitlines() == ["trial_id"]


def test_the_table_marks_the_pareto_front(tmp_path: Path) -> None:
    for name, value in (("a", -1.0), ("b", -2.0)):
        write_run(tmp_path / "trials" / name, [{METRIC: value, FD: 3.0}], params=RATE)
    rows = rows_of(as_csv(rank(tmp_path), [ELBO_MAX, FD_MIN], ["a"]))
    assert [row["front"] for row in rows] == ["True", "False"]
    assert [row[FD] for row in rows] == ["3.0", "3.0"]


def test_a_config_with_a_seed_study_is_ranked_by_its_mean(search: Path) -> None:
    values_by_name: dict[str, list[float | None]] = {
        "good": [-4.0, -1.0],
        "poor": [-2.0, -2.0, None],
    }
    for name, values in values_by_name.items():
        journal = Journal(search / "trials" / name)
        outcome, seeds = journal.outcome(), SeedStatistics.of(values, ELBO_MAX)
        assert outcome and seeds
        journal.close(replace(outcome, summary=seeds.summary()))
    ranking = rank(search)
    # -2 is better than -2.5, but a seed was lost.
    assert ids(ranking)[:2] == ["good", "poor"]
    rows = rows_of(as_csv(ranking, [ELBO_MAX]))
    assert float(rows[0]["mean"]) == -2.5 and float(rows[0]["std"]) == pytest.approx(2.1213, 1e-4)
    assert rows[1]["mean"] == "-2.0" and rows[2]["mean"] == ""


def test_a_config_with_a_seed_study_comes_before_a_better_single_value(tmp_path: Path) -> None:
    for name, value in (("lucky", -1.0), ("studied", -5.0)):
        write_run(tmp_path / "trials" / name, [value], params=RATE)
    journal = Journal(tmp_path / "trials/studied")
    seeds = SeedStatistics.of([-6.0, -5.0], ELBO_MAX)
    assert seeds
    journal.close(Outcome("completed", 1, summary=seeds.summary()))
    ranking = rank(tmp_path)
    assert ids(ranking) == ["studied", "lucky"] and ranking[0].seeds == seeds


def test_the_most_promising_are_the_best_by_value_of_different_configs(tmp_path: Path) -> None:
    for name, value, rate in [("a", -3.0, 0.1), ("b", -1.0, 0.2), ("c", -2.0, 0.2)]:
        write_run(tmp_path / "trials" / name, [value], params={"optim.lr": rate})
    write_run(tmp_path / "trials/dead", [], [], "failed", params={"optim.lr": 0.3})
    ranking = rank(tmp_path)
    assert ids(most_promising(ranking, ELBO_MAX, 5)) == ["b", "a"]
    assert ids(most_promising(ranking, ELBO_MIN, 5)) == ["a", "c"]
    assert ids(most_promising(ranking, ELBO_MAX, 1)) == ["b"]


def test_the_config_is_that_of_the_best_epoch_if_it_was_changed(tmp_path: Path) -> None:
    """Population based training changes settings between epochs."""
    epochs = [
        {METRIC: -3.0, "config/optim.lr": 0.1},
        {METRIC: -1.0, "config/optim.lr": 0.3},
        {METRIC: -2.0, "config/optim.lr": 0.5},
    ]
    write_run(tmp_path / "trials/a", epochs, params=RATE)
    (result,) = rank(tmp_path)
    assert result.config == {"optim.lr": 0.3}
