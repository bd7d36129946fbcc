"""Replays searches on a table of learning curves, by Ray Tune and without training.

Tune's controller, the scheduler and the searcher are those of a search. The trials are not: they
look their values up in a table of trained configs, in this process and without Ray, and time is
simulated: an epoch takes one unit of it, whatever the config, and everything else none.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune
from ray.air.execution._internal import TrackedActor
from ray.train._internal.session import _FutureTrainingResult, _TrainingResult
from ray.train._internal.storage import StorageContext
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Experiment, Trial

from benchmarks.curve_tables import Point, Table
from gen_models.core.config import nest
from pipelines.cluster.environment import environment, ignored_warnings
from pipelines.config.search import Scheduler, Search, Searcher
from pipelines.config.serialization import config_from_python
from pipelines.config.space import EMPTY, Setting
from pipelines.tuning.strategy.knowledge import best_points
from pipelines.tuning.strategy.schedulers import make_scheduler
from pipelines.tuning.strategy.searchers import RecordedSearch, RecordedTrial
from pipelines.tuning.strategy.space import grid_size

_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_THRESHOLD_S": "1000",
}
_NO_END = 1_000_000
"""Trials of a replay that ends by its epochs."""


# -- what a replay returns -----------------------------------------------------------------------
@dataclass(frozen=True)
class Improvement:
    """A new best value of a search."""

    epochs: int
    """Epochs trained by all trials until then."""
    trials: int
    """Trials that had trained an epoch by then."""
    value: float


@dataclass(frozen=True)
class ReplayedTrial:
    """A trial of a replayed search."""

    point: Point
    values: Sequence[float]
    """By epoch; NaN at the last if it diverged."""


@dataclass
class Replay:
    """A replayed search."""

    run: Search
    improvements: list[Improvement] = field(default_factory=list)
    epochs: int = 0
    """Epochs trained by all trials."""
    trials: dict[str, ReplayedTrial] = field(default_factory=dict)

    def best(self, epochs: float = math.inf) -> float:
        """Return the best value after so many epochs of all trials; infinity if there is none."""
        within = [each.value for each in self.improvements if each.epochs <= epochs]
        return within[-1] if within else math.inf

    def reached(self, value: float) -> Improvement | None:
        """Return when the search reached a value, None if it did not."""
        return next((each for each in self.improvements if each.value <= value), None)

    def best_points(self) -> list[Point]:
        """Return what a search on other data takes of it: its best points."""
        metric, recorded = self.run.metric, []
        for trial_id, trial in self.trials.items():
            diverged = math.isnan(trial.values[-1])
            curve = [(e, {metric: v}) for e, v in enumerate(trial.values, 1) if not math.isnan(v)]
            recorded.append(
                RecordedTrial(trial_id, trial.point, trial.point, True, curve, diverged)
            )
        return best_points(self.run, recorded)


# -- replaying -----------------------------------------------------------------------------------
def make_run(
    table: Table,
    searcher: Searcher,
    scheduler: Scheduler,
    *,
    trials: int,
    seed: int = 0,
    **settings: Any,
) -> Search:
    """Return the config of a search of the VAE over the table's space.

    The config's own values lie outside the space, so that it is no point of the search: a search
    of `genpipe` tries the family's default first, which is a good one, and would be compared by
    that.
    """
    content = {
        "space": [EMPTY, *(str(Setting(*each)) for each in table.domains.items())],
        **nest({name: 2 * domain.upper for name, domain in table.domains.items()}),
        "epochs": table.epochs,
        "trials": trials,
        "seed": seed,
        "searcher": searcher,
        "scheduler": scheduler,
        **settings,
    }
    run = config_from_python(Search, "vae", content)
    return replace(run, trials=grid_size(run)) if searcher == "grid" else run


def replay(
    table: Table,
    run: Search,
    scratch: Path,
    *,
    concurrent: int,
    max_epochs: float = math.inf,
    first: Sequence[Point] = (),
    until: float = -math.inf,
) -> Replay:
    """Run a search on a table until its trials have trained `max_epochs` in all or reached the
    value `until`; without `max_epochs`, or with a grid, at most `run.trials` trials.

    `scratch`: a folder for the few files that Tune writes. `concurrent`: trials at a time.
    `first`: points that are tried first. The same seed gives the same search.
    """
    assert run.mode == "min"
    random.seed(run.seed)  # of pbt, pb2
    np.random.seed(run.seed)
    with _quiet(), environment(_SETTINGS), ignored_warnings(""):
        found = Replay(run)
        searcher = RecordedSearch(run, [], concurrent, "replay")
        for point in first:
            searcher.searcher.enqueue(point)
        is_finite = run.searcher == "grid" or math.isinf(max_epochs)
        num_samples = run.trials if is_finite else _NO_END
        storage = {"name": "replay", "storage_path": str(scratch)}
        experiment = _Experiment(run=_Trainable, num_samples=num_samples, **storage)
        searcher.add_configurations([experiment])
        actors = _SimulatedActors(table, found, concurrent)
        controller = _Controller(
            search_alg=searcher,
            scheduler=make_scheduler(run),
            storage=experiment.storage,
            reuse_actors=True,
            resource_manager_factory=lambda: None,
        )
        controller._actor_manager = actors
        while not controller.is_finished():
            if found.epochs >= max_epochs or found.best() <= until:
                break
            controller.step()
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Show errors only, of Optuna and of Tune, for the block."""
    loggers = [logging.getLogger(name) for name in ("optuna", "ray.tune")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


class _Trainable(tune.Trainable):
    """The class that Tune knows the trials by; `_SimulatedTrial` is what runs."""


class _Storage(StorageContext):
    def _get_session_path(self) -> str:
        """Return the folder of the replay, in place of one of Ray's session."""
        return str(self.experiment_fs_path)


class _Experiment(Experiment):
    _storage_context_cls = _Storage


class _Saved(_FutureTrainingResult):
    """A checkpoint that a scheduler has asked for, and that is there at once."""

    def resolve(self, block: bool = True) -> Any:
        return self.future.result


class _Controller(TuneController):
    """Tune's controller, which writes no state, and one folder for all trials."""

    def checkpoint(self, force: bool = False, wait: bool = False) -> None:
        pass

    def add_trial(self, trial: Trial) -> None:
        trial.relative_logdir = trial.storage.trial_dir_name = "trial"
        super().add_trial(trial)

    def _schedule_trial_save(self, trial: Trial, result: Any = None) -> Any:
        saving = super()._schedule_trial_save(trial, result)
        if saving is not None:
            saving = trial.temporary_state.saving_to = _Saved(saving.future)
        return saving


@dataclass(frozen=True)
class _Checkpoint:
    """The state of a trial."""

    trial_id: str
    epoch: int
    """Epochs of its curve that it has trained."""
    value: float


class _Nothing:
    """The method of an actor that nobody needs the value of."""

    def remote(self, **kwargs: Any) -> dict[str, Any]:
        return {}


class _SimulatedTrial:
    """What Tune takes for the actor of a trial: it looks its epochs up in the table.

    A trial that takes up the state of another one (population based training) with a changed
    config goes on in its new curve where that reaches the value that the state has, or at its end
    if it never does. That is an estimate: a table knows nothing of changed settings.
    """

    get_auto_filled_metrics = _Nothing()

    def __init__(self, table: Table, found: Replay, config: dict[str, Any]) -> None:
        self._table, self._found = table, found
        self.reset(config)

    def reset(self, config: dict[str, Any], **kwargs: Any) -> bool:
        """Become the trial of a config."""
        self._trial_id = config["__trial_info__"].trial_id
        self._point = {name: float(config[name]) for name in self._table.axes}
        self._curve, self._epoch, self._value = self._table.curve(self._point), 0, math.inf
        return True

    def train(self) -> dict[str, Any]:
        """Return the report of an epoch, as a fused trial's."""
        self._epoch = min(self._epoch + 1, len(self._curve))
        self._value = float(self._curve[self._epoch - 1])
        trial = self._found.trials.setdefault(self._trial_id, ReplayedTrial(self._point, []))
        assert isinstance(trial.values, list)
        trial.values.append(self._value)
        self._note(self._value)
        run, own_epoch, diverged = self._found.run, len(trial.values), math.isnan(self._value)
        return {
            "epoch": own_epoch,
            "diverged": int(diverged),
            run.metric: run.objective.worst if diverged else self._value,
            "done": diverged or own_epoch >= run.epochs,
        }

    def _note(self, value: float) -> None:
        found = self._found
        found.epochs += 1
        if value < found.best():
            found.improvements.append(Improvement(found.epochs, len(found.trials), value))

    def save(self) -> _TrainingResult:
        """Return a checkpoint."""
        checkpoint = _Checkpoint(self._trial_id, self._epoch, self._value)
        return _TrainingResult(checkpoint=checkpoint, metrics={})

    def restore(self, result: _TrainingResult) -> None:
        """Go on from a checkpoint, of this trial or of another one."""
        checkpoint: _Checkpoint = result.checkpoint
        self._epoch, self._value = checkpoint.epoch, checkpoint.value
        if checkpoint.trial_id != self._trial_id:
            reached = np.flatnonzero(self._curve <= checkpoint.value)
            self._epoch = int(reached[0]) + 1 if len(reached) else len(self._curve) - 1


@dataclass(order=True)
class _Task:
    """A call of an actor's method, which ends at some time."""

    time: float
    number: int
    """Tasks that end at the same time end in the order in which they began."""
    actor: Any = field(compare=False)
    on_result: Callable[..., None] | None = field(compare=False, default=None)
    call: Callable[[], Any] | None = field(compare=False, default=None)
    result: Any = field(compare=False, default=None)
    is_cancelled: bool = field(compare=False, default=False)


class _SimulatedActors:
    """Runs the actors of Tune's controller in this process and in simulated time: what
    `ray.air.execution._internal.RayActorManager` does in Ray's processes."""

    def __init__(self, table: Table, found: Replay, slots: int) -> None:
        self._table, self._found, self._slots = table, found, slots
        self._now, self._numbers = 0.0, itertools.count()
        self._tasks: list[_Task] = []
        self._pending: deque[tuple[TrackedActor, dict[str, Any]]] = deque()
        # Tune's controller takes the first of each tuple.
        self._live_actors_to_ray_actors_resources: dict[
            TrackedActor, tuple[_SimulatedTrial, None]
        ] = {}

    # -- what the controller asks ----------------------------------------------------------------
    @property
    def num_live_actors(self) -> int:
        return len(self._live_actors_to_ray_actors_resources)

    @property
    def num_pending_actors(self) -> int:
        return len(self._pending)

    @property
    def num_total_actors(self) -> int:
        return self.num_live_actors + self.num_pending_actors

    @property
    def num_actor_tasks(self) -> int:
        return len(self._tasks)

    def is_actor_started(self, tracked_actor: TrackedActor) -> bool:
        return tracked_actor in self._live_actors_to_ray_actors_resources

    def is_actor_failed(self, tracked_actor: TrackedActor) -> bool:
        return False

    # -- what the controller orders --------------------------------------------------------------
    def add_actor(
        self,
        cls: Any,
        kwargs: dict[str, Any],
        resource_request: Any,
        *,
        on_start: Callable[[TrackedActor], None] | None = None,
        on_stop: Callable[[TrackedActor], None] | None = None,
        on_error: Callable[[TrackedActor, Exception], None] | None = None,
    ) -> TrackedActor:
        actor = TrackedActor(next(self._numbers), on_start, on_stop, on_error)
        self._pending.append((actor, kwargs["config"]))
        return actor

    def remove_actor(
        self, tracked_actor: TrackedActor, kill: bool = False, stop_future: Any = None
    ) -> bool:
        if not self.is_actor_started(tracked_actor):
            self._pending = deque(each for each in self._pending if each[0] != tracked_actor)
            return False
        self.clear_actor_task_futures(tracked_actor)
        self._add_task(tracked_actor, 0.0, self._stopped)
        return True

    def schedule_actor_task(
        self,
        tracked_actor: TrackedActor,
        method_name: str,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        on_result: Callable[..., None] | None = None,
        on_error: Callable[..., None] | None = None,
        _return_future: bool = False,
    ) -> _Task | None:
        if method_name == "stop":
            return None  # `remove_actor` follows
        trial, _ = self._live_actors_to_ray_actors_resources[tracked_actor]
        method = getattr(trial, method_name)
        if method_name == "train":  # at its end, so that epochs are counted in order of time
            return self._add_task(tracked_actor, 1.0, on_result, method)
        task = self._add_task(tracked_actor, 0.0, on_result)
        task.result = method(*(args or ()), **(kwargs or {}))
        return task

    def clear_actor_task_futures(self, tracked_actor: TrackedActor) -> None:
        for task in self._tasks:
            task.is_cancelled = task.is_cancelled or task.actor == tracked_actor

    def next(self, timeout: float | None = None) -> bool:
        """Go to the end of the next task."""
        while self._pending and self.num_live_actors < self._slots:
            actor, config = self._pending.popleft()
            trial = _SimulatedTrial(self._table, self._found, config)
            self._live_actors_to_ray_actors_resources[actor] = (trial, None)
            self._add_task(actor, 0.0, self._started)
        while self._tasks:
            task = heapq.heappop(self._tasks)
            if task.is_cancelled:
                continue
            self._now = task.time
            if task.call:
                task.result = task.call()
            if task.on_result:
                task.on_result(task.actor, task.result)
            return True
        raise RuntimeError("Tune waits, and no trial trains: the simulated trials are stuck")

    def _add_task(
        self,
        actor: TrackedActor,
        duration: float,
        on_result: Callable[..., None] | None,
        call: Callable[[], Any] | None = None,
    ) -> _Task:
        task = _Task(self._now + duration, next(self._numbers), actor, on_result, call)
        heapq.heappush(self._tasks, task)
        return task

    def _started(self, actor: TrackedActor, result: None) -> None:
        if actor._on_start:
            actor._on_start(actor)

    def _stopped(self, actor: TrackedActor, result: None) -> None:
        del self._live_actors_to_ray_actors_resources[actor]
        if actor._on_stop:
            actor._on_stop(actor)
