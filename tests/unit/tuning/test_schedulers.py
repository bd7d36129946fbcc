"""Schedulers: every name builds, with the budget of its search."""

from dataclasses import replace
from typing import Any, get_args

import pytest
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    PopulationBasedTraining,
    TrialScheduler,
)

from pipelines.config.objectives import Objective
from pipelines.config.run import defaults
from pipelines.config.search import Scheduler, Search, with_objectives
from pipelines.tuning.schedulers import SCHEDULERS, make_scheduler
from pipelines.tuning.space import domains

KINDS: dict[Scheduler, type[TrialScheduler]] = {
    "asha": AsyncHyperBandScheduler,
    "hyperband": HyperBandScheduler,
    "pbt": PopulationBasedTraining,
    "fifo": FIFOScheduler,
}


def make_run(**settings: Any) -> Search:
    return replace(
        defaults(Search, "vae"), epochs=27, grace_period=3, reduction_factor=3, **settings
    )


def make(run: Search) -> Any:
    return make_scheduler(run, domains(run))


def test_every_name_has_a_scheduler() -> None:
    assert SCHEDULERS.keys() == KINDS.keys() == set(get_args(Scheduler))


@pytest.mark.parametrize("name", KINDS)
def test_every_name_builds(name: Scheduler) -> None:
    scheduler = make(make_run(scheduler=name))
    assert type(scheduler) is KINDS[name]
    # Tune sets the metric; the schedulers accept it.
    accepted = scheduler.set_search_properties("val/nll/iw8", "min")
    assert accepted


def test_the_default_ranks_by_the_only_objective() -> None:
    assert type(make(make_run())) is AsyncHyperBandScheduler
    run = with_objectives(make_run(), [Objective("val/elbo", "max"), Objective("val/fd", "min")])
    assert type(make(run)) is FIFOScheduler


@pytest.mark.parametrize("name", ["asha", "hyperband", "pbt"])
def test_schedulers_count_the_epochs_that_are_reported(name: Scheduler) -> None:
    assert make(make_run(scheduler=name))._time_attr == "epoch"


def test_asha_halves_at_its_rungs() -> None:
    scheduler = make(make_run(scheduler="asha"))
    (bracket,) = scheduler._brackets
    rungs = sorted(milestone for milestone, _ in bracket._rungs)
    assert rungs == [3, 9, 27]  # of the trials that get so far, one in three goes on
    assert scheduler._max_t == 27


def test_hyperband_s_longest_bracket_has_the_search_s_epochs() -> None:
    scheduler = make(make_run(scheduler="hyperband"))
    assert scheduler._max_t_attr == 27 and scheduler._eta == 3


def test_population_based_training_perturbs_what_is_continuous() -> None:
    scheduler = make(make_run(scheduler="pbt"))
    mutated = scheduler._hyperparam_mutations
    assert set(mutated) == {"model", "optim"}
    assert set(mutated["model"]) == {"kl_weight"} and set(mutated["optim"]) == {"lr"}
    assert scheduler._perturbation_interval == 3
