"""Results: their JSON, and the exit codes that follow from them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.journals import ELBO_MAX, FD, FD_MIN, METRIC, PNG, read_run, write_run
from support.results import (
    SEEDS,
    STUDY,
    best_result,
    evaluation_result,
    runs_result,
    search_result,
    train_result,
    trial_row,
)

from pipelines.analysis.best_epoch import best_epoch
from pipelines.analysis.ranking import TrialResult
from pipelines.report.results import (
    RESULTS,
    Result,
    SampleResult,
    StudySummary,
    TrialRow,
    existing,
)


def content(result: Result) -> dict[str, Any]:
    """Return the content of the one line that `--json` prints."""
    text = result.to_json()
    assert "\n" not in text
    found: dict[str, Any] = json.loads(text)
    return found


def test_a_run_as_json() -> None:
    found = content(train_result())
    assert found["outcome"] == "completed" and found["metric"] == METRIC
    assert found["value"] == -1.5 and found["model"] == {"hidden": [32]}
    assert found["model_error"] is None
    assert set(found) == {
        *("name", "run_id", "experiment", "tracking_uri", "outcome", "epoch", "metric", "value"),
        *("best_epoch", "metrics", "checkpoint", "samples", "model", "optim", "model_error"),
        *("ended_by", "resume"),
    }


def test_a_search_as_json() -> None:
    row = trial_row(confirmed=SEEDS)
    studies = {
        "t0": StudySummary(
            search_id="s",
            run_id="x",
            outcome="completed",
            seed_study=STUDY,
            seed_statistics=SEEDS,
            seeds_beaten=1,
        )
    }
    result = search_result(champion=row, ranking=(row,), pareto=(row,), studies=studies)
    found = content(replace(result, objectives=(ELBO_MAX, FD_MIN)))
    assert found["objectives"] == [
        {"metric": METRIC, "mode": "max"},
        {"metric": FD, "mode": "min"},
    ]
    assert found["champion"] == found["ranking"][0] == found["pareto"][0]
    assert found["champion"]["confirmed"]["mean"] == -2.5
    assert found["champion"]["config"] == {"optim.lr": 0.1}
    assert found["studies"]["t0"]["seed_statistics"]["seeds"] == 2
    assert found["studies"]["t0"]["seed_study"]["data_digest"] == "d"
    assert found["seed_study"] is None and found["seeds_beaten"] is None


def test_other_results_as_json() -> None:
    assert content(evaluation_result())["metrics"] == {"test/fd": 1.5}
    assert content(runs_result())["runs"][0]["run_id"] == "abc"
    assert content(best_result())["ranking"][0]["rerun"] == "genpipe train vae"
    sample = SampleResult(path="/a.png", num=4, seed=0, family="vae")
    assert content(sample) == {"path": "/a.png", "num": 4, "seed": 0, "family": "vae"}


def test_every_result_is_in_the_schema_s_list() -> None:
    own = {each for each in Result.__subclasses__() if each.__module__.startswith("pipelines.")}
    assert set(RESULTS) == own


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        ("completed", 0),
        ("interrupted", 130),
        ("diverged", 1),
        ("failed", 1),
        ("stopped_early", 0),  # a run of `train` that `genpipe stop` has ended
    ],
)
def test_exit_codes_of_outcomes(outcome: Any, code: int) -> None:
    assert replace(train_result(), outcome=outcome).exit_code == code
    row = trial_row()
    assert replace(search_result(champion=row, ranking=(row,)), outcome=outcome).exit_code == code


def test_a_model_that_could_not_be_exported_is_a_failure() -> None:
    assert train_result(model_error="no").exit_code == 1
    assert search_result(champion=trial_row(model_error="no")).exit_code == 1
    # A trial that is not the champion has no model to export.
    assert search_result(champion=trial_row(), ranking=(trial_row(),)).exit_code == 0


def test_a_search_with_failed_trials_or_without_a_value_fails() -> None:
    good, wild = trial_row(), trial_row("wild", outcome="diverged", value=None)
    assert search_result(champion=good, ranking=(good, wild)).exit_code == 0
    failures = {"no memory": 1}
    assert search_result(champion=good, ranking=(good,), failures=failures).exit_code == 1
    study = StudySummary(
        search_id="s",
        run_id="r",
        outcome="completed",
        seed_study=STUDY,
        seed_statistics=None,
        seeds_beaten=None,
        failures=failures,
    )
    result = search_result(champion=good, ranking=(good,), studies={"t0": study})
    assert result.exit_code == 1
    assert search_result(ranking=(wild,)).exit_code == 1
    assert search_result().exit_code == 1
    # To be resumed: nothing is decided yet.
    interrupted = search_result(outcome="interrupted", ranking=(wild,), failures=failures)
    assert interrupted.exit_code == 130


def test_results_that_are_lists_or_files_have_no_failure() -> None:
    for result in (evaluation_result(), runs_result(), best_result()):
        assert result.exit_code == 0


def test_a_row_of_a_ranked_trial(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "t0", [{METRIC: -3.0, FD: 2.0}, {METRIC: -1.0}])
    model = {"model_uri": "models:/m-1", "version": "3", "model_error": "no"}
    folder.journal.mark_delivered(model)
    record = read_run(folder)
    assert record.outcome
    best = best_epoch(record, ELBO_MAX)
    result = TrialResult("t0", {"optim.lr": 0.1}, record.outcome, best, record, SEEDS)
    row = TrialRow.from_result(result, (ELBO_MAX, FD_MIN), "abc")
    assert (row.trial_id, row.outcome, row.epochs) == ("t0", "completed", 2)
    assert (row.value, row.best_epoch, row.metrics) == (-1.0, 2, {METRIC: -1.0})
    assert row.values == {METRIC: -1.0, FD: None} and row.confirmed == SEEDS
    assert row.checkpoint == str(tmp_path / "t0/checkpoint_000002")
    assert (row.run_id, row.model, row.version) == ("abc", "models:/m-1", "3")
    assert row.model_error == "no" and row.of is None

    dead = TrialRow.from_result(replace(result, best=None, seeds=None), (ELBO_MAX,), None)
    assert (dead.value, dead.best_epoch, dead.checkpoint) == (None, None, None)
    assert dead.values == {METRIC: None} and dead.metrics == {}


def test_a_path_is_given_if_the_file_exists(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    assert existing(tmp_path / "a.png") == str(tmp_path / "a.png")
    assert existing(tmp_path / "b.png") is None and existing(tmp_path) is None


def test_a_notebook_shows_tables_and_pictures(tmp_path: Path) -> None:
    picture = tmp_path / "samples.png"
    picture.write_bytes(PNG)
    rows = tuple(trial_row(trial_id=f"t<{i}>") for i in range(25))
    shown = search_result(ranking=rows, samples=str(picture))._repr_html_()
    assert shown.count("<tr>") == 21 and "t&lt;0&gt;" in shown and "5 more in .ranking" in shown
    assert "data:image/png;base64," in shown
    assert "<img" not in search_result(samples=None)._repr_html_()
    assert "nothing is recorded" in replace(runs_result(), runs=())._repr_html_()
    for each in (train_result(), runs_result(), best_result(), evaluation_result()):
        assert each._repr_html_().startswith(("<p>", "<table>"))


def test_runs_can_be_iterated_over() -> None:
    found = runs_result()
    assert tuple(found) == found.runs and len(found) == len(found.runs)
