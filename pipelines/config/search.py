"""Settings of a search, with their defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import tyro

from gen_models.core.errors import require
from pipelines.config.objectives import Mode, Objective, make_objectives
from pipelines.config.run import R, Run
from pipelines.store.layout import require_name

Scheduler = Literal["asha", "hyperband", "pbt", "fifo"]
Searcher = Literal["tpe", "random", "grid"]
USES_GRACE_PERIOD: tuple[Scheduler, ...] = ("asha", "pbt")
Fuse = Literal["auto", "off"] | int


@dataclass(frozen=True, kw_only=True)
class SeedStudy:
    """The recorded run whose config a seed study trains again with other seeds."""

    run: str
    """MLflow's id of the run, or its name while MLflow has not recorded it."""
    name: str
    search_id: str
    """The search that the run is a trial of, or ""."""
    data_digest: str
    value: float | None
    """The metric at the run's best epoch; None if it has none."""


@dataclass(frozen=True, kw_only=True)
class Search(Run):
    """Search over configs. A setting of the space that is given a value here is not searched."""

    metric: str
    """Metric that selects the best epoch and ranks trials. Given more than once, as in --metric
    val/squared_error --metric val/fd, the search looks for the Pareto front: the trials that no
    other beats in every metric. A trial's values are those of its best epoch by the first metric,
    whose checkpoint is kept; the champion is the best trial by the first metric."""
    mode: Mode
    """Whether a small or a large metric is good; by default what is known of the metric. With
    several metrics, as many as --metric, in the same order."""
    further: tyro.conf.Suppress[tuple[tuple[str, Mode], ...]] = ()
    """The metrics after the first, with their modes."""

    trials: int = 16
    """How many configs to try; the first is the family's default."""
    scheduler: Scheduler | None = None
    """asha, hyperband: stop bad trials early; pbt: population based training, in which bad trials
    copy good ones and perturb their settings; fifo: run each trial to its end. Default: asha, or
    fifo with several metrics, because the others rank trials by one."""
    searcher: Searcher | None = None
    """How configs are chosen: tpe, by Optuna from the results so far; random; grid, all points of
    a grid. Default: tpe, or random with pbt, which changes settings itself."""
    grid_points: int = 3
    """grid: values of each continuous setting."""
    grace_period: int
    """asha: epochs that every trial gets; pbt: epochs between perturbations."""
    reduction_factor: int = 3
    """asha, hyperband: one trial in this many continues at each rung."""
    fuse: Fuse = "auto"
    """Train this many trials together on each device, in one process that lives as long as the
    search; off: start Ray Train's workers for each trial. Trials of several workers are never
    fused."""
    execution: Literal["auto", "vectorised", "in_turn"] = "auto"
    """How a worker takes the steps of its trials. in_turn: one trial after the other; a trial has
    the values that it has alone, to the last bit. vectorised: all of one structure as one; the
    values are the same up to rounding, which grows with the epochs and depends on which trials
    happen to be trained together. auto: the faster of the two by a short measurement, made once
    for each structure of a search, recorded and kept."""
    max_concurrent: int | None = None
    """Trials at once; by default as many as the cluster holds."""
    confirm: int = 0
    """When the search has ended, train this many of its best configs again with other seeds; the
    config with the best mean becomes the champion. See `genpipe confirm`. Not with several
    metrics."""
    seeds: int = 20
    """confirm: seeds of each of these configs."""
    resume: str = ""
    """Resume the search of this id, with the config that it was started with."""
    fixed: tyro.conf.Suppress[tuple[str, ...]] = ()
    """Settings of the space that were given a value, and are not searched."""
    seed_study: tyro.conf.Suppress[SeedStudy | None] = None
    """The run whose seeds are studied: then the seed is searched, and nothing else."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resume:
            require_name("resume", self.resume)
        self._check_budget()
        self._check_objectives()
        self._check_seeds()
        self._check_fusion()

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """All objectives: the first ranks trials, several define the Pareto front."""
        return (self.objective, *(Objective(metric, mode) for metric, mode in self.further))

    @property
    def is_fused(self) -> bool:
        """Whether trials are trained by fused workers."""
        return self.fuse != "off" and self.num_workers == 1

    @property
    def chosen_scheduler(self) -> Scheduler:
        """The scheduler; by default the one that suits the objectives."""
        return self.scheduler or ("fifo" if self.further else "asha")

    @property
    def chosen_searcher(self) -> Searcher:
        """The searcher; by default the one that suits the scheduler."""
        return self.searcher or ("random" if self.scheduler == "pbt" else "tpe")

    # -- checks: each raises `InputError` -------------------------------------------------------
    def _check_budget(self) -> None:
        require(self.trials >= 1, "trials", self.trials, "an integer of at least 1")
        grace, waits = self.grace_period, self.chosen_scheduler in USES_GRACE_PERIOD
        within = not waits or 1 <= grace <= self.epochs
        most = f"from 1 to {self.epochs} epochs, as many as a trial may run; see --grace-period"
        require(within, "grace_period", grace, most)
        factor = self.reduction_factor
        require(factor >= 2, "reduction_factor", factor, "an integer of at least 2")
        points = self.grid_points
        require(points >= 1, "grid_points", points, "an integer of at least 1")
        at_once = self.max_concurrent
        allowed = at_once is None or at_once >= 1
        require(allowed, "max_concurrent", at_once, "an integer of at least 1")

    def _check_objectives(self) -> None:
        metrics = [objective.metric for objective in self.objectives]
        distinct = len(set(metrics)) == len(metrics)
        require(distinct, "metric", " ".join(metrics), "each metric once")
        one = "fifo with several metrics, because the others rank trials by one"
        alone = not self.further or self.chosen_scheduler == "fifo"
        require(alone, "scheduler", self.scheduler, one)
        by_one = "0 with several metrics: `genpipe confirm` takes a trial of the Pareto front"
        require(not (self.further and self.confirm), "confirm", self.confirm, by_one)

    def _check_seeds(self) -> None:
        require(self.seeds >= 2, "seeds", self.seeds, "an integer of at least 2")
        require(self.confirm >= 0, "confirm", self.confirm, "an integer of at least 0")
        fixed = "0 with pbt, because its trials change their settings while they run"
        require(not self.confirm or self.scheduler != "pbt", "confirm", self.confirm, fixed)

    def _check_fusion(self) -> None:
        if isinstance(self.fuse, int):
            require(self.fuse >= 1, "fuse", self.fuse, "auto, off, or an integer of at least 1")
            alone = f"auto or off, because trials of {self.num_workers} workers cannot be fused"
            require(self.num_workers == 1, "fuse", self.fuse, alone)
        alone = (
            "auto, because only fused trials are trained together: --num-workers 1, no --fuse off"
        )
        require(self.is_fused or self.execution == "auto", "execution", self.execution, alone)
        if self.scheduler in ("hyperband", "pbt"):
            fused = "asha or fifo, because only fused trials can be paused: --num-workers 1, no "
            require(self.is_fused, "scheduler", self.scheduler, f"{fused}--fuse off")
        if self.scheduler == "pbt":
            require(self.chosen_searcher != "tpe", "searcher", self.searcher, "random or grid")


def with_metrics(run: R, metrics: Sequence[str], modes: Sequence[str]) -> R:
    """Return `run` with the objectives of these metrics, if any are given; without modes, with the
    directions that are known of them.

    Raises `InputError` as `make_objectives` and `with_objectives` do.
    """
    if not metrics and not modes:
        return run
    return with_objectives(run, make_objectives(run.family, metrics or [run.metric], modes))


def with_objectives(run: R, objectives: Sequence[Objective]) -> R:
    """Return `run` with other objectives.

    Raises `InputError` if there are several and `run` is no search.
    """
    first, *further = objectives
    several = " ".join(each.metric for each in objectives)
    one = "one, because only a search takes several"
    require(not further or isinstance(run, Search), "metric", several, one)
    changes: dict[str, Any] = {"metric": first.metric, "mode": first.mode}
    if isinstance(run, Search):
        changes["further"] = tuple((each.metric, each.mode) for each in further)
    return replace(run, **changes)
