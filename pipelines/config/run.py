"""Settings of a training run, with their defaults.

The command line offers them, worker processes receive them, and `config.json` records them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro
from tyro.conf import UseAppendAction

import gen_models
from gen_models.core.config import require_finite
from gen_models.core.errors import require
from pipelines.config.labels import parse_tags, require_labels
from pipelines.config.objectives import Mode, Objective
from pipelines.data import Channels
from pipelines.store.journal import Labels
from pipelines.store.layout import default_store, require_name
from pipelines.store.secrets import hide
from tune_spaces import space

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16"]
Features = Literal["auto", "lenet", "pca", "inception"]
R = TypeVar("R", bound="Run")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What `train` and `search` have in common: one config, its data, its budget."""

    family: tyro.conf.Suppress[str]
    """The family; on the command line it comes first, without a flag."""

    data: str = "digits"
    """Data set: digits, mnist, fashion_mnist, cifar10, svhn, folder:PATH or npz:PATH; or points in
    the plane, for networks of arch mlp: ring8 or grid25."""
    data_root: Path = field(
        default_factory=lambda: Path(os.environ.get("GENPIPE_DATA_ROOT") or "data")
    )
    """Folder of torchvision's data sets; the default is the environment's GENPIPE_DATA_ROOT."""
    download: bool = False
    """Download missing files: the data set into --data-root, Inception's weights into torch.hub's
    folder."""
    image_size: int | None = None
    """folder: resize and crop images to this many pixels a side."""
    channels: Channels = "auto"
    """folder: read images as they are, or convert all of them to grey or to colour."""
    binarise: bool = False
    """Sample binary pixels: a training image's each time it is used, 1 with the probability of its
    intensity; those of validation and test images once."""

    epochs: int
    """Passes over the training images."""
    batch_size: int = 128
    """Images in a step, over all workers."""
    drop_last: bool = True
    """Leave out an epoch's last batch if it is smaller than the others."""
    seed: int = 0
    """Seed of everything random: initial weights, order of the data, noise."""
    device: Device = "auto"
    """Where to compute; auto: on GPUs if there are any."""
    precision: Precision = "auto"
    """Precision of matrix products; bf16 is bfloat16 autocast; auto: bf16 if a short measurement
    finds it much faster on the device. The choice is recorded with the run."""
    compile: Literal["auto", "off", "on"] = "auto"
    """auto: on a GPU, record steps as CUDA graphs and replay them; on: and compile the losses with
    torch.compile, which takes half a minute at the start and on the CPUs measured so far saves a
    tenth to a sixth of a step; off: neither."""
    num_workers: int = 1
    """Processes that train one config together with DDP; each takes a CPU core or a GPU."""
    max_failures: int = 2
    """How often a run is restarted from its last checkpoint after a worker died."""

    features: Features = "auto"
    """Feature space in which samples are compared with the data: lenet, features of a small
    classifier of labelled images, trained once per store; pca, principal components; inception,
    the network of the FID (needs torch-fidelity and its weights); auto: lenet for labelled images,
    else pca. Metric names contain it, as in val/fd/inception/2k."""
    metric: str
    """Metric that selects the best epoch and ranks trials."""
    mode: Mode
    """Whether a small or a large metric is good; by default what is known of the metric."""
    picture_every: int = 5
    """Epochs between pictures of samples and reconstructions."""
    keep_checkpoints: int = 1
    """How many of the best checkpoints to keep, beside the newest; while the run goes on, beside
    the two newest."""

    store: Path = field(default_factory=default_store)
    """Folder of all results; the default is the environment's GENPIPE_STORE, or runs. On a
    cluster: a file system that every node mounts."""
    tracking_uri: str | None = None
    """MLflow server or database; by default the environment's GENPIPE_TRACKING_URI or
    MLFLOW_TRACKING_URI, or STORE/mlflow.db. A password belongs into MLFLOW_TRACKING_PASSWORD; one
    that stands here is recorded nowhere."""
    experiment: str | None = None
    """MLflow experiment in which the run is recorded, such as baselines; by default
    FAMILY-DATA. A run that is resumed stays in its experiment."""
    tag: Annotated[UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=VALUE")] = ()
    """A tag of the run in MLflow, as in team=vision; may be given more than once. The trials of a
    search have the search's tags. When a run is resumed, tags that are given replace its own."""
    note: str | None = None
    """Markdown that describes the run, at the head of its description in MLflow and of its report.
    When a run is resumed, a note that is given replaces its own."""
    address: str | None = None
    """Ray cluster to use; by default the environment's RAY_ADDRESS, or this machine alone."""
    dry_run: bool = False
    """Make all checks, print the resolved config as a job file (with --json as JSON), and stop."""
    save: Path | None = None
    """Write the settings to this job file, which `genpipe run` runs, and stop."""
    json: bool = False
    """Print the result as one JSON object, and nothing else on stdout."""

    model: Any
    """The family's architecture and loss weights."""
    optim: Any
    """The family's optimizers."""

    def __post_init__(self) -> None:
        if self.tracking_uri:  # a config is written down, and sent to other processes
            object.__setattr__(self, "tracking_uri", hide(self.tracking_uri))
        require_finite(self)
        require_labels(self.experiment, self.tag, self.note)
        for name in ("epochs", "batch_size", "num_workers", "picture_every", "keep_checkpoints"):
            value = getattr(self, name)
            require(value >= 1, name, value, "an integer of at least 1")
        for name in ("seed", "max_failures"):
            value = getattr(self, name)
            require(value >= 0, name, value, "an integer of at least 0")
        share, rest = divmod(self.batch_size, self.num_workers)
        multiple = f"a multiple of the number of workers, {self.num_workers}"
        require(share > 0 and rest == 0, "batch_size", self.batch_size, multiple)

    @property
    def objective(self) -> Objective:
        """The objective that selects the best epoch and ranks trials."""
        return Objective(self.metric, self.mode)

    @property
    def labels(self) -> Labels:
        """How a person labels the run where it is recorded."""
        return Labels(parse_tags(self.tag), self.note or "")

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """All objectives, the one that ranks first."""
        return (self.objective,)


@dataclass(frozen=True, kw_only=True)
class Train(Run):
    """Train one config."""

    name: str = ""
    """Name of the run and of its folder: the same name resumes it. By default a name that follows
    from the config."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name:
            require_name("name", self.name)


def defaults(kind: type[R], family: str, module: Any = None) -> R:
    """Return the default config of a family: `Train`, or `pipelines.config.search.Search`.
    `module`: with the family's `Config` and `Optim`; by default the family's own.

    Raises `InputError` if there is no such family.
    """
    module = module or gen_models.family(family)
    own = space(family)
    settings: dict[str, Any] = {
        "family": family,
        "epochs": own.epochs,
        "metric": own.metric,
        "mode": own.mode,
        "model": module.Config(),
        "optim": module.Optim(),
    }
    if "grace_period" in {f.name for f in fields(kind)}:
        settings["grace_period"] = own.grace_period
    return kind(**settings)


def as_train(run: Run, name: str = "") -> Train:
    """Return the config of one training run, without the settings that only a search has."""
    content = {f.name: getattr(run, f.name) for f in fields(Run)}
    return Train(**content, name=name)
