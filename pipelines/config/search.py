"""Settings of a search, with their defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import tyro

from gen_models.core.errors import require
from pipelines.config.expressions import Expression, parse_expression
from pipelines.config.objectives import Mode, Objective, make_objectives
from pipelines.config.run import R, Run
from pipelines.config.space import (
    SearchSpace,
    complete_space,
    parse_space,
    require_known,
    require_searchable,
)
from pipelines.store.layout import require_name
from pipelines.store.secrets import hide_notice_url, require_notice_url

Scheduler = Literal["asha", "hyperband", "median", "pbt", "pb2", "fifo"]
Searcher = Literal["tpe", "random", "grid", "qmc", "gp", "cmaes", "nsga2", "nsga3"]
USES_GRACE_PERIOD: tuple[Scheduler, ...] = ("asha", "median", "pbt", "pb2")
PERTURBS: tuple[Scheduler, ...] = ("pbt", "pb2")
"""Schedulers that change the settings of trials while they run."""
INDEPENDENT: tuple[Searcher, ...] = ("random", "grid", "qmc")
"""Searchers whose choices do not depend on results."""
PAUSES: tuple[Scheduler, ...] = ("hyperband", "pbt", "pb2")
"""Schedulers that pause trials, as only fused ones can be."""
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

    space: tuple[str, ...] = ()
    """What is searched, each as NAME=DOMAIN in Ray Tune's words: 'optim.lr=loguniform(1e-5, 0.1)'
    'model.hidden=choice([[256], [512, 512]]) if model.arch == "mlp"'. Each adds a setting to the
    family's space or replaces its domain; after `none` they are the whole space. A setting that is
    given a value is not searched. Domains: uniform, quniform, loguniform, randint, qrandint,
    lograndint, choice."""
    require: tuple[str, ...] = ()
    """What every trial must satisfy, such as 'model.latent_dim <= 64'; other points are no
    trials."""

    warm_start: tuple[str, ...] = ()
    """Searches of this store whose trials the searcher shall know from the start. Their values
    must mean the same: the family, the metric and the data."""
    warm_start_anyway: bool = False
    """warm_start: take searches on other data or by another metric, too. Their values are not
    comparable: the best config of each is tried first."""
    enqueue: tuple[Path, ...] = ()
    """YAML files with values of searched settings, which are tried first. See `genpipe
    enqueue`."""

    trials: int = 16
    """How many configs to try; the first is the family's default, if it lies in the space. A
    search that is resumed may be given more."""
    scheduler: Scheduler | None = None
    """asha, hyperband: stop bad trials early, by halving; median: stop those that are worse than
    the median; pbt, pb2: population based training, in which bad trials copy good ones and perturb
    their settings, at random or by a Gaussian process; fifo: run each trial to its end. Default:
    asha, or fifo with several metrics. With several, the first decides."""
    searcher: Searcher | None = None
    """How configs are chosen. random; grid, all points of a grid; qmc, a Sobol sequence; by Optuna
    from the results so far: tpe, gp (Gaussian processes), cmaes, nsga2 and nsga3 (evolution, for
    several metrics). Default: tpe, or random with pbt and pb2, which change settings
    themselves."""
    grid_points: int = 3
    """grid: values of each continuous setting."""
    grace_period: int
    """asha, median: epochs that every trial gets; pbt, pb2: epochs between perturbations."""
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
    max_hours: float | None = None
    """End after this many hours in which trials ran, over all resumptions; the running epochs are
    finished. The budgets come beside --trials: whichever is used up first ends the search."""
    max_device_hours: float | None = None
    """End after this many hours of devices, GPUs or CPU cores: those that its trials hold, times
    the hours, over all resumptions."""
    stop_when_flat: int | None = None
    """End when this many trials have ended, one after the other, without a value that is better
    than the best by more than its spread: the standard deviation of the best trial's metric over
    its last 5 epochs."""
    notify: str = ""
    """URL, http or https, to which a JSON object is posted at the end, at a failure and at a new
    best value, as Slack's webhooks take it; by default the environment's GENPIPE_NOTIFY_URL. It
    is a secret: it is recorded and shown nowhere."""
    confirm: int = 0
    """When the search has ended, train this many of its best configs again with other seeds; the
    config with the best mean becomes the champion. See `genpipe confirm`. Not with several
    metrics."""
    seeds: int = 20
    """confirm: seeds of each of these configs."""
    name: str = ""
    """Name of the search and of its folder, by which the other commands know it: the same name
    resumes it. By default an id with the date."""
    resume: str = ""
    """Resume the search of this name, with the config that it was started with."""
    seed_study: tyro.conf.Suppress[SeedStudy | None] = None
    """The run whose seeds are studied: the space is then the seed, and nothing else."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "space", complete_space(self.family, self.space))
        require_searchable(self.family, self.searched, type(self))
        for condition in self.required:
            require_known("require", condition, self.family, type(self))
        if self.notify:  # a config is written down, and sent to other processes
            object.__setattr__(self, "notify", hide_notice_url(self.notify))
            require_notice_url(self.notify)
        for field in ("name", "resume"):
            if value := getattr(self, field):
                require_name(field, value)
        self._check_budget()
        self._check_objectives()
        self._check_seeds()
        self._check_warm_start()
        self._check_fusion()

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """All objectives: the first ranks trials, several define the Pareto front."""
        return (self.objective, *(Objective(metric, mode) for metric, mode in self.further))

    @cached_property
    def searched(self) -> SearchSpace:
        """The space, parsed."""
        return parse_space(self.space)

    @cached_property
    def required(self) -> tuple[Expression, ...]:
        """What every trial must satisfy, parsed."""
        return tuple(parse_expression("require", text) for text in self.require)

    @property
    def perturbs(self) -> bool:
        """Whether trials change their settings while they run."""
        return self.scheduler in PERTURBS

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
        return self.searcher or ("random" if self.perturbs else "tpe")

    # -- checks: each raises `InputError` -------------------------------------------------------
    def _check_budget(self) -> None:
        require(self.trials >= 1, "trials", self.trials, "an integer of at least 1")
        grace, waits = self.grace_period, self.chosen_scheduler in USES_GRACE_PERIOD
        # A search that is resumed has its recorded one, which fitted fewer epochs.
        within = not waits or 1 <= grace <= self.epochs or bool(self.resume)
        most = f"from 1 to {self.epochs} epochs, as many as a trial may run; see --grace-period"
        require(within, "grace_period", grace, most)
        factor = self.reduction_factor
        require(factor >= 2, "reduction_factor", factor, "an integer of at least 2")
        points = self.grid_points
        require(points >= 1, "grid_points", points, "an integer of at least 1")
        at_once = self.max_concurrent
        allowed = at_once is None or at_once >= 1
        require(allowed, "max_concurrent", at_once, "an integer of at least 1")
        for name in ("max_hours", "max_device_hours"):
            hours = getattr(self, name)
            require(hours is None or hours > 0, name, hours, "a number of hours above 0")
        flat = self.stop_when_flat
        require(flat is None or flat >= 1, "stop_when_flat", flat, "an integer of at least 1")

    def _check_objectives(self) -> None:
        metrics = [objective.metric for objective in self.objectives]
        distinct = len(set(metrics)) == len(metrics)
        require(distinct, "metric", " ".join(metrics), "each metric once")
        by_one = "0 with several metrics: `genpipe confirm` takes a trial of the Pareto front"
        require(not (self.further and self.confirm), "confirm", self.confirm, by_one)

    def _check_seeds(self) -> None:
        require(self.seeds >= 2, "seeds", self.seeds, "an integer of at least 2")
        require(self.confirm >= 0, "confirm", self.confirm, "an integer of at least 0")
        fixed = f"0 with {self.scheduler}, because its trials change their settings while they run"
        require(not self.confirm or not self.perturbs, "confirm", self.confirm, fixed)

    def _check_warm_start(self) -> None:
        name = self.chosen_searcher
        learns = f"nothing with {name}, whose choices do not depend on results"
        ok = not self.warm_start or name not in INDEPENDENT
        require(ok, "warm_start", self.warm_start, learns)

    def _check_fusion(self) -> None:
        if isinstance(self.fuse, int):
            require(self.fuse >= 1, "fuse", self.fuse, "auto, off, or an integer of at least 1")
            alone = f"auto or off, because trials of {self.num_workers} workers cannot be fused"
            require(self.num_workers == 1, "fuse", self.fuse, alone)
        alone = (
            "auto, because only fused trials are trained together: --num-workers 1, no --fuse off"
        )
        require(self.is_fused or self.execution == "auto", "execution", self.execution, alone)
        if self.scheduler in PAUSES:
            fused = "asha or fifo, because only fused trials can be paused: --num-workers 1, no "
            require(self.is_fused, "scheduler", self.scheduler, f"{fused}--fuse off")
        if self.perturbs:
            alone = "random, grid or qmc, because it changes settings itself"
            independent = self.chosen_searcher in INDEPENDENT
            require(independent, "searcher", self.searcher, f"{alone}: {self.scheduler}")


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
