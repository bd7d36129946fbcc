"""Searchers, by the name that `--searcher` takes: Tune's own, and Optuna's TPE; and the searcher
of a search whose state Tune has lost, which goes on with the trials that are recorded."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter, SearchAlgorithm
from ray.tune.search.optuna import OptunaSearch
from ray.tune.search.search_generator import SearchGenerator
from ray.tune.utils.util import flatten_dict

from gen_models.core.config import flatten
from pipelines.config.objectives import Objective
from pipelines.config.run import as_train
from pipelines.config.search import Search, Searcher
from pipelines.config.serialization import with_settings
from pipelines.store.files import LOCAL
from pipelines.training.run_info import param_values
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


def _tpe(
    run: Search, searched: Mapping[str, Any], points: list[dict[str, Any]] | None = None
) -> AnySearcher:
    """Optuna's TPE; of several objectives it weighs good trials by what they add to the
    hypervolume (Ozaki et al. 2022, doi:10.1613/jair.1.13188). `points`: what it tries first; by
    default the config's own."""
    sampler = optuna.samplers.TPESampler(seed=run.seed, multivariate=True, constant_liar=True)
    if points is None:
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


# -- a search that goes on without Tune's state ---------------------------------------------------
@dataclass(frozen=True)
class RecordedTrial:
    """A trial that is recorded, and that Tune does not know."""

    trial_id: str
    params: Mapping[str, Any]
    """The searched settings with which it started, flat, as its `RunInfo` has them."""
    point: Mapping[str, Any]
    """The same in the shape of the searched domains."""
    has_ended: bool
    """Whether it has ended for good."""
    values: Sequence[float] | None
    """The objectives at its last epoch that counts; None where one is missing."""


class ContinuedSearch(SearchAlgorithm):
    """Gives a search's trials to Tune anew, but for those that have ended; one that has not gets
    the id that it has had, so that it goes on from its checkpoint.

    Tune's own searchers draw the configs of the search again, in the same order. TPE, whose
    choices depend on results, is told of those that are recorded.
    """

    def __init__(
        self,
        run: Search,
        searched: Mapping[str, Any],
        recorded: Sequence[RecordedTrial],
        concurrent: int,
    ) -> None:
        """`concurrent`: trials at a time."""
        self._run, self._recorded = run, recorded
        self._draws_again = run.chosen_searcher != "tpe"
        self._ids: dict[str, str] = {}  # the searcher's own id, by the id that a trial has had
        if self._draws_again:
            self._inner: SearchAlgorithm = make_searcher(run, searched)
            return
        ended = [trial for trial in recorded if trial.has_ended]
        points = [flatten_dict(t.point, "/") for t in recorded if not t.has_ended]
        self._optuna = _tpe(run, searched, points if recorded else None)
        self._inner = SearchGenerator(ConcurrencyLimiter(self._optuna, concurrent))
        self._results = [(flatten_dict(t.point, "/"), t.values) for t in ended if t.values]

    @property
    def num_samples(self) -> int:
        """Trials that the searcher has to give, of which those that have ended are left out."""
        ended = sum(trial.has_ended for trial in self._recorded)
        return self._run.trials - (0 if self._draws_again else ended)

    def next_trial(self) -> Any:
        """Return Tune's next trial; None if there is none now."""
        while (trial := self._inner.next_trial()) is not None:
            known = self._find(trial.config)
            if known is None:
                return trial
            if not known.has_ended:
                self._ids[known.trial_id] = trial.trial_id
                trial.trial_id = known.trial_id
                return trial
            self._inner.on_trial_complete(trial.trial_id)
        return None

    def _find(self, config: Mapping[str, Any]) -> RecordedTrial | None:
        """Return the recorded trial of a config that has no trial of Tune's yet. TPE may choose a
        config again that has ended."""
        params = searched_params(self._run, config)
        for trial in self._recorded:
            is_free = trial.trial_id not in self._ids and (
                self._draws_again or not trial.has_ended
            )
            if is_free and trial.params == params:
                if trial.has_ended:
                    self._ids[trial.trial_id] = ""
                return trial
        return None

    # -- passed on to the searcher ------------------------------------------------------------
    @property
    def metric(self) -> Any:
        return self._inner.metric

    @property
    def total_samples(self) -> int:
        return int(self._inner.total_samples)

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        return bool(self._inner.set_search_properties(metric, mode, config, **spec))

    def add_configurations(self, experiments: Any) -> None:
        if not self._draws_again:
            for point, values in self._results:
                value = list(values) if self._run.further else values[0]
                with suppress(ValueError):  # a point outside the space, such as the default
                    self._optuna.add_evaluated_point(point, value)
        self._inner.add_configurations(experiments)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._inner.on_trial_result(self._ids.get(trial_id, trial_id), result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self._inner.on_trial_complete(self._ids.get(trial_id, trial_id), result, error)

    def is_finished(self) -> bool:
        return bool(self._inner.is_finished())

    def set_finished(self) -> None:
        self._inner.set_finished()

    def has_checkpoint(self, dirpath: str) -> bool:
        return bool(self._inner.has_checkpoint(dirpath))

    def save_to_dir(self, dirpath: str, session_str: str = "", **kwargs: Any) -> None:
        self._inner.save_to_dir(dirpath, session_str=session_str)
        path = Path(dirpath, f"continued-state-{session_str}.json")
        LOCAL.write(path, json.dumps(self._ids))

    def restore_from_dir(self, dirpath: str) -> None:
        self._inner.restore_from_dir(dirpath)
        newest = max(Path(dirpath).glob("continued-state-*.json"))
        self._ids = json.loads(newest.read_text())


def searched_params(run: Search, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trial's searched settings as its `RunInfo` has them, flat. `config`: as Tune has
    them."""
    params = param_values(as_train(with_settings(run, config)))
    return {name: params[name] for name in flatten(config)}


FrontSearch = ParetoSearch
"""The name of the class in version 0.1, by which Tune's state of an old search refers to it."""
