"""Searchers: what every one of them does, and what they learn of trials."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any, get_args

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from ray import tune
from ray.tune.experiment import Experiment

from pipelines.config.objectives import Objective
from pipelines.config.run import defaults
from pipelines.config.search import Search, Searcher, with_objectives
from pipelines.tuning.strategy.searchers import (
    SEARCHERS,
    RecordedSearch,
    RecordedTrial,
    SpaceSearch,
    lesson,
    make_searcher,
    searched_params,
)
from pipelines.tuning.strategy.space import grid_points

OBJECTIVES = [Objective("val/elbo", "max"), Objective("val/fd", "min")]
METRIC = "val/nll"
NAMES: tuple[Searcher, ...] = get_args(Searcher)
CONDITIONAL = (
    "none",
    "optim.lr=loguniform(1e-5, 1e-1)",
    "model.arch=choice(['mlp', 'conv'])",
    "model.hidden=choice([[256], [512]]) if model.arch == 'mlp'",
)
DEFAULT = {"model.latent_dim": 16, "model.kl_weight": 1.0, "optim.lr": 1e-3}


def make_run(*space: str, **settings: Any) -> Search:
    return replace(defaults(Search, "vae"), space=space, epochs=3, **settings)


def report(epoch: int, value: float, *, diverged: bool = False, **more: float) -> dict[str, Any]:
    return {METRIC: value, "diverged": int(diverged), "epoch": epoch, **more}


def suggest(searcher: SpaceSearch, num: int, start: int = 0) -> list[dict[str, Any]]:
    return [searcher.suggest(str(index)) for index in range(start, start + num)]


def trials(searcher: SpaceSearch) -> list[optuna.trial.FrozenTrial]:
    return list(searcher._ot_study.trials)


# -- every searcher -------------------------------------------------------------------------------
def test_every_name_has_a_searcher() -> None:
    assert SEARCHERS.keys() == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("space", [(), CONDITIONAL], ids=["plain", "conditional"])
def test_points_lie_in_the_space_and_follow_from_the_seed(
    name: Searcher, space: tuple[str, ...]
) -> None:
    run = make_run(*space, searcher=name, seed=3, trials=20)
    known = run.searched
    found = []
    for _ in range(2):
        searcher, points = make_searcher(run), []
        for index in range(8):
            points.append(searcher.suggest(f"{index}"))
            value = float(np.log(points[-1]["optim.lr"]) ** 2)
            searcher.on_trial_result(f"{index}", report(1, value + 1))
            searcher.on_trial_complete(f"{index}", report(3, value))
        found.append(points)
    assert found[0] == found[1]
    for point in found[0]:
        assert {each.name for each in known.active(point)} == set(point)
        searched_params(run, point)  # it is a config
    if name != "grid":
        assert len({point["optim.lr"] for point in found[0]}) >= 6  # evolution may repeat one


@pytest.mark.parametrize("name", [name for name in NAMES if name != "grid"])
def test_the_default_config_is_first_and_required_points_are_no_trials(name: Searcher) -> None:
    run = make_run(searcher=name, require=("model.latent_dim <= 16", "optim.lr > 5e-4"))
    points = suggest(make_searcher(run), 10)
    assert points[0] == DEFAULT
    assert all(p["model.latent_dim"] <= 16 and p["optim.lr"] > 5e-4 for p in points)
    beside = make_run(searcher=name, require=("model.latent_dim < 16",))
    assert suggest(make_searcher(beside), 1)[0]["model.latent_dim"] < 16


def test_a_grid_is_given_point_by_point() -> None:
    run = make_run(*CONDITIONAL, searcher="grid", grid_points=2)
    points = suggest(make_searcher(run), 6)
    assert points == grid_points(run) and len(points) == 2 * 3


def test_what_nothing_satisfies_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.tuning.strategy.searchers._MOST_REFUSED", 20)
    run = make_run(searcher="random", require=("optim.lr > 1",))
    with pytest.raises(RuntimeError, match=r"none of 20 points in a row satisfies optim\.lr > 1"):
        make_searcher(run).suggest("a")


def distances_from_the_best(name: Searcher, diverging: float = inf) -> list[float]:
    """Return how far from the best the 60 points of a searcher lie, which learns that distance,
    and that trials at rates above `diverging` diverge. The best rate is 1e-3, the best weight 1.
    """
    run = make_run("none", "optim.lr=loguniform(1e-6, 1)", "model.kl_weight=uniform(0, 4)")
    run = replace(run, searcher=name, trials=60)
    searcher = make_searcher(run, [])
    off = []
    for index in range(60):
        point = searcher.suggest(f"{index}")
        distance = abs(np.log10(point["optim.lr"]) + 3) + abs(point["model.kl_weight"] - 1)
        diverged = float(point["optim.lr"] > diverging)
        last = report(3, float(distance)) | {"diverged": diverged}
        searcher.on_trial_complete(f"{index}", last)
        off.append(float(distance))
    return off


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes", "nsga2", "nsga3"])
def test_searchers_that_learn_come_near_to_the_best(name: Searcher) -> None:
    off = distances_from_the_best(name)
    assert np.mean(off[40:]) < 0.8 * np.mean(off[:15])


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes", "nsga2"])
def test_trials_that_diverged_hide_no_difference_of_the_others(name: Searcher) -> None:
    off = distances_from_the_best(name, diverging=0.03)
    assert np.median(off[40:]) < 0.8 * np.median(off[:15])


def test_a_stopped_trial_is_as_much_better_at_the_end_as_those_that_went_on() -> None:
    """For samplers that cannot use pruned trials. The worst of the three gains little."""
    searcher = make_searcher(make_run(searcher="gp"))
    for index, curve in enumerate([(9.0, 8.0, 4.0), (7.0, 6.0, 5.0), (9.0, 5.0, 2.0)]):
        searcher.suggest(f"{index}")
        for epoch, value in enumerate(curve[:2], 1):
            searcher.on_trial_result(f"{index}", report(epoch, value))
        searcher.on_trial_complete(f"{index}", report(3, curve[2]))
    searcher.suggest("stopped")
    searcher.on_trial_result("stopped", report(1, 9.0))
    searcher.on_trial_complete("stopped", report(2, 9.5))
    last = trials(searcher)[-1]
    assert last.state == TrialState.COMPLETE and last.value == 9.0 - 3.0
    searcher = make_searcher(make_run(searcher="gp"))
    searcher.suggest("first")
    searcher.on_trial_complete("first", report(1, 9.0))
    assert trials(searcher)[-1].value == 9.0  # nothing is known of those that go on


def test_optuna_s_log_level_is_the_user_s() -> None:
    before = optuna.logging.get_verbosity()
    make_searcher(make_run())
    assert optuna.logging.get_verbosity() == before


def test_it_goes_on_from_what_was_saved(tmp_path: Path) -> None:
    run = with_objectives(make_run(), OBJECTIVES)
    one, other = make_searcher(run), make_searcher(run)
    one.suggest("a")
    one.on_trial_result("a", {"val/elbo": -3.0, "val/fd": 4.0, "epoch": 1, "diverged": 0})
    one.save(str(tmp_path / "state"))
    other.restore(str(tmp_path / "state"))
    last = {"val/elbo": -4.0, "val/fd": 2.0, "epoch": 3, "diverged": 0}
    other.on_trial_complete("a", last)
    assert trials(other)[0].values == [-3.0, 4.0]


# -- what is learnt of a trial --------------------------------------------------------------------
@pytest.mark.parametrize(
    ("curve", "state", "values", "reported"),
    [
        # All epochs: the value of the best one, by which trials are ranked.
        ([5.0, 3.0, 4.0], TrialState.COMPLETE, [3.0], {1: 5.0, 2: 3.0, 3: 3.0}),
        # Stopped early: comparable with others that came as far, and with no others.
        ([5.0, 6.0], TrialState.PRUNED, None, {1: 5.0, 2: 5.0}),
        ([], TrialState.PRUNED, None, {}),
    ],
)
def test_what_is_learnt_of_a_trial(
    curve: list[float],
    state: TrialState,
    values: list[float] | None,
    reported: Mapping[int, float],
) -> None:
    run = make_run()
    epochs = [(epoch, {METRIC: value}) for epoch, value in enumerate(curve, 1)]
    found = lesson(run, epochs, diverged=False)
    assert (found.state, found.values, found.reported) == (state, values, reported)


def test_a_pruned_trial_is_told_to_optuna_with_its_value_so_far() -> None:
    searcher = make_searcher(make_run())
    searcher.suggest("a")
    searcher.on_trial_result("a", report(1, 5.0))
    searcher.on_trial_result("a", report(1, 5.0))  # a resumed trial repeats a report
    searcher.on_trial_complete("a", report(2, 6.0))
    (trial,) = trials(searcher)
    assert trial.state == TrialState.PRUNED and trial.value == 5.0
    assert trial.intermediate_values == {1: 5.0, 2: 5.0}


def test_a_trial_that_failed_teaches_nothing_and_one_that_diverged_is_the_worst() -> None:
    run = with_objectives(make_run(), OBJECTIVES)
    searcher = make_searcher(run)
    for name in ("failed", "diverged", "sound", "lacking"):
        searcher.suggest(name)
        searcher.on_trial_result(
            name, {"val/elbo": -10.0, "val/fd": 1.0, "epoch": 1, "diverged": 0}
        )
    searcher.on_trial_complete("failed", None, error=True)
    last = {"val/elbo": -45.0, "val/fd": 1e30, "epoch": 2}
    searcher.on_trial_complete("diverged", {**last, "diverged": 1})
    searcher.on_trial_complete("sound", {**last, "diverged": 0})
    searcher.on_trial_complete("lacking", {"val/elbo": -5.0, "epoch": 3, "diverged": 0})
    assert trials(searcher)[0].state == TrialState.FAIL
    assert [trial.values for trial in trials(searcher)[1:]] == [
        [-inf, inf],
        [-10.0, 1.0],
        [-5.0, inf],
    ]


def test_several_objectives_reach_a_known_front() -> None:
    """Of f = (lr, distance of lr and of the KL weight from 1), trials end up near weight 1."""
    searcher = make_searcher(with_objectives(make_run(seed=3), OBJECTIVES))
    assert [d.name for d in searcher._ot_study.directions] == ["MAXIMIZE", "MINIMIZE"]
    distances = []
    for index in range(60):
        point = searcher.suggest(str(index))
        weight, rate = point["model.kl_weight"], point["optim.lr"]
        off = abs(np.log(weight))
        values = {"val/elbo": -100 * rate - off, "val/fd": off - 100 * rate}
        searcher.on_trial_complete(str(index), {**values, "epoch": 3, "diverged": 0})
        distances.append(off)
    assert np.mean(distances[30:]) < 0.6 * np.mean(distances[1:16])


# -- trials that are recorded ---------------------------------------------------------------------
def experiment(num: int) -> Experiment:
    def train(config: dict[str, Any]) -> None: ...

    tune.register_trainable("nothing", train)
    return Experiment("name", "nothing", num_samples=num)


def recorded(run: Search, point: Mapping[str, Any], index: int, *, ended: bool) -> RecordedTrial:
    curve = [(epoch, {METRIC: float(epoch)}) for epoch in range(1, run.epochs + 1)]
    params = searched_params(run, point)
    return RecordedTrial(f"t{index}", params, point, ended, curve if ended else curve[:1])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "grid"])
def test_a_search_that_begins_anew_runs_what_is_left(name: Searcher) -> None:
    run = make_run(searcher=name, trials=6, seed=1)
    whole = [dict(point) for point in suggest(make_searcher(run), 6)]
    known = [recorded(run, point, i, ended=i < 2) for i, point in enumerate(whole[:3])]
    search = RecordedSearch(run, known, 4, "id")
    search.add_configurations(experiment(search.num_samples))
    given = [search.next_trial() for _ in range(4)]
    assert given[0].trial_id == "t2" and dict(given[0].config) == whole[2]
    assert len({trial.trial_id for trial in given}) == 4
    if name in ("random", "qmc"):
        assert [dict(trial.config) for trial in given] == whole[2:]
    else:  # it was told of those that have ended
        states = [trial.state for trial in trials(search.searcher)]
        assert states.count(TrialState.COMPLETE) == 2


@pytest.mark.parametrize("name", [name for name in NAMES if name != "grid"])
@pytest.mark.parametrize("ended", [range(4), (0, 2), ()])
def test_a_given_point_is_one_of_the_trials_of_an_extended_search(
    name: Searcher, ended: Sequence[int]
) -> None:
    run = make_run(searcher=name, trials=4)
    searcher = make_searcher(run)
    whole = suggest(searcher, 2)
    own = {**whole[0], "optim.lr": 0.00321}
    searcher.enqueue(own)
    whole += [searcher.suggest(each) for each in ("given", "last")]
    assert whole[2] == own
    known = [recorded(run, point, i, ended=i in ended) for i, point in enumerate(whole)]
    search = RecordedSearch(replace(run, trials=6), known, 6, "id")
    search.add_configurations(experiment(search.num_samples))
    given = [search.next_trial() for _ in range(6 - len(ended))]
    assert search.next_trial() is None
    ids, unended = (
        [trial.trial_id for trial in given],
        [f"t{i}" for i in range(4) if i not in ended],
    )
    assert ids[: len(unended)] == unended
    assert all(trial.config not in whole for trial in given[len(unended) :])


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_an_extended_search_goes_on_with_its_own_points(name: Searcher) -> None:
    run = make_run(searcher=name, trials=3)
    whole = suggest(make_searcher(run), 3)
    known = [recorded(run, point, i, ended=True) for i, point in enumerate(whole)]
    more = replace(run, trials=5)
    search = RecordedSearch(more, known, 2, "id")
    search.add_configurations(experiment(search.num_samples))
    given = [search.next_trial() for _ in range(2)]
    assert all(trial and trial.config not in whole for trial in given)
    assert search.next_trial() is None
    assert search.budget == (5, 3)
