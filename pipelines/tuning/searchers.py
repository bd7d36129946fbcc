"""Optuna's TPE, which of several objectives learns what the Pareto front holds of a trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from ray.tune.search.optuna import OptunaSearch
from ray.tune.utils.util import flatten_dict

from pipelines.analysis.seeds import cost
from pipelines.config.run import Objective, Search
from pipelines.training.loop import WORST


class FrontSearch(OptunaSearch):
    """Optuna, told of a trial the values at its best epoch by the first objective, and not those
    of its last epoch; of one that diverged, the worst of each."""

    def __init__(
        self,
        objectives: Sequence[Objective],
        points_to_evaluate: list[dict[str, Any]],
        sampler: optuna.samplers.BaseSampler,
    ) -> None:
        super().__init__(
            metric=[metric for metric, _ in objectives],
            mode=[mode for _, mode in objectives],
            points_to_evaluate=points_to_evaluate,
            sampler=sampler,
        )
        self._objectives = objectives
        self._best: dict[str, Mapping[str, Any]] = {}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        (metric, mode), best = self._objectives[0], self._best.get(trial_id)
        if best is None or cost(result[metric], mode) < cost(best[metric], mode):
            self._best[trial_id] = result

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        if result:
            self.on_trial_result(trial_id, result)  # Tune passes a trial's last one here alone
            result = self._worst() if result["diverged"] else dict(self._best[trial_id])
        self._best.pop(trial_id, None)
        super().on_trial_complete(trial_id, result, error)

    def _worst(self) -> dict[str, Any]:
        return {name: WORST if mode == "min" else -WORST for name, mode in self._objectives}


def make_tpe(run: Search, first: Mapping[str, Any]) -> OptunaSearch:
    """TPE, which for several objectives weighs good trials by what they add to the hypervolume
    (Ozaki et al. 2022, doi:10.1613/jair.1.13188). `first`: the first trial's config."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=run.seed, multivariate=True, constant_liar=True)
    points = [flatten_dict(first, "/")]
    if run.further:
        return FrontSearch(run.objectives, points, sampler)
    return OptunaSearch(points_to_evaluate=points, sampler=sampler)  # Tune tells it the metric
