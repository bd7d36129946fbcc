"""Settings of the commands that start no run: what is recorded, and how to submit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional


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
    out: Path = Path("samples.png")
    """File to write; its ending says what: .png or .npz."""


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
