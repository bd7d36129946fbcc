"""Settings of the commands that start no run: what is recorded, and how to submit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from pipelines.config.run import Device, Features


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """Where results are recorded."""

    store: Path = Path("runs")
    """Folder of all results."""
    tracking_uri: str | None = None
    """MLflow server or database; without it, the environment's MLFLOW_TRACKING_URI, or
    STORE/mlflow.db."""
    json: bool = False
    """Print the result as one JSON object on the last line of stdout."""


@dataclass(frozen=True, kw_only=True)
class Sample(Recorded):
    """Make images from a model: a picture (.png), or arrays (.npz: `images`, uint8, N H W C;
    of points float32, N 2)."""

    model: Positional[str]
    """A run's id or name, NAME@champion, models:/NAME/VERSION, or a checkpoint's folder."""
    num: int = 64
    """How many images."""
    seed: int = 0
    """The same seed gives the same images."""
    labels: tuple[int, ...] = ()
    """Of a class-conditional model: the classes of the images, in turn, over and over; without
    them, each class in turn."""
    out: Path = Path("samples.png")
    """File to write; its ending says what: .png or .npz."""


@dataclass(frozen=True, kw_only=True)
class Confirm(Recorded):
    """Train a recorded run's config again with other seeds: was it good, or lucky?

    Says how the metric spreads over them. The run's own seed is not among them, for it was
    chosen for what came of it. Registers nothing; `genpipe search --confirm` does."""

    run: Positional[str]
    """A run's id or name, a trial's, NAME@champion or models:/NAME/VERSION."""
    seeds: int = 50
    """How many seeds: those that follow the run's own."""
    data_root: Path | None = None
    """Where torchvision's data sets lie; without it, where the run found them."""
    download: bool = False
    """Download the data set if it is not there."""
    address: str | None = None
    """Ray cluster to use; without it (and without RAY_ADDRESS), this machine alone."""
    fuse: Literal["auto", "off"] | int = "auto"
    """Train seeds together, this many on each device; off: start the run's workers for each."""
    max_concurrent: int | None = None
    """Seeds at once; without it, as many as the cluster holds."""
    resume: str = ""
    """Go on with the confirmation of this id, with the seeds that it was started with."""
    dry_run: bool = False
    """Print the resolved config, and stop."""


@dataclass(frozen=True, kw_only=True)
class Evaluate(Recorded):
    """Measure a model on the test split, which no choice has seen: distances of its samples to the
    test images, modes found, and where it has one its likelihood. Recorded with its run."""

    model: Positional[str]
    """A run's id or name, a trial's, NAME@champion or models:/NAME/VERSION."""
    num: int = 10_000
    """Samples."""
    importance_samples: int = 5_000
    """Samples of the importance-weighted bound, for each image."""
    images: int = 1_000
    """Test images, the first ones, whose likelihood is bounded."""
    features: Features | None = None
    """What samples are compared with the test images in, as in training; without it, the run's
    own."""
    data_root: Path | None = None
    """Where torchvision's data sets lie; without it, where the run found them."""
    download: bool = False
    """Download the data set, or Inception's weights, if they are not there."""
    device: Device = "auto"
    """Where it is computed; auto: on a GPU if there is one."""
    num_workers: int = 1
    """Processes that share the work; each takes a CPU core, or a GPU."""
    address: str | None = None
    """Ray cluster to use; without it (and without RAY_ADDRESS), this machine alone."""


@dataclass(frozen=True, kw_only=True)
class Runs(Recorded):
    """List what is recorded, newest first."""

    experiment: str | None = None
    """Only of this MLflow experiment, such as vae-digits."""
    num: int = 30
    """How many."""


@dataclass(frozen=True, kw_only=True)
class Best(Recorded):
    """Rank the recorded runs of a family; show the best one's config and its command."""

    family: Positional[str]
    """The family."""
    data: str | None = None
    """Only runs on this data set; without it, the newest run's."""
    metric: str | None = None
    """Rank by this metric; without it, by the family's own."""
    num: int = 5
    """How many."""


@dataclass(frozen=True, kw_only=True)
class Browse(Recorded):
    """Serve MLflow's page on 127.0.0.1 until it is interrupted."""

    port: int = 5000
    """Port to listen on."""


@dataclass(frozen=True, kw_only=True)
class Submit:
    """Run a command as a job on a Ray cluster: `genpipe submit [settings] -- search vae …`."""

    address: str | None = None
    """The cluster's job server, such as http://127.0.0.1:8265, which is the default."""
    wait: bool = True
    """Wait for the job and show its output."""
    working_dir: Path = Path(".")
    """The project's folder; it is sent to the cluster."""
    submission_id: str | None = None
    """The job's id; without it, Ray makes one up."""
