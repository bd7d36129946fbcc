"""Schedulers: every name builds, with the budget of its search."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)
from ray.tune.schedulers.pb2 import PB2

from pipelines.config.objectives import Objective
from pipelines.config.run import defaults
from pipelines.config.search import Scheduler, Search, with_objectives
from pipelines.tuning.strategy.schedulers import SCHEDULERS, make_scheduler
from pipelines.tuning.strategy.searchers import RecordedTrial

METRIC = "val/nll"
KINDS: dict[Scheduler, type[TrialScheduler]] = {
    "asha": AsyncHyperBandScheduler,
    "hyperband": HyperBandScheduler,
    "median": MedianStoppingRule,
    "pbt": PopulationBasedTraining,
    "pb2": PB2,
    "fifo": FIFOScheduler,
}


def make_run(**settings: Any) -> Search:
    return replace(
        defaults(Search, "vae"), epochs=27, grace_period=3, reduction_factor=3, **settings
    )


def make(run: Search) -> Any:
    return make_scheduler(run)


def test_every_name_has_a_scheduler() -> None:
    assert SCHEDULERS.keys() == KINDS.keys() == set(get_args(Scheduler))


@pytest.mark.parametrize("name", KINDS)
def test_every_name_builds(name: Scheduler) -> None:
    scheduler = make(make_run(scheduler=name))
    assert type(scheduler) is KINDS[name]
    assert scheduler.set_search_properties(None, None)  # it has the search's metric


def test_asha_stops_by_the_first_of_several_metrics() -> None:
    objectives = [Objective("val/elbo", "max"), Objective("val/fd", "min")]
    scheduler = make(with_objectives(make_run(scheduler="asha"), objectives))
    assert scheduler._metric == "val/elbo" and scheduler.metric == "val/elbo"


def recorded(name: str, values: list[float]) -> RecordedTrial:
    curve = [(epoch, {METRIC: value}) for epoch, value in enumerate(values, 1)]
    return RecordedTrial(name, {}, {}, True, curve)


def test_asha_s_rungs_hold_the_trials_that_are_recorded() -> None:
    """A further trial at the first rung is stopped because earlier ones were better there."""
    known = [recorded(f"t{i}", [float(i)] * 3) for i in range(1, 7)]
    run = make_run(scheduler="asha")
    controller: Any = None

    def decision(scheduler: Any, value: float) -> str:
        trial: Any = SimpleNamespace(trial_id="new")
        scheduler.on_trial_add(controller, trial)
        result = {"epoch": 3, run.metric: value}
        return str(scheduler.on_trial_result(controller, trial, result))

    assert decision(make_scheduler(run, known), 5.0) == TrialScheduler.STOP
    assert decision(make_scheduler(run, known), 1.0) == TrialScheduler.CONTINUE
    assert decision(make_scheduler(run), 5.0) == TrialScheduler.CONTINUE


def test_the_median_counts_the_trials_that_are_recorded() -> None:
    known = [recorded(f"t{i}", [float(i)] * 4) for i in range(1, 7)]
    run = make_run(scheduler="median")
    scheduler: Any = make_scheduler(run, known)
    controller: Any = None
    trial: Any = object()
    scheduler.on_trial_add(controller, trial)
    decisions = [
        scheduler.on_trial_result(controller, trial, {"epoch": epoch, run.metric: 6.0})
        for epoch in range(1, 4)
    ]
    before_the_grace_period_ends = [TrialScheduler.CONTINUE] * 2
    assert decisions == [*before_the_grace_period_ends, TrialScheduler.STOP]


def test_the_default_ranks_by_the_only_objective() -> None:
    assert type(make(make_run())) is AsyncHyperBandScheduler
    run = with_objectives(make_run(), [Objective("val/elbo", "max"), Objective("val/fd", "min")])
    assert type(make(run)) is FIFOScheduler


@pytest.mark.parametrize("name", ["asha", "hyperband", "median", "pbt", "pb2"])
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
    assert set(mutated) == {"model.kl_weight", "optim.lr"}
    assert scheduler._perturbation_interval == 3
