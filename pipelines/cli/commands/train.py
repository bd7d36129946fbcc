"""Train one config, on one worker or several."""

from __future__ import annotations

from pipelines.cli.parsing import parse_run
from pipelines.cli.stages import Call, finish
from pipelines.config.run import Train
from pipelines.report.results import TrainResult

ORDER, USAGE = 1, "train FAMILY"


def main(args: list[str]) -> int:
    """Run the command; return its exit code."""
    settings = parse_run(Train, "train", args)
    if settings is None:
        return 0
    if settings.dry_run or settings.save:
        from pipelines.cli.dry_run import describe_or_save  # light: imports torch

        return describe_or_save(settings)
    return finish(run(settings, Call()), settings, show)


def run(settings: Train, call: Call) -> TrainResult:
    """Train the config."""
    from pipelines.training.run import train_config  # light: imports torch and Ray

    return train_config(settings)


def show(result: TrainResult, settings: Train) -> None:
    """Print what came out."""
    from pipelines.report.console import show_train  # light: imports rich

    show_train(result)
