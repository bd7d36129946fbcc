"""How trials are ranked, from journals as runs leave them."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.analysis.champion import Verdict, verdict
from pipelines.analysis.ranking import as_csv, most_promising, standings
from pipelines.analysis.run_results import best_of
from pipelines.analysis.seeds import Spread
from pipelines.config.run import Confirmed, Search, defaults
from pipelines.store.journal import Ending, Identity, Journal, Outcome, checkpoint_name

METRIC = "val/elbo"


def make_run(
    folder: Path,
    values: list[float],
    kept: list[int],
    ending: Ending,
    last: int | None = None,
    rate: float = 0.1,
) -> None:
    """A trial that reported `values` at its epochs and still has the checkpoints `kept`."""
    journal = Journal(folder)
    journal.open(
        Identity(
            folder.name, "vae-digits", "trial", trial_id=folder.name, params={"optim.lr": rate}
        )
    )
    for epoch, value in enumerate(values, 1):
        journal.report(epoch, {METRIC: value}, {})
    for epoch in kept:
        checkpoint = folder / checkpoint_name(epoch)
        checkpoint.mkdir()
        (checkpoint / "model.json").write_text("{}")
    journal.close(Outcome(ending, len(values) if last is None else last))


@pytest.fixture
def search(tmp_path: Path) -> Path:
    trials = tmp_path / "trials"
    make_run(trials / "good", [-3.0, -1.0, -2.0], [2, 3], "completed")
    make_run(trials / "wild", [-0.1, -0.2], [1], "diverged")
    make_run(trials / "poor", [-9.0], [1], "stopped_early")
    make_run(trials / "dead", [], [], "failed", last=0)
    Journal(trials / "open").open(Identity("open", "vae-digits", "trial", trial_id="open"))
    return tmp_path


def test_the_best_epoch_is_one_that_counts_and_has_its_checkpoint(tmp_path: Path) -> None:
    make_run(tmp_path / "run", [-5.0, -1.0, -4.0, -0.5], [1, 3, 4], "stopped_early", last=3)
    assert (found := best_of(tmp_path / "run", METRIC, "max", last_epoch=3))
    assert (found.epoch, found.value) == (3, -4.0)
    assert (found := best_of(tmp_path / "run", METRIC, "min"))
    assert found.epoch == 1
    assert best_of(tmp_path / "run", "val/other", "max") is None


def test_diverged_and_dead_trials_are_last_and_running_ones_absent(search: Path) -> None:
    order = [s.trial_id for s in standings(search, METRIC, "max", ["optim.lr"])]
    assert order[:2] == ["good", "poor"] and set(order[2:]) == {"wild", "dead"}
    order = [s.trial_id for s in standings(search, METRIC, "min", ["optim.lr"])]
    assert order[:2] == ["poor", "good"]


def test_the_table_has_a_line_a_trial(search: Path) -> None:
    rows = list(
        csv.DictReader(io.StringIO(as_csv(standings(search, METRIC, "max", ["optim.lr"]), METRIC)))
    )
    assert rows[0]["trial_id"] == "good" and float(rows[0][METRIC]) == -1.0
    assert rows[0]["optim.lr"] == "0.1" and rows[0]["best_epoch"] == "2"
    assert len(rows) == 4 and rows[-1][METRIC] == ""


def test_a_confirmed_config_is_ranked_by_its_mean(search: Path) -> None:
    spreads = {"good": [-4.0, -1.0], "poor": [-2.0, -2.0, None]}
    for name, values in spreads.items():
        journal = Journal(search / "trials" / name)
        ended, spread = journal.outcome(), Spread.of(values, "max")
        assert ended and spread
        journal.close(replace(ended, summary=spread.summary()))
    ranking = standings(search, METRIC, "max", ["optim.lr"])
    # -2 is better than -2.5, but a seed was lost.
    assert [s.trial_id for s in ranking][:2] == ["good", "poor"]
    rows = list(csv.DictReader(io.StringIO(as_csv(ranking, METRIC))))
    assert float(rows[0]["mean"]) == -2.5 and float(rows[0]["std"]) == pytest.approx(2.1213, 1e-4)
    assert rows[1]["mean"] == "-2.0" and rows[2]["mean"] == ""


def test_the_most_promising_are_the_best_by_value_of_different_configs(tmp_path: Path) -> None:
    for name, value, rate in [("a", -3.0, 0.1), ("b", -1.0, 0.2), ("c", -2.0, 0.2)]:
        make_run(tmp_path / "trials" / name, [value], [1], "completed", rate=rate)
    ranking = standings(tmp_path, METRIC, "max", ["optim.lr"])
    assert [s.trial_id for s in most_promising(ranking, "max", 5)] == ["b", "a"]
    assert [s.trial_id for s in most_promising(ranking, "min", 5)] == ["a", "c"]
    assert [s.trial_id for s in most_promising(ranking, "max", 1)] == ["b"]


def seeds(folder: Path, values: list[float]) -> Verdict:
    """What confirming a run by seeds of these values comes to."""
    for seed, value in enumerate(values, 1):
        make_run(folder / "trials" / f"seed-{seed}", [value], [1], "completed", rate=seed)
    confirms = Confirmed(run="a", name="a", search_id="", data_digest="d", value=-1.0)
    run = replace(defaults(Search, "vae"), metric=METRIC, mode="max", confirms=confirms)
    return verdict(run, standings(folder, METRIC, "max", ["optim.lr"]))


def test_the_seed_in_the_middle_stands_for_its_config(tmp_path: Path) -> None:
    found = seeds(tmp_path / "odd", [-7.0, -2.0, -3.0])
    assert found.winner and found.winner.trial_id == "seed-3"
    assert found.claim == {"metric": METRIC, "mode": "max", "value": -4.0, "seeds": 3}
    assert found.summary["confirm/recorded"] == -1.0
    assert found.summary["confirm/best"] == -2.0 and found.summary["confirm/worst"] == -7.0
    assert found.summary["confirm/sem"] == pytest.approx(7**0.5 / 3**0.5)
    found = seeds(tmp_path / "even", [-1.0, -2.0, -3.0, -4.0])
    assert found.winner and found.winner.trial_id == "seed-3"
    found = seeds(tmp_path / "one", [-1.0])
    assert found.winner and not found.summary and not found.claim and found.spread is None
