"""Write samples of a model: a picture, or an .npz archive."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from pipelines.cli.parsing import RecordedSettings, parse_settings
from pipelines.cli.stages import Call, finish
from pipelines.report.results import SampleResult

ORDER, USAGE = 5, "sample MODEL"


@dataclass(frozen=True, kw_only=True)
class Sample(RecordedSettings):
    """Write samples of a model to a file: a picture (.png), or arrays (.npz: `images`, uint8
    (N, H, W, C), of points float32 (N, 2))."""

    model: Positional[str]
    """A run's id or name, NAME@champion, models:/NAME/VERSION, or a checkpoint folder."""
    num: int = 64
    """How many samples."""
    seed: int = 0
    """The same seed gives the same samples."""
    labels: tuple[int, ...] = ()
    """Of a class-conditional model: classes of the samples, in turn; by default each class in
    turn."""
    out: Path = Path("samples.png")
    """File to write; its suffix selects the format: .png or .npz."""


def main(args: list[str]) -> int:
    """Run the command; return its exit code."""
    settings = parse_settings(Sample, "sample", args)
    return finish(run(settings, Call()), settings, show)


def run(settings: Sample, call: Call) -> SampleResult:
    """Write the samples."""
    from pipelines.catalog.models import sample  # light: imports torch

    return sample(
        settings.model,
        num=settings.num,
        seed=settings.seed,
        labels=settings.labels,
        out=settings.out,
        store=settings.store,
        tracking_uri=settings.tracking_uri,
    )


def show(result: SampleResult, settings: Sample) -> None:
    """Print where the samples are."""
    from pipelines.report.console import show_samples  # light: imports rich

    show_samples(result, settings.model)
