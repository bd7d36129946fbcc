"""Replaying searches on a table of learning curves (`benchmarks.search_quality`)."""

import json
import math
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.search import make_search, run_trial

from benchmarks import search_quality
from benchmarks.curve_tables import RECIPES, Table, make_axes, read_table
from benchmarks.replay import Improvement, Replay, make_run, replay

RUNGS = (3, 9)
"""Of asha with a grace period of 3 epochs and 20 epochs in all."""


def bowl(points: tuple[int, int, int] = (5, 5, 9)) -> Table:
    """Return a table with one best config in the middle; the largest learning rate diverges at the
    second epoch."""
    axes = make_axes(points)
    z, kl, lr = np.meshgrid(*(np.linspace(-1, 1, len(axis)) for axis in axes.values()))
    final = (z.T**2 + kl.T**2 + 4 * lr.T**2).transpose(1, 2, 0).reshape(points)
    curves = 20 + final[..., None] + 5 * np.exp(-0.4 * np.arange(20))
    curves[:, :, -1, 1:] = np.nan
    return Table(axes, curves.astype(np.float32))


def run(
    table: Table, searcher: Any, scheduler: Any, scratch: Path, seed: int = 0, trials: int = 40
) -> Replay:
    search = make_run(table, searcher, scheduler, trials=trials, seed=seed)
    return replay(table, search, scratch, concurrent=4)


def lengths(found: Replay) -> list[int]:
    return [len(trial.values) for trial in found.trials.values()]


def test_a_point_has_the_curve_of_the_nearest_config_by_its_logarithm() -> None:
    axes = {"model.kl_weight": np.array([0.5, 2.0]), "optim.lr": np.array([1e-4, 1e-3, 1e-2])}
    table = Table(axes, np.zeros((2, 3, 1), np.float32))
    assert table.index({"model.kl_weight": 0.99, "optim.lr": 3.1e-4}) == (0, 0)
    assert table.index({"model.kl_weight": 1.01, "optim.lr": 3.2e-4}) == (1, 1)
    assert table.index({"model.kl_weight": 9.0, "optim.lr": 1.0}) == (1, 2)


def test_epochs_are_counted_in_order_of_simulated_time(tmp_path: Path) -> None:
    axes = {"model.kl_weight": np.array([0.5, 2.0]), "optim.lr": np.array([1e-4, 1e-2])}
    curves = [[[5.0, 4.0], [3.5, 4.5]], [[math.nan, math.nan], [4.0, 1.0]]]
    table = Table(axes, np.array(curves, np.float32))
    search = make_run(table, "grid", "fifo", trials=1, grid_points=2)
    found = replay(table, search, tmp_path, concurrent=2)
    # Two trials at a time: 5, 3.5; 4, 4.5; then the third diverges: NaN, 4; 1.
    expected = [Improvement(1, 1, 5.0), Improvement(2, 2, 3.5), Improvement(7, 4, 1.0)]
    assert found.improvements == expected
    assert found.epochs == 7
    assert lengths(found) == [2, 2, 1, 2]
    assert [found.best(epochs) for epochs in (0, 1, 6, 7)] == [math.inf, 5.0, 3.5, 1.0]
    assert found.reached(3.5) == expected[1]
    assert found.reached(0.9) is None


def test_random_search_has_the_best_of_its_trials(tmp_path: Path) -> None:
    table = bowl()
    search = make_run(table, "random", "fifo", trials=5)
    found = replay(table, search, tmp_path, concurrent=1, max_epochs=200)
    best, epochs = math.inf, 0
    for trial in found.trials.values():
        curve = table.curve(trial.point)
        assert trial.values == pytest.approx(curve[: len(trial.values)].tolist(), nan_ok=True)
        epochs += len(trial.values)
        best = np.nanmin([best, *trial.values])
    assert epochs == found.epochs == 200
    assert found.best() == best


def test_asha_stops_trials_at_its_rungs(tmp_path: Path) -> None:
    found = run(bowl(), "random", "asha", tmp_path)
    diverged = [trial for trial in found.trials.values() if math.isnan(trial.values[-1])]
    assert diverged
    ends = [
        len(trial.values) for trial in found.trials.values() if not math.isnan(trial.values[-1])
    ]
    assert set(ends) == {*RUNGS, 20}
    assert ends.count(3) > ends.count(9) > 0


@pytest.mark.parametrize("scheduler", ["hyperband", "median", "pbt"])
def test_trials_that_are_paused_go_on(scheduler: str, tmp_path: Path) -> None:
    found = run(bowl(), "random", scheduler, tmp_path)
    assert len(found.trials) == 40
    assert max(lengths(found)) == 20
    assert sum(lengths(found)) == found.epochs


def test_a_trial_that_copies_another_one_goes_on_where_its_curve_has_the_value(
    tmp_path: Path,
) -> None:
    found = run(bowl(), "random", "pbt", tmp_path, trials=8)
    falls = [b - a for t in found.trials.values() for a, b in pairwise(t.values)]
    alone = np.diff(bowl().curves, axis=-1)
    assert min(falls) < np.nanmin(alone)  # by more than any config improves in an epoch


def test_the_same_seed_gives_the_same_search(tmp_path: Path) -> None:
    table = bowl()
    first, again, other = (run(table, "tpe", "asha", tmp_path, seed) for seed in (1, 1, 2))
    assert first.improvements == again.improvements
    points = [[trial.point for trial in found.trials.values()] for found in (first, again)]
    assert points[0] == points[1]
    assert lengths(first) == lengths(again)
    assert first.improvements != other.improvements


def test_another_search_tries_the_best_points_first(tmp_path: Path) -> None:
    table = bowl()
    best = run(table, "tpe", "asha", tmp_path, trials=60).best_points()
    assert len(best) == 1
    search = make_run(table, "tpe", "asha", trials=8, seed=1)
    cold, warm = (
        replay(table, search, tmp_path, concurrent=4, first=first) for first in ((), best)
    )
    assert [trial.point for trial in warm.trials.values()][:1] == best
    assert warm.best() < cold.best()


def test_a_table_is_read_from_journals_and_from_its_file(tmp_path: Path) -> None:
    axes = {"optim.lr": np.array([1e-4, 1e-3])}
    settings = {"searcher": "grid", "scheduler": "fifo", "epochs": 2, "trials": 2}
    space = ("none", "optim.lr=choice([0.0001, 0.001])")
    search = make_search(tmp_path / "store", space=space, **settings)
    run_trial(search, "trial-1", [4.0, 3.0], {"optim": {"lr": 1e-3}})
    with pytest.raises(SystemExit, match="1 of 2 configs have not ended"):
        read_table(tmp_path / "store", axes, 2)
    run_trial(search, "trial-2", [6.0, 5.0], {"optim": {"lr": 1e-4}})
    table = read_table(tmp_path / "store", axes, 2)
    assert table.curves.tolist() == [[6.0, 5.0], [4.0, 3.0]]
    table.save(tmp_path / "table.npz")
    loaded = Table.load(tmp_path / "table.npz")
    assert loaded.digest == table.digest
    assert loaded.index({"optim.lr": 5e-4}) == (1,)


def test_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for recipe in RECIPES.values():
        bowl().save(tmp_path / recipe.file_name)
    args = ["--cells", "tpe+asha", "random+fifo", "--seeds", "3", "--longest", "400"]
    args += ["--epochs", "60", "120", "--tables", str(tmp_path), "--store", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["search_quality", *args])
    for name, small in {"BOOTSTRAPS": 20, "EARLIER_TRIALS": 20, "COLD_TRIALS": 8}.items():
        monkeypatch.setattr(search_quality, f"_{name}", small)
    monkeypatch.setattr(search_quality, "_MOST_TRIALS", 20)

    def figures() -> dict[str, float]:
        search_quality.main()
        found: dict[str, float] = json.loads(capsys.readouterr().out.splitlines()[-1])["figures"]
        return found

    found = figures()
    assert found["seeds_tpe_asha"] == 3
    assert 0 <= found["regret_at_120_epochs_tpe_asha"] <= found["regret_at_60_epochs_tpe_asha"]
    name = "tpe_asha_over_random_equal_cost"
    assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"]
    assert found["warm_start_over_cold"] == found["cold_trials"] / found["warm_trials"]
    monkeypatch.setattr(search_quality, "replay", None)  # all are kept
    assert figures() == found
