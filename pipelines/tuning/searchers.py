"""Searchers, by the name that `--searcher` takes: Tune's own, and Optuna's TPE."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from ray.tune.search import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch
from ray.tune.utils.util import flatten_dict

from pipelines.config.objectives import Objective
from pipelines.config.search import Search, Searcher
from pipelines.tuning.space import default_point

AnySearcher = Any
"""Ray Tune's `Searcher` or `SearchAlgorithm`."""


class ParetoSearch(OptunaSearch):
    """Optuna over several objectives. A trial's values are those of its best epoch by the first
    objective, and not those of its last epoch. A value that is missing there, as each is of a
    trial that diverged, counts as the worst."""

    def __init__(
        self,
        objectives: Sequence[Objective],
        points_to_evaluate: list[dict[str, Any]],
        sampler: optuna.samplers.BaseSampler,
    ) -> None:
        super().__init__(
            metric=[objective.metric for objective in objectives],
            mode=[objective.mode for objective in objectives],
            points_to_evaluate=points_to_evaluate,
            sampler=sampler,
        )
        self._objectives = objectives
        self._best: dict[str, Mapping[str, Any]] = {}

    def restore(self, checkpoint_path: str) -> None:
        """Restore the state of a search that is resumed, also one that version 0.1 saved."""
        super().restore(checkpoint_path)
        pairs = [each for each in self._objectives if isinstance(each, tuple)]
        self._objectives = [Objective(*pair) for pair in pairs] or self._objectives

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        first, best = self._objectives[0], self._best.get(trial_id)
        if best is None or first.better(result[first.metric], best[first.metric]):
            self._best[trial_id] = result

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        if result:
            self.on_trial_result(trial_id, result)  # Tune passes a trial's last result here only
            worst = {objective.metric: objective.worst for objective in self._objectives}
            result = worst | ({} if result["diverged"] else dict(self._best[trial_id]))
        self._best.pop(trial_id, None)
        super().on_trial_complete(trial_id, result, error)


def _tpe(run: Search, searched: Mapping[str, Any]) -> AnySearcher:
    """Optuna's TPE; of several objectives it weighs good trials by what they add to the
    hypervolume (Ozaki et al. 2022, doi:10.1613/jair.1.13188)."""
    sampler = optuna.samplers.TPESampler(seed=run.seed, multivariate=True, constant_liar=True)
    points = [flatten_dict(default_point(run, searched), "/")]
    if run.further:
        return ParetoSearch(run.objectives, points, sampler)
    return OptunaSearch(points_to_evaluate=points, sampler=sampler)  # Tune sets the metric


def _random(run: Search, searched: Mapping[str, Any]) -> AnySearcher:
    first = default_point(run, searched)
    return BasicVariantGenerator(points_to_evaluate=[first], random_state=run.seed)


def _grid(run: Search, searched: Mapping[str, Any]) -> AnySearcher:
    return BasicVariantGenerator()  # the space is a grid already: pipelines.tuning.space.grid


SEARCHERS: dict[Searcher, Callable[[Search, Mapping[str, Any]], AnySearcher]] = {
    "tpe": _tpe,
    "random": _random,
    "grid": _grid,
}
"""Makes a searcher from the search's config and its domains. The first trial has the family's
default config."""


def make_searcher(run: Search, searched: Mapping[str, Any]) -> AnySearcher:
    """Return the searcher of a search, which chooses the configs of its trials."""
    return SEARCHERS[run.chosen_searcher](run, searched)


FrontSearch = ParetoSearch
"""The name of the class in version 0.1, by which Tune's state of an old search refers to it."""
