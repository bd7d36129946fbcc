"""Tune's schedulers, by the name that `--scheduler` takes.

They count the epochs that a trial reports: Tune's own count starts anew when a search is resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    PopulationBasedTraining,
    TrialScheduler,
)

from pipelines.config.search import Scheduler, Search
from pipelines.tuning.space import continuous_domains

_EPOCH = "epoch"
"""The reported metric that counts epochs."""


def _asha(run: Search, searched: Mapping[str, Any]) -> TrialScheduler:
    return AsyncHyperBandScheduler(
        time_attr=_EPOCH,
        max_t=run.epochs,
        grace_period=run.grace_period,
        reduction_factor=run.reduction_factor,
    )


def _hyperband(run: Search, searched: Mapping[str, Any]) -> TrialScheduler:
    return HyperBandScheduler(
        time_attr=_EPOCH, max_t=run.epochs, reduction_factor=run.reduction_factor
    )


def _pbt(run: Search, searched: Mapping[str, Any]) -> TrialScheduler:
    return PopulationBasedTraining(
        time_attr=_EPOCH,
        perturbation_interval=run.grace_period,
        hyperparam_mutations=continuous_domains(searched),
        log_config=False,
    )


def _fifo(run: Search, searched: Mapping[str, Any]) -> TrialScheduler:
    return FIFOScheduler()


SCHEDULERS: dict[Scheduler, Callable[[Search, Mapping[str, Any]], TrialScheduler]] = {
    "asha": _asha,
    "hyperband": _hyperband,
    "pbt": _pbt,
    "fifo": _fifo,
}
"""Makes a scheduler from the search's config and its domains (`pipelines.tuning.space`)."""


def make_scheduler(run: Search, searched: Mapping[str, Any]) -> TrialScheduler:
    """Return the scheduler of a search, which stops, pauses or perturbs its trials."""
    return SCHEDULERS[run.chosen_scheduler](run, searched)
