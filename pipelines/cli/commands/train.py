"""Train one config, on one worker or several."""

from __future__ import annotations

from pipelines.cli.parsing import parse_run, print_json
from pipelines.config.run import Train

ORDER, USAGE = 1, "train FAMILY"


def main(args: list[str]) -> int:
    """Run the command; return its exit code."""
    run = parse_run(Train, "train", args)
    if run is None:
        return 0
    if run.dry_run:
        from pipelines.cli.dry_run import describe_run  # light: imports torch

        print(describe_run(run))
        return 0
    from pipelines.report.console import show_train  # light: imports rich
    from pipelines.training.run import train_config  # light: imports torch and Ray

    result = train_config(run)
    show_train(result)
    print_json(run, result.to_json())
    return result.exit_code
