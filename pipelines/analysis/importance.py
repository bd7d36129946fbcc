"""The importance of searched settings, by Optuna's PED-ANOVA, with its uncertainty.

PED-ANOVA compares where the best trials lie along a setting with where all trials lie, so that a
searcher that has looked in one region more often than in another does not bias it (Watanabe et
al., IJCAI 2023; for settings that not every trial has: KDD 2026). The interval is that of a
bootstrap over trials.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np

from pipelines.analysis.ranges import SettingRange, as_choice

MIN_TRIALS = 8
"""Trials with a value without which nothing is computed."""
FEW_TRIALS = 50
"""Below this number the result means little: the best tenth has fewer than the five trials that
PED-ANOVA wants."""
_TOP = 0.1
_MIN_TOP = 5
_RESAMPLES = 50
_RESAMPLED_TRIALS = 100_000
"""Trials of all resamples together, at most: it bounds the time that they take."""
_INTERVAL = (0.05, 0.95)


@dataclass(frozen=True)
class SettingImportance:
    """The importance of one setting, as a share of the importances of all."""

    name: str
    share: float
    low: float
    """The 5th percentile of its share over resamples of the trials."""
    high: float
    """The 95th."""


@dataclass(frozen=True)
class Importances:
    """The importances of all searched settings."""

    settings: tuple[SettingImportance, ...]
    """The most important first."""
    trials: int
    """The trials with a value, on which it rests."""
    top: int
    """The best of these, which are compared with all."""
    resamples: int

    @property
    def is_weak(self) -> bool:
        """Whether it rests on too few trials to mean much."""
        return self.trials < FEW_TRIALS

    @property
    def names(self) -> list[str]:
        """The settings, the most important first."""
        return [each.name for each in self.settings]


def setting_importances(
    configs: Sequence[Mapping[str, Any]],
    costs: Sequence[float],
    ranges: Mapping[str, SettingRange],
    seed: int = 0,
) -> Importances | None:
    """Return how much each setting decides whether a trial is among the best.

    `configs`: of N trials, the searched settings, flat. `costs`: of N trials, small where they are
    good. `ranges`: of every setting. `seed`: of the resamples. None if fewer than `MIN_TRIALS`
    trials have a value, all values are equal, or no setting differs.
    """
    differing = {
        name: each for name, each in ranges.items() if len({str(c.get(name)) for c in configs}) > 1
    }
    if len(costs) < MIN_TRIALS or len(set(costs)) < 2 or not differing:
        return None
    top = max(ceil(_TOP * len(costs)), min(_MIN_TOP, len(costs) // 2))
    shares = _ped_anova(configs, costs, differing, top / len(costs))
    rng, num = np.random.default_rng(seed), len(costs)
    repeats = max(10, min(_RESAMPLES, _RESAMPLED_TRIALS // num))
    found = [shares(rng.integers(num, size=num)) for _ in range(repeats)]
    whole = shares(np.arange(num))
    settings = []
    for name in ranges:
        low, high = np.quantile([each.get(name, 0.0) for each in found], _INTERVAL).tolist()
        share = whole.get(name, 0.0)
        settings.append(SettingImportance(name, share, min(low, share), max(high, share)))
    settings.sort(key=lambda each: -each.share)
    return Importances(tuple(settings), num, top, repeats)


def _ped_anova(
    configs: Sequence[Mapping[str, Any]],
    costs: Sequence[float],
    ranges: Mapping[str, SettingRange],
    quantile: float,
) -> Callable[[np.ndarray[Any, Any]], Mapping[str, float]]:
    """Return the function that computes the shares of the trials with these indices."""
    import optuna  # light: a report of few trials computes no importances
    from optuna.importance import (  # light: imports scikit-learn
        PedAnovaImportanceEvaluator,
        get_param_importances,
    )

    class Resample(optuna.Study):
        """A study whose trials are given: a trial may be in it more than once."""

        chosen: list[Any]

        def get_trials(self, deepcopy: bool = True, states: Any = None) -> list[Any]:
            return self.chosen

    # One object for each setting: the evaluator groups trials by their distributions, and those
    # that are the same object need not be compared.
    kinds = {name: _distribution(each, optuna.distributions) for name, each in ranges.items()}
    trials = []
    for config, cost in zip(configs, costs, strict=True):
        params = {
            name: as_choice(config[name]) if each.values else config[name]
            for name, each in ranges.items()
            if config.get(name) is not None  # not every trial need have a setting
        }
        own = {name: kinds[name] for name in params}
        trials.append(optuna.trial.create_trial(params=params, distributions=own, value=cost))
    for number, trial in enumerate(trials):
        trial._trial_id = number  # the evaluator tells trials apart by it
    storage, verbosity = optuna.storages.InMemoryStorage(), optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], "report")
    finally:
        optuna.logging.set_verbosity(verbosity)
    study = Resample("report", storage)
    evaluator = PedAnovaImportanceEvaluator(target_quantile=quantile)

    def shares(indices: np.ndarray[Any, Any]) -> Mapping[str, float]:
        study.chosen = [trials[index] for index in indices]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of settings that few trials have
            found: dict[str, float] = get_param_importances(study, evaluator=evaluator)
        return found

    return shares


def _distribution(each: SettingRange, distributions: Any) -> Any:
    """Return a range as one of Optuna's distributions."""
    if each.values:
        return distributions.CategoricalDistribution([as_choice(value) for value in each.values])
    kind = distributions.IntDistribution if each.integer else distributions.FloatDistribution
    return kind(each.lower, each.upper, log=each.log)
