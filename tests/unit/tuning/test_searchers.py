"""Searchers: every name builds and begins with the default config; several objectives."""

from dataclasses import replace
from typing import Any, get_args

import optuna
import pytest
from ray.tune.search import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch

from gen_models.core.config import flatten
from pipelines.config.objectives import Objective
from pipelines.config.run import defaults
from pipelines.config.search import Search, Searcher, with_objectives
from pipelines.tuning.searchers import SEARCHERS, ParetoSearch, make_searcher
from pipelines.tuning.space import domains, grid

OBJECTIVES = [Objective("val/fd", "min"), Objective("val/elbo", "max")]
KINDS: dict[Searcher, type] = {
    "tpe": OptunaSearch,
    "random": BasicVariantGenerator,
    "grid": BasicVariantGenerator,
}


def make_run(**settings: Any) -> Search:
    return replace(defaults(Search, "vae"), **settings)


def make(run: Search) -> Any:
    return make_searcher(run, domains(run))


def test_every_name_has_a_searcher() -> None:
    assert SEARCHERS.keys() == KINDS.keys() == set(get_args(Searcher))


@pytest.mark.parametrize("name", KINDS)
def test_every_name_builds(name: Searcher) -> None:
    assert type(make(make_run(searcher=name))) is KINDS[name]


def test_tpe_suggests_the_default_config_first_and_then_points_of_the_space() -> None:
    run = make_run(seed=3)
    first, second = (_suggestions(run, 2) for _ in range(2))
    assert first == second  # the seed decides
    assert first[0] == {"model.latent_dim": 16, "model.kl_weight": 1.0, "optim.lr": 1e-3}
    assert first[1] != first[0]
    for name, domain in flatten(domains(run)).items():
        assert domain.is_valid(first[1][name])
    assert _suggestions(replace(run, seed=4), 2)[1] != first[1]


def _suggestions(run: Search, num: int) -> list[dict[str, Any]]:
    """Return the first configs that TPE suggests, flat."""
    searcher = make(run)
    searcher.set_search_properties(run.metric, run.mode, domains(run))
    return [flatten(searcher.suggest(str(index))) for index in range(num)]


def test_random_search_tries_the_default_config_first() -> None:
    searcher = make(make_run(searcher="random"))
    assert [flatten(point) for point in searcher._points_to_evaluate] == [
        {"model.latent_dim": 16, "model.kl_weight": 1.0, "optim.lr": 1e-3}
    ]


def test_a_grid_is_in_the_space_and_not_in_the_searcher() -> None:
    run = make_run(searcher="grid")
    assert not make(run)._points_to_evaluate
    assert all("grid_search" in leaf for leaf in _leaves(grid(run, domains(run))))


def _leaves(content: dict[str, Any]) -> list[dict[str, Any]]:
    if "grid_search" in content:
        return [content]
    return [leaf for inner in content.values() for leaf in _leaves(inner)]


def test_optuna_s_log_level_is_the_user_s() -> None:
    before = optuna.logging.get_verbosity()
    make(make_run())
    assert optuna.logging.get_verbosity() == before


# -- several objectives -------------------------------------------------------------------------
@pytest.fixture
def searcher() -> ParetoSearch:
    run = with_objectives(make_run(), OBJECTIVES)
    found = make(run)
    assert type(found) is ParetoSearch
    found.set_search_properties(None, None, domains(run))
    return found


def report(fd: float, elbo: float, *, diverged: bool = False) -> dict[str, Any]:
    return {"val/fd": fd, "val/elbo": elbo, "diverged": int(diverged), "epoch": 1}


def values(searcher: ParetoSearch) -> list[list[float]]:
    """Return the values that Optuna was told, by trial."""
    return [trial.values for trial in searcher._ot_study.trials if trial.values]


def test_optuna_is_told_the_values_of_the_best_epoch_by_the_first_objective(
    searcher: ParetoSearch,
) -> None:
    assert searcher.suggest("a")
    searcher.on_trial_result("a", report(5.0, -40.0))
    searcher.on_trial_result("a", report(3.0, -45.0))
    searcher.on_trial_complete("a", report(4.0, -30.0))
    assert values(searcher) == [[3.0, -45.0]]


def test_the_last_epoch_counts_too(searcher: ParetoSearch) -> None:
    searcher.suggest("a")
    searcher.on_trial_result("a", report(5.0, -40.0))
    searcher.on_trial_complete("a", report(2.0, -50.0))
    assert values(searcher) == [[2.0, -50.0]]


def test_a_trial_that_diverged_has_the_worst_of_each(searcher: ParetoSearch) -> None:
    searcher.suggest("a")
    searcher.on_trial_result("a", report(1.0, -10.0))
    searcher.on_trial_complete("a", report(1e30, -45.0, diverged=True))
    assert values(searcher) == [[OBJECTIVES[0].worst, OBJECTIVES[1].worst]] == [[1e30, -1e30]]


def test_a_value_that_is_missing_counts_as_the_worst(searcher: ParetoSearch) -> None:
    searcher.suggest("a")
    searcher.on_trial_complete("a", {"val/fd": 3.0, "diverged": 0, "epoch": 1})
    assert values(searcher) == [[3.0, OBJECTIVES[1].worst]]


def test_trials_are_kept_apart(searcher: ParetoSearch) -> None:
    for name in ("a", "b"):
        searcher.suggest(name)
    searcher.on_trial_result("a", report(1.0, -10.0))
    searcher.on_trial_result("b", report(5.0, -50.0))
    searcher.on_trial_complete("b", report(6.0, -60.0))
    searcher.on_trial_complete("a", report(7.0, -70.0))
    assert values(searcher) == [[1.0, -10.0], [5.0, -50.0]]


def test_a_trial_that_failed_has_no_values(searcher: ParetoSearch) -> None:
    searcher.suggest("a")
    searcher.on_trial_result("a", report(1.0, -10.0))
    searcher.on_trial_complete("a", None, error=True)
    assert values(searcher) == []
    (trial,) = searcher._ot_study.trials
    assert trial.state == optuna.trial.TrialState.FAIL
