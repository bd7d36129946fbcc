"""Searchers, by the name that `--searcher` takes: Optuna's samplers, which choose the points of
the space, and what they learn of each trial.

Every searcher is Tune's `OptunaSearch` with another sampler, so that all of them know conditions,
required points, points that are given, and results of earlier trials. `RecordedSearch` stands
between it and Tune: it gives a search that begins anew, or is extended, the trials that the
journals hold.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial
from ray.tune.search import ConcurrencyLimiter, SearchAlgorithm
from ray.tune.search.optuna import OptunaSearch
from ray.tune.search.search_generator import SearchGenerator

from gen_models.core.config import flatten, nest
from pipelines.config.run import as_train
from pipelines.config.search import INDEPENDENT, Search, Searcher
from pipelines.config.serialization import with_settings
from pipelines.config.space import Choice, Domain, SearchSpace, as_text
from pipelines.store.files import LOCAL
from pipelines.training.run_info import param_values
from pipelines.tuning import callbacks
from pipelines.tuning.strategy.space import (
    default_point,
    grid_points,
    is_allowed,
    refusal,
    searched_space,
    value_of,
)

_log = logging.getLogger(__name__)
STATE_FILE = "recorded-state-{}.json"
"""Of `RecordedSearch`, in the folder of Tune's state."""
_APART = 0x9E3779B1
"""Spreads seeds that follow each other."""
_ENQUEUED = "enqueued"
"""Marks the trials of Optuna that no sampler has chosen."""
_MOST_REFUSED = 10_000
"""Points in a row that may not satisfy what is required, before the search gives up."""
Curve = Sequence[tuple[int, Mapping[str, float]]]
"""Epochs of a trial with their metrics, ascending."""


# -- what a sampler learns of a trial -------------------------------------------------------------
@dataclass(frozen=True)
class Lesson:
    """What Optuna is told of a trial that has ended."""

    state: TrialState
    values: list[float] | None
    """The objectives at the best epoch by the first of them; None if they are not told."""
    reported: Mapping[int, float]
    """The best value so far, by epoch; {} with several objectives."""


def lesson(run: Search, curve: Curve, *, diverged: bool, failed: bool = False) -> Lesson:
    """Return what Optuna is told of a trial.

    A trial that ran all its epochs has the values of its best epoch, by which trials are ranked,
    and not those of its last. One that was stopped early is told as pruned, with its best value so
    far at each epoch: TPE compares it with others that came as far, and never with the values of
    trials that were trained longer. With several objectives, which no sampler prunes by, it has
    its best values. A trial that diverged has an infinite value, which samplers know to set apart,
    one that failed none.
    """
    if failed:
        return Lesson(TrialState.FAIL, None, {})
    worst = {each.metric: -inf if each.mode == "max" else inf for each in run.objectives}
    if diverged:
        return Lesson(TrialState.COMPLETE, list(worst.values()), {})
    first, best, reported = run.objectives[0], None, dict[int, float]()
    for epoch, metrics in curve:
        values = worst | {name: metrics[name] for name in worst if name in metrics}
        if best is None or first.better(values[first.metric], best[first.metric]):
            best = values
        reported[epoch] = best[first.metric]
    if best is None:
        return Lesson(TrialState.PRUNED, None, {})
    several, stopped = len(run.objectives) > 1, curve[-1][0] < run.epochs
    if stopped and not several:
        return Lesson(TrialState.PRUNED, None, reported)
    return Lesson(TrialState.COMPLETE, list(best.values()), {} if several else reported)


_USES_PRUNED: tuple[Searcher, ...] = ("tpe", "cmaes")
"""The searchers whose samplers use pruned trials."""


# -- distributions --------------------------------------------------------------------------------
def distribution(domain: Domain) -> BaseDistribution:
    """Return Optuna's distribution of a domain."""
    if isinstance(domain, Choice):
        return CategoricalDistribution([as_text(value) for value in domain.values])
    if domain.integer:
        step = int(domain.step or 1)
        return IntDistribution(int(domain.lower), int(domain.upper), log=domain.log, step=step)
    return FloatDistribution(domain.lower, domain.upper, log=domain.log, step=domain.step)


@dataclass(frozen=True)
class _Tree:
    """A conditional space, as Optuna's define-by-run function."""

    space: SearchSpace

    def __call__(self, trial: Trial) -> None:
        values: dict[str, Any] = {}
        for setting in self.space:
            if not setting.is_active(values):
                continue
            raw = _suggest(trial, setting.name, distribution(setting.domain))
            values[setting.name] = value_of(setting.domain, raw)


def _suggest(trial: Trial, name: str, domain: BaseDistribution) -> Any:
    match domain:
        case CategoricalDistribution():
            return trial.suggest_categorical(name, domain.choices)
        case IntDistribution():
            return trial.suggest_int(
                name, domain.low, domain.high, log=domain.log, step=domain.step
            )
        case FloatDistribution():
            return trial.suggest_float(
                name, domain.low, domain.high, log=domain.log, step=domain.step
            )
    raise AssertionError(domain)


# -- the searcher ---------------------------------------------------------------------------------
class SpaceSearch(OptunaSearch):
    """Optuna's samplers over the space of a search.

    A point that does not satisfy what the search requires is drawn again, and is no trial.
    """

    def __init__(
        self,
        run: Search,
        sampler: BaseSampler,
        points: Sequence[Mapping[str, Any]] = (),
        drawn: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """`points`: what is tried first, flat. `drawn`: the parameters of trials whose points the
        sampler will draw once more; they are passed over."""
        self._drawn = list(drawn)
        self._run, self._searched = run, searched_space(run)
        distributions = {each.name: distribution(each.domain) for each in self._searched}
        self._distributions = distributions
        metrics = [objective.metric for objective in run.objectives]
        modes = [objective.mode for objective in run.objectives]
        self._curves: dict[str, list[tuple[int, Mapping[str, float]]]] = {}
        super().__init__(
            space=_Tree(self._searched) if self._searched.is_conditional else distributions,
            metric=metrics if len(metrics) > 1 else metrics[0],
            mode=list(modes) if len(modes) > 1 else modes[0],
            sampler=sampler,
        )
        for point in points:
            self.enqueue(point)

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        """Accept what Tune says: the search's own config has it."""
        return True

    def enqueue(self, point: Mapping[str, Any]) -> None:
        """Try a point before the sampler chooses another."""
        self._ot_study.enqueue_trial(dict(point), user_attrs={_ENQUEUED: True})

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """Return the next point, flat."""
        num_refused = 0
        while num_refused < _MOST_REFUSED:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                warnings.filterwarnings("ignore", "Clip non-finite values")  # trials that diverged
                super().suggest(trial_id)
            trial = self._ot_trials[trial_id]
            if not is_allowed(self._run, self._searched, trial.params):
                num_refused += 1
            elif _ENQUEUED in trial.user_attrs or not self._was_drawn(trial.params):
                return dict(trial.params)
            del self._ot_trials[trial_id]
            self._ot_study.tell(trial, state=TrialState.FAIL)
        required = " and ".join(condition.text for condition in self._run.required)
        raise RuntimeError(f"none of {_MOST_REFUSED} points in a row satisfies {required}")

    def _was_drawn(self, point: Mapping[str, Any]) -> bool:
        """Return whether a trial has had this point, and take the trial off the list: a sampler
        may draw a point twice."""
        params = searched_params(self._run, point) if self._drawn else {}
        if params not in self._drawn:
            return False
        self._drawn.remove(params)
        return True

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Note an epoch."""
        curve = self._curves.setdefault(trial_id, [])
        if not curve or curve[-1][0] < result["epoch"]:  # a resumed trial repeats a report
            curve.append((result["epoch"], self._objectives_of(result)))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell Optuna of a trial that has ended."""
        if result and result.get("epoch"):
            self.on_trial_result(trial_id, result)  # Tune passes a trial's last result here only
        diverged = bool(result and result.get("diverged"))
        curve = self._curves.pop(trial_id, [])
        self.teach(trial_id, lesson(self._run, curve, diverged=diverged, failed=error))

    def teach(self, trial_id: str, learned: Lesson) -> None:
        """Tell Optuna what it learns of one of its trials."""
        trial, learned = self._ot_trials[trial_id], self._usable(learned)
        for epoch, value in learned.reported.items():
            trial.report(value, epoch)
        self._ot_study.tell(trial, learned.values, state=learned.state)

    def forget(self, trial_id: str) -> None:
        """Tell Optuna nothing of one of its trials, which counts elsewhere."""
        self._curves.pop(trial_id, None)
        self._ot_study.tell(self._ot_trials[trial_id], state=TrialState.FAIL)

    def add(self, point: Mapping[str, Any], learned: Lesson) -> bool:
        """Add a trial that was run before; return False if its point is none of the space."""
        active = {each.name for each in self._searched.active(self._decoded(point))}
        try:
            self._ot_study.add_trial(self._frozen(point, self._usable(learned), active))
        except (KeyError, ValueError):  # outside the space, such as a default config
            return False
        return True

    def _usable(self, learned: Lesson) -> Lesson:
        """Return a lesson as the sampler can use it.

        One that cannot use pruned trials is told the value that a stopped trial would have come
        to: its own, bettered as much as the median of the trials that ran from there to their end.
        """
        is_pruned = learned.state == TrialState.PRUNED and bool(learned.reported)
        if not is_pruned or self._run.chosen_searcher in _USES_PRUNED:
            return learned
        epoch, last = max(learned.reported), self._run.epochs
        curves = [trial.intermediate_values for trial in self._ot_study.get_trials(deepcopy=False)]
        gains = [curve[last] - curve[epoch] for curve in curves if {epoch, last} <= curve.keys()]
        value = learned.reported[epoch] + (median(gains) if gains else 0.0)
        return replace(learned, state=TrialState.COMPLETE, values=[value])

    def _frozen(self, point: Mapping[str, Any], learned: Lesson, active: set[str]) -> FrozenTrial:
        params = {name: point[name] for name in self._distributions if name in active}
        return create_trial(
            state=learned.state,
            values=learned.values,
            params=params,
            distributions={name: self._distributions[name] for name in params},
            intermediate_values=dict(learned.reported),
        )

    def _decoded(self, point: Mapping[str, Any]) -> dict[str, Any]:
        known = self._searched.by_name
        return {n: value_of(known[n].domain, raw) for n, raw in point.items() if n in known}

    def _objectives_of(self, result: Mapping[str, Any]) -> dict[str, float]:
        names = [objective.metric for objective in self._run.objectives]
        return {name: float(result[name]) for name in names if name in result}


def _tpe(run: Search, seed: int) -> BaseSampler:
    """Of several objectives it weighs good trials by what they add to the hypervolume (Ozaki et
    al. 2022, doi:10.1613/jair.1.13188). Settings under one condition form a group."""
    group = run.searched.is_conditional
    return optuna.samplers.TPESampler(
        seed=seed, multivariate=True, constant_liar=True, group=group
    )


def _random(run: Search, seed: int) -> BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


def _qmc(run: Search, seed: int) -> BaseSampler:
    """A scrambled Sobol sequence (Bergstra & Bengio 2012, section 5)."""
    return optuna.samplers.QMCSampler(
        seed=seed,
        scramble=True,
        warn_asynchronous_seeding=False,
        warn_independent_sampling=False,
    )


def _gp(run: Search, seed: int) -> BaseSampler:
    """Gaussian processes with a Matérn kernel and log expected improvement."""
    return optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)


def _cmaes(run: Search, seed: int) -> BaseSampler:
    """CMA-ES (Hansen & Ostermeier 2001); choices are drawn at random."""
    return optuna.samplers.CmaEsSampler(
        seed=seed, consider_pruned_trials=True, warn_independent_sampling=False
    )


def _nsga2(run: Search, seed: int) -> BaseSampler:
    """NSGA-II (Deb et al. 2002, doi:10.1109/4235.996017)."""
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=_population(run))


def _nsga3(run: Search, seed: int) -> BaseSampler:
    """NSGA-III (Deb & Jain 2014, doi:10.1109/TEVC.2013.2281535)."""
    return optuna.samplers.NSGAIIISampler(seed=seed, population_size=_population(run))


def _population(run: Search) -> int:
    """Return a population that evolves for several generations within the trials of a search."""
    return max(4, min(50, run.trials // 5))


SEARCHERS: dict[Searcher, Callable[[Search, int], BaseSampler]] = {
    "tpe": _tpe,
    "random": _random,
    "grid": _random,  # every point is given; the sampler chooses none
    "qmc": _qmc,
    "gp": _gp,
    "cmaes": _cmaes,
    "nsga2": _nsga2,
    "nsga3": _nsga3,
}
"""Makes a sampler from the search's config and a seed."""


def make_searcher(
    run: Search,
    points: Sequence[Mapping[str, Any]] | None = None,
    drawn: Sequence[Mapping[str, Any]] = (),
    num_known: int = 0,
) -> SpaceSearch:
    """Return the searcher of a search, which chooses the configs of its trials.

    `points`: what it tries first; by default `first_points`. `drawn`: as `SpaceSearch` has it.
    `num_known`: trials that are known, if it draws other points than those.
    """
    if points is None:
        points = first_points(run)
    seed = (run.seed + _APART * num_known) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = SEARCHERS[run.chosen_searcher](run, seed)
    return SpaceSearch(run, sampler, points, drawn)


def first_points(run: Search) -> list[dict[str, Any]]:
    """Return what a new search tries first: its own config, or all points of the grid."""
    if run.chosen_searcher == "grid":
        return grid_points(run)
    first = default_point(run, run.searched)
    is_one = refusal(run, first) is None and is_allowed(run, run.searched, first)
    return [first] if is_one else []


# -- trials that are recorded ---------------------------------------------------------------------
@dataclass(frozen=True)
class RecordedTrial:
    """A trial that is recorded, and that Tune does not know."""

    trial_id: str
    params: Mapping[str, Any]
    """The searched settings with which it started, flat, as its `RunInfo` has them."""
    point: Mapping[str, Any]
    """The same as Tune has them."""
    has_ended: bool
    """Whether it has ended for good."""
    curve: Curve
    """Its epochs that count."""
    diverged: bool = False


class RecordedSearch(SearchAlgorithm):
    """Gives a search's trials to Tune, but for those that have ended. Those that are recorded and
    have not ended come first, with the ids that they have had, so that they go on from their
    checkpoints.

    A searcher whose choices depend on no results draws the points of the search again, in the same
    order, and passes over those that trials have had; another one is told of the trials.
    """

    def __init__(
        self,
        run: Search,
        recorded: Sequence[RecordedTrial],
        concurrent: int,
        search_id: str,
        earlier: Sequence[tuple[Mapping[str, Any], Lesson]] = (),
    ) -> None:
        """`concurrent`: trials at a time. `earlier`: points of earlier searches, and what they
        teach."""
        self._run, self._recorded, self._search_id = run, recorded, search_id
        self._taken: set[str] = set()  # files with points that a person gave
        self._ids: dict[str, str] = {}  # the searcher's own id, by the id that a trial has had
        ended = [trial for trial in recorded if trial.has_ended]
        self._num_ended = len(ended)
        points = self._first_points([point for point, _ in earlier])
        drawn, num_known = [trial.params for trial in recorded], len(earlier)
        if run.chosen_searcher not in INDEPENDENT:
            drawn, num_known = [], num_known + len(recorded)
        self.searcher = make_searcher(run, points, drawn, num_known)
        self._inner = SearchGenerator(ConcurrencyLimiter(self.searcher, concurrent))
        self.num_earlier = sum(self.searcher.add(point, learned) for point, learned in earlier)
        """How many points of earlier searches lie in the space."""
        for trial in ended:
            learned = lesson(run, trial.curve, diverged=trial.diverged)
            self.searcher.add(trial.point, learned)

    def _first_points(self, known: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return the points of trials that have not ended, and those that a search tries first
        unless a trial has had them. `known`: points of which earlier searches have the values."""
        begun = [trial.point for trial in self._recorded if not trial.has_ended]
        params = [trial.params for trial in self._recorded]
        first = [point for point in first_points(self._run) if point not in known]
        if params:  # of the thousands of points of a new grid there is nothing to look up
            first = [p for p in first if searched_params(self._run, p) not in params]
        return [*begun, *first]

    @property
    def num_samples(self) -> int:
        """Trials that the searcher has to give: those that have ended are left out."""
        return self._run.trials - self._num_ended

    @property
    def budget(self) -> tuple[int, int]:
        """The trials and the epochs of each that it was made for."""
        return self._run.trials, self._run.epochs

    def next_trial(self) -> Any:
        """Return Tune's next trial; None if there is none now."""
        self._enqueue_given()
        trial = self._inner.next_trial()
        if trial is not None and (known := self._find(trial.config)):
            self._ids[known.trial_id] = trial.trial_id
            trial.trial_id = known.trial_id
        return trial

    def _enqueue_given(self) -> None:
        """Try next the points that were given (`genpipe enqueue`), unless a trial has had them."""
        for name, point in callbacks.given_points(self._search_id).items():
            if name in self._taken:
                continue
            self._taken.add(name)
            params = searched_params(self._run, point)
            if all(trial.params != params for trial in self._recorded):
                self.searcher.enqueue(point)

    def _find(self, config: Mapping[str, Any]) -> RecordedTrial | None:
        """Return the recorded trial that goes on with a config, and has no trial of Tune's yet."""
        if not self._recorded:
            return None
        params = searched_params(self._run, config)
        for trial in self._recorded:
            if not trial.has_ended and trial.trial_id not in self._ids and trial.params == params:
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
        return True

    def add_configurations(self, experiments: Any) -> None:
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
        path = Path(dirpath, STATE_FILE.format(session_str))
        LOCAL.write(path, json.dumps({"ids": self._ids, "taken": sorted(self._taken)}))

    def restore_from_dir(self, dirpath: str) -> None:
        self._inner.restore_from_dir(dirpath)
        state = json.loads(max(Path(dirpath).glob(STATE_FILE.format("*"))).read_text())
        self._ids, self._taken = state["ids"], set(state["taken"])


def searched_params(run: Search, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trial's searched settings as its `RunInfo` has them, flat. `config`: as Tune has
    them."""
    params = param_values(as_train(with_settings(run, nest(config))))
    return {name: params[name] for name in flatten(config)}
