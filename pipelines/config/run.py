"""Every setting of a run and of a search, with its default: what the command line offers, what
is sent to workers, and what is written down so that it can be run again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

import tyro

import gen_models
from gen_models.core.config import flatten, from_dict, merge
from gen_models.core.errors import require
from pipelines.config.checks import check_run, check_search
from pipelines.data import Channels
from tune_spaces import space

Device = Literal["auto", "cpu", "cuda"]
Mode = Literal["min", "max"]
Objective = tuple[str, Mode]
"""A metric, and which of its values are good."""
Precision = Literal["auto", "fp32", "bf16"]
Features = Literal["auto", "lenet", "pca", "inception"]
R = TypeVar("R", bound="Run")

_WHERE = {"store", "tracking_uri", "address", "data_root", "download", "json", "dry_run"}
"""Settings that say where and how a command runs, and change nothing of its result."""
_WHICH = {"name", "fixed", "resume", "confirms"}
"""Settings that say which run or search is meant."""
_OBJECTIVES = {"metric", "mode", "further"}
NOT_REPEATED = {"family", *_WHICH, *_WHERE, *_OBJECTIVES} - {"data_root"}
"""What the command that runs a config again leaves out, or says apart."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One config: what is trained, on what, how long, by how many."""

    family: tyro.conf.Suppress[str]
    """The family; its position on the command line comes first."""

    data: str = "digits"
    """Data set: digits, mnist, fashion_mnist, cifar10, svhn, folder:PATH or npz:PATH; or points of
    the plane, for networks that are mlp: ring8 or grid25."""
    data_root: Path = field(
        default_factory=lambda: Path(os.environ.get("GENPIPE_DATA_ROOT") or "data")
    )
    """Where torchvision's data sets lie; the environment's GENPIPE_DATA_ROOT is the default."""
    download: bool = False
    """Download what is not there: the data set into --data-root, Inception's weights into
    torch.hub's folder."""
    image_size: int | None = None
    """folder: images are resized and cropped to this many pixels a side."""
    channels: Channels = "auto"
    """folder: read images as they are, or all of them in grey or in colour."""
    binarise: bool = False
    """Draw a training image's values anew each time it is used, 1 with the probability of its
    intensity, else 0; those of validation and test images once."""

    epochs: int
    """Passes over the training images."""
    batch_size: int = 128
    """Images in a step, over all workers."""
    drop_last: bool = True
    """Leave out an epoch's last batch if it is smaller than the others."""
    seed: int = 0
    """Everything random follows from it: initial weights, order of the data, noise."""
    device: Device = "auto"
    """Where workers compute; auto: on GPUs if the cluster has any."""
    precision: Precision = "auto"
    """Of the networks' products: bf16 is bfloat16 by autocast; auto: bf16 where the device is
    measured to be much faster at it. What was chosen is recorded with the run."""
    compile: Literal["auto", "off", "on"] = "auto"
    """auto: on a GPU, steps are recorded as CUDA graphs and replayed; on: and the losses run
    through torch.compile, which takes half a minute to begin with and on the CPUs measured so
    far saves a tenth to a sixth of a step; off: neither."""
    num_workers: int = 1
    """Processes that train one config together, by DDP; each takes a CPU core, or a GPU."""
    max_failures: int = 2
    """How often a run whose worker died is taken up again from its last checkpoint."""

    features: Features = "auto"
    """What samples are compared with the data in: lenet, the features of a small classifier of
    labelled images, trained once for a store; pca, principal components; inception, the network
    of the FID, which wants torch-fidelity and its weights; auto: lenet for labelled images, else
    pca. The names of metrics hold it, as in val/fd/inception/2k."""
    metric: str
    """What the best epoch and the best trial are chosen by."""
    mode: Mode
    """Whether a small or a large metric is good; without it, what is known of the metric."""
    picture_every: int = 5
    """Epochs between pictures of samples and reconstructions."""
    keep_checkpoints: int = 1
    """How many of the best checkpoints are kept, beside the latest."""

    store: Path = Path("runs")
    """Folder of all results. On a cluster: a file system that every node shares."""
    tracking_uri: str | None = None
    """MLflow server or database; without it, the environment's MLFLOW_TRACKING_URI, or
    STORE/mlflow.db."""
    address: str | None = None
    """Ray cluster to use; without it (and without RAY_ADDRESS), this machine alone."""
    dry_run: bool = False
    """Print the resolved config, and stop."""
    json: bool = False
    """Print the result as one JSON object on the last line of stdout."""

    model: Any
    """The family's architecture and loss weights."""
    optim: Any
    """The family's optimizers."""

    def __post_init__(self) -> None:
        check_run(self)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What is asked for; the first decides which epoch is the best."""
        return ((self.metric, self.mode),)


@dataclass(frozen=True, kw_only=True)
class Train(Run):
    """Train one config."""

    name: str = ""
    """The run's name, and its folder in the store: the same name goes on where it stopped.
    Without it, a name that follows from the config."""


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """A recorded run, as the search that confirms its config knows it."""

    run: str
    """MLflow's id of it, or its name while MLflow has not heard of it."""
    name: str
    search_id: str
    """The search that it is a trial of, or nothing."""
    data_digest: str
    value: float | None
    """The metric at its best epoch; None where it had none."""


@dataclass(frozen=True, kw_only=True)
class Search(Run):
    """Search many configs. A setting of the space that is given a value here is not searched."""

    metric: str
    """What the best epoch and the best trial are chosen by. Given again, as in --metric
    val/squared_error --metric val/fd: what is searched for is the Pareto front, the trials that no
    other beats in all metrics. A trial's values are those of its best epoch by the first metric,
    whose checkpoint is kept; and the champion is the best trial by it."""
    mode: Mode
    """Whether a small or a large metric is good; without it, what is known of the metric. Of
    several metrics, as often as --metric, in the same order."""
    further: tyro.conf.Suppress[tuple[Objective, ...]] = ()
    """The objectives after the first."""

    trials: int = 16
    """How many configs are tried; the first is the family's default."""
    scheduler: Literal["asha", "hyperband", "pbt", "fifo"] | None = None
    """asha, hyperband: stop trials early that do badly; pbt: population based training, in
    which bad trials copy good ones and change their settings; fifo: run each to its end. Without
    it, asha; with several metrics fifo, for the others rank trials by one."""
    searcher: Literal["tpe", "random", "grid"] | None = None
    """How configs are chosen: by Optuna's TPE from the results so far, at random, or all of a
    grid. Without it, tpe; with pbt, which does so itself, random."""
    grid_points: int = 3
    """grid: values of each continuous setting."""
    grace_period: int
    """asha: epochs that every trial gets; pbt: epochs between changes."""
    reduction_factor: int = 3
    """asha, hyperband: one trial in this many goes on at each rung."""
    fuse: Literal["auto", "off"] | int = "auto"
    """Train trials together, this many on each device, in one process that lives as long as the
    search; off: start workers for each trial. Trials with several workers are never fused."""
    max_concurrent: int | None = None
    """Trials at once; without it, as many as the cluster holds."""
    confirm: int = 0
    """When the search has ended, train this many of its best configs again with other seeds; the
    one with the best mean becomes the champion. See `genpipe confirm`. Not with several
    metrics."""
    seeds: int = 20
    """confirm: seeds of each of these configs."""
    resume: str = ""
    """Go on with the search of this id, from the config it was started with."""
    fixed: tyro.conf.Suppress[tuple[str, ...]] = ()
    """Settings of the space that were given on the command line."""
    confirms: tyro.conf.Suppress[Confirmed | None] = None
    """The run whose config is confirmed: then the seed is searched, and nothing else."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_search(self)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What is searched for: the best trial by one, the Pareto front by several."""
        return (*super().objectives, *self.further)

    @property
    def is_fused(self) -> bool:
        """Whether trials are members of populations."""
        return self.fuse != "off" and self.num_workers == 1

    @property
    def chosen_scheduler(self) -> Literal["asha", "hyperband", "pbt", "fifo"]:
        """The scheduler, where none was given the one that suits the objectives."""
        return self.scheduler or ("fifo" if self.further else "asha")

    @property
    def chosen_searcher(self) -> Literal["tpe", "random", "grid"]:
        """The searcher, where none was given the one that suits the scheduler."""
        return self.searcher or ("random" if self.scheduler == "pbt" else "tpe")


def defaults(kind: type[R], family: str) -> R:
    """The default `Train` or `Search` of a family.

    Raises `InputError` where there is no such family.
    """
    module = gen_models.family(family)
    found = space(family)
    own: dict[str, Any] = {"grace_period": found.grace_period} if kind is Search else {}
    settings: dict[str, Any] = {
        "family": family,
        "epochs": found.epochs,
        "metric": found.metric,
        "mode": found.mode,
        "model": module.Config(),
        "optim": module.Optim(),
    }
    return kind(**settings, **own)


def to_dict(run: Run) -> dict[str, Any]:
    """As JSON takes it."""
    content = asdict(run)
    return {k: str(v) if isinstance(v, Path) else v for k, v in content.items()}


def run_from_dict(kind: type[R], content: Mapping[str, Any]) -> R:
    """The config that `to_dict` made `content` of."""
    module = gen_models.family(content["family"])
    parts: dict[str, Any] = {
        "model": from_dict(module.Config, content["model"]),
        "optim": from_dict(module.Optim, content["optim"]),
        "store": Path(content["store"]),
        "data_root": Path(content["data_root"]),
    }
    known = {f.name for f in fields(kind)}
    rest = {k: v for k, v in content.items() if k in known and k not in parts}
    rest |= {k: _as_tuple(v) for k, v in rest.items() if isinstance(v, list)}
    if rest.get("confirms"):
        rest["confirms"] = from_dict(Confirmed, rest["confirms"])
    return kind(**rest, **parts)


def _as_tuple(value: Any) -> Any:
    """Lists as tuples, at any depth."""
    return tuple(map(_as_tuple, value)) if isinstance(value, (list, tuple)) else value


def with_sampled(run: R, sampled: Mapping[str, Any]) -> R:
    """`run` with a point of the space put over it, in the config's shape: `{"model": {…}}`, or
    a setting of the run's own, `{"seed": 3}`.

    Raises `InputError` at a setting that the run does not have.
    """
    known = {f.name for f in fields(run)}
    for name, value in sampled.items():
        require(name in known, name, value, f"one of {sorted(known)}")
    return run_from_dict(type(run), merge(to_dict(run), sampled))


def as_train(run: Run, name: str = "") -> Train:
    """The config of one run, without what only a search has."""
    content = {f.name: getattr(run, f.name) for f in fields(Run)}
    return Train(**content, name=name)


def result_settings(run: Run) -> dict[str, Any]:
    """The settings that the result depends on, flat; they are the run's parameters in MLflow,
    where several objectives are a tag."""
    left_out = _WHERE | _WHICH | {"further"}
    content = {k: v for k, v in to_dict(run).items() if k not in left_out}
    return flatten(content)
