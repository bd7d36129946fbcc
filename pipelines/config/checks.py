"""What may be said of the settings of a run and of a search without the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gen_models.core.errors import require

if TYPE_CHECKING:
    from pipelines.config.run import Run, Search


def check_run(run: Run) -> None:
    """Raise `InputError` at a setting that is wrong, or that others rule out."""
    for name in ("epochs", "batch_size", "num_workers", "picture_every", "keep_checkpoints"):
        require(getattr(run, name) >= 1, name, getattr(run, name), "an integer of at least 1")
    for name in ("seed", "max_failures"):
        require(getattr(run, name) >= 0, name, getattr(run, name), "an integer of at least 0")
    share, rest = divmod(run.batch_size, run.num_workers)
    multiple = f"a multiple of the number of workers, {run.num_workers}"
    require(share > 0 and rest == 0, "batch_size", run.batch_size, multiple)


def check_search(run: Search) -> None:
    """The same, of what a search has beside a run."""
    require(run.trials >= 1, "trials", run.trials, "an integer of at least 1")
    grace, waits = run.grace_period, run.chosen_scheduler in ("asha", "pbt")
    within = not waits or 1 <= grace <= run.epochs
    require(within, "grace_period", grace, f"from 1 to {run.epochs} epochs")
    factor = run.reduction_factor
    require(factor >= 2, "reduction_factor", factor, "an integer of at least 2")
    points = run.grid_points
    require(points >= 1, "grid_points", points, "an integer of at least 1")
    most = run.max_concurrent
    require(most is None or most >= 1, "max_concurrent", most, "an integer of at least 1")
    _check_objectives(run)
    _check_confirmation(run)
    _check_fusion(run)


def _check_objectives(run: Search) -> None:
    metrics = [metric for metric, _ in run.objectives]
    alike = len(set(metrics)) == len(metrics)
    require(alike, "metric", " ".join(metrics), "each metric once")
    one = "fifo with several metrics, for the others rank trials by one"
    alone = not run.further or run.chosen_scheduler == "fifo"
    require(alone, "scheduler", run.scheduler, one)
    by_one = "0 with several metrics: `genpipe confirm` takes a trial of the front"
    require(not (run.further and run.confirm), "confirm", run.confirm, by_one)


def _check_confirmation(run: Search) -> None:
    require(run.seeds >= 2, "seeds", run.seeds, "an integer of at least 2")
    require(run.confirm >= 0, "confirm", run.confirm, "an integer of at least 0")
    fixed = "0 with pbt, for its trials change their settings while they run"
    require(not run.confirm or run.scheduler != "pbt", "confirm", run.confirm, fixed)


def _check_fusion(run: Search) -> None:
    if isinstance(run.fuse, int):
        require(run.fuse >= 1, "fuse", run.fuse, "auto, off, or an integer of at least 1")
        alone = f"auto or off, for trials with {run.num_workers} workers cannot be fused"
        require(run.num_workers == 1, "fuse", run.fuse, alone)
    if run.scheduler in ("hyperband", "pbt"):
        other = "asha or fifo, for only fused trials can be paused: --num-workers 1, no --fuse off"
        require(run.is_fused, "scheduler", run.scheduler, other)
    if run.scheduler == "pbt":
        require(run.chosen_searcher != "tpe", "searcher", run.searcher, "random or grid")
