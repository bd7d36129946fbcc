"""Evaluate a model on the test split: the numbers to report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from pipelines.cli.parsing import RecordedSettings, parse_settings
from pipelines.cli.stages import Call, finish
from pipelines.config.run import Device, Features
from pipelines.report.results import EvaluationResult

ORDER, USAGE = 4, "evaluate MODEL"


@dataclass(frozen=True, kw_only=True)
class Evaluate(RecordedSettings):
    """Evaluate a recorded model on the test split: distances between its samples and the test
    images, modes found, and its likelihood if it has one. The results are recorded with its
    run."""

    model: Positional[str]
    """A run's id or name, a trial's, NAME@champion or models:/NAME/VERSION."""
    num: int = 10_000
    """Samples."""
    importance_samples: int = 5_000
    """Samples per image of the importance-weighted likelihood bound."""
    images: int = 1_000
    """Test images whose likelihood is bounded: drawn with a fixed seed, of each class its
    share."""
    features: Features | None = None
    """Feature space in which samples are compared with the test images; by default the run's
    own."""
    data: str | None = None
    """The run's data at another path, npz:PATH or folder:PATH, if they were moved."""
    data_root: Path | None = None
    """Folder of torchvision's data sets; by default where the run found them."""
    download: bool = False
    """Download the data set, or Inception's weights, if they are missing."""
    device: Device = "auto"
    """Where to compute; auto: on a GPU if there is one."""
    num_workers: int = 1
    """Processes that share the work; each takes a CPU core or a GPU."""
    address: str | None = None
    """Ray cluster to use; by default the environment's RAY_ADDRESS, or this machine alone."""


def main(args: list[str]) -> int:
    """Run the command; return its exit code."""
    settings = parse_settings(Evaluate, "evaluate", args)
    return finish(run(settings, Call()), settings, show)


def run(settings: Evaluate, call: Call) -> EvaluationResult:
    """Evaluate the model."""
    from pipelines.catalog.evaluation import evaluate  # light: imports torch and Ray

    return evaluate(
        settings.model,
        num=settings.num,
        importance_samples=settings.importance_samples,
        images=settings.images,
        features=settings.features,
        data=settings.data,
        data_root=settings.data_root,
        download=settings.download,
        device=settings.device,
        num_workers=settings.num_workers,
        address=settings.address,
        store=settings.store,
        tracking_uri=settings.tracking_uri,
    )


def show(result: EvaluationResult, settings: Evaluate) -> None:
    """Print the metrics."""
    from pipelines.report.console import show_evaluation  # light: imports rich

    show_evaluation(result)
