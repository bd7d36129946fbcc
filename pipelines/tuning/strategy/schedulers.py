"""Tune's schedulers, by the name that `--scheduler` takes.

They count the epochs that a trial reports: Tune's own count starts anew when a search is resumed.
With several metrics they rank trials by the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)

from pipelines.config.search import Scheduler, Search
from pipelines.tuning.strategy.searchers import RecordedTrial
from pipelines.tuning.strategy.space import continuous, mutations

_EPOCH = "epoch"
"""The reported metric that counts epochs."""


def _asha(run: Search) -> TrialScheduler:
    return AsyncHyperBandScheduler(
        time_attr=_EPOCH,
        metric=run.metric,
        mode=run.mode,
        max_t=run.epochs,
        grace_period=run.grace_period,
        reduction_factor=run.reduction_factor,
    )


def _hyperband(run: Search) -> TrialScheduler:
    return HyperBandScheduler(
        time_attr=_EPOCH,
        metric=run.metric,
        mode=run.mode,
        max_t=run.epochs,
        reduction_factor=run.reduction_factor,
    )


def _median(run: Search) -> TrialScheduler:
    """Golovin et al. 2017, doi:10.1145/3097983.3098043, section 3.2.2. It pauses no trial, which
    only fused ones can be."""
    return MedianStoppingRule(
        time_attr=_EPOCH,
        metric=run.metric,
        mode=run.mode,
        grace_period=run.grace_period,
        min_time_slice=float("inf"),
    )


def _pbt(run: Search) -> TrialScheduler:
    return PopulationBasedTraining(
        time_attr=_EPOCH,
        metric=run.metric,
        mode=run.mode,
        perturbation_interval=run.grace_period,
        hyperparam_mutations=mutations(run.searched),
        log_config=False,
    )


def _pb2(run: Search) -> TrialScheduler:
    """Parker-Holder et al. 2020, arXiv:2002.02518."""
    from ray.tune.schedulers.pb2 import PB2  # light: imports scikit-learn

    bounds = {name: [each.lower, each.upper] for name, each in continuous(run.searched).items()}
    return PB2(
        time_attr=_EPOCH,
        metric=run.metric,
        mode=run.mode,
        perturbation_interval=run.grace_period,
        hyperparam_bounds=bounds,
        log_config=False,
    )


def _fifo(run: Search) -> TrialScheduler:
    return FIFOScheduler()


SCHEDULERS: dict[Scheduler, Callable[[Search], TrialScheduler]] = {
    "asha": _asha,
    "hyperband": _hyperband,
    "median": _median,
    "pbt": _pbt,
    "pb2": _pb2,
    "fifo": _fifo,
}
"""Makes a scheduler from the search's config."""


def make_scheduler(run: Search, recorded: Sequence[RecordedTrial] = ()) -> TrialScheduler:
    """Return the scheduler of a search, which stops, pauses or perturbs its trials. `recorded`:
    trials whose epochs it shall know, where Tune begins anew: asha and median compare further
    trials with them."""
    scheduler = SCHEDULERS[run.chosen_scheduler](run)
    if isinstance(scheduler, (AsyncHyperBandScheduler, MedianStoppingRule)):
        for trial in recorded:
            if trial.has_ended:
                _replay(scheduler, run, trial)
    return scheduler


@dataclass(frozen=True, eq=False)
class _EndedTrial:
    """What a scheduler needs of a trial that has ended."""

    trial_id: str


def _replay(scheduler: TrialScheduler, run: Search, recorded: RecordedTrial) -> None:
    """Report the epochs of a recorded trial to a scheduler."""
    trial: Any = _EndedTrial(recorded.trial_id)
    controller: Any = None  # which these schedulers ask nothing
    scheduler.on_trial_add(controller, trial)
    result: dict[str, Any] = {}
    for epoch, metrics in recorded.curve:
        if run.metric not in metrics:
            continue
        result = {_EPOCH: epoch, run.metric: metrics[run.metric]}
        decision = scheduler.on_trial_result(controller, trial, result)
        if decision == TrialScheduler.STOP and isinstance(scheduler, MedianStoppingRule):
            break  # it takes no more results of a trial that it stops, now that it knows others
    if result:
        scheduler.on_trial_complete(controller, trial, result)
