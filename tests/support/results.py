"""Results of commands, as if something had been trained."""

from typing import Any

from support.journals import ELBO_MAX, METRIC

from pipelines.analysis.seeds import SeedStatistics
from pipelines.config.search import SeedStudy
from pipelines.report.results import (
    BestResult,
    Difference,
    EvaluationResult,
    RecordedRun,
    RerunResult,
    RunProgress,
    RunsResult,
    SearchResult,
    TrainResult,
    TrialRow,
)

SEEDS = SeedStatistics(
    seeds=2, lost=1, mean=-2.5, std=0.7, sem=0.5, median=-2.5, best=-2.0, worst=-3.0
)
STUDY = SeedStudy(run="abc", name="lucky", search_id="", data_digest="d", value=-1.25)


def train_result(**changes: Any) -> TrainResult:
    settings: dict[str, Any] = {
        "name": "vae-1",
        "run_id": "abc",
        "experiment": "vae-digits",
        "tracking_uri": "sqlite:////s/mlflow.db",
        "outcome": "completed",
        "epoch": 3,
        "metric": METRIC,
        "value": -1.5,
        "best_epoch": 2,
        "metrics": {METRIC: -1.5, "train/loss": 9.0},
        "checkpoint": "/s/runs/vae-1/checkpoint_000002",
        "samples": "/s/runs/vae-1/samples.png",
        "model": {"hidden": (32,)},
        "optim": {"lr": 0.1},
    }
    return TrainResult(**{**settings, **changes})


def trial_row(trial_id: str = "t0", **changes: Any) -> TrialRow:
    settings: dict[str, Any] = {
        "trial_id": trial_id,
        "outcome": "stopped_early",
        "epochs": 3,
        "value": -1.5,
        "best_epoch": 2,
        "confirmed": None,
        "config": {"optim.lr": 0.1},
        "metrics": {METRIC: -1.5},
        "values": {METRIC: -1.5},
        "checkpoint": "/s/c",
        "run_id": "abc",
        "model": None,
        "version": None,
    }
    return TrialRow(**{**settings, **changes})


def search_result(**changes: Any) -> SearchResult:
    settings: dict[str, Any] = {
        "search_id": "vae-1",
        "run_id": "xyz",
        "experiment": "vae-digits",
        "registered_model": "vae-digits",
        "tracking_uri": "sqlite:////s/mlflow.db",
        "outcome": "completed",
        "metric": METRIC,
        "mode": "max",
        "objectives": (ELBO_MAX,),
        "champion": None,
        "ranking": (),
        "pareto": (),
        "samples": None,
        "report": None,
    }
    return SearchResult(**{**settings, **changes})


def recorded_run(**changes: Any) -> RecordedRun:
    settings: dict[str, Any] = {
        "run_id": "abc",
        "name": "vae-1",
        "experiment": "vae-digits",
        "kind": "run",
        "search_id": "",
        "trial_id": "",
        "status": "FINISHED",
        "outcome": "completed",
        "epoch": 3,
        "metric": METRIC,
        "value": -1.5,
        "params": {"model.latent_dim": "16", "optim.lr": "0.1", "data": "digits"},
        "metrics": {f"best/{METRIC}": -1.5, "best/epoch": 2.0},
        "rerun": "genpipe train vae",
        "started": "2026-01-02T03:04:05+00:00",
    }
    return RecordedRun(**{**settings, **changes})


def evaluation_result() -> EvaluationResult:
    return EvaluationResult(
        run_id="abc",
        name="vae-1",
        metrics={"test/fd": 1.5},
        tags={"test_digest": "d"},
        pictures={"samples": "/s/x.png"},
    )


def runs_result(*runs: RecordedRun) -> RunsResult:
    return RunsResult(runs=runs or (recorded_run(),))


def best_result() -> BestResult:
    runs = (recorded_run(), recorded_run(run_id="def", value=-2.0))
    return BestResult(metric=METRIC, mode="max", data="digits", ranking=runs, rerun=runs[0].rerun)


def progress(**changes: Any) -> RunProgress:
    settings: dict[str, Any] = {
        "name": "vae-1",
        "running": True,
        "host": "node-1",
        "process": 77,
        "since": "2026-01-02T03:04:05+00:00",
        "outcome": "",
        "ended_by": "",
        "metric": METRIC,
        "value": -1.5,
        "best_trial": "t0",
        "trials": 9,
        "trials_done": 4,
        "trials_running": 2,
        "trials_left": 3,
        "epochs": 123,
        "epochs_per_minute": 41.25,
        "device_share": 0.5,
        "hours": 0.25,
        "device_hours": 0.5,
        "hours_left": 0.75,
        "device_hours_left": None,
        "flat_trials_left": 6,
        "seconds_left": 90.0,
        "until": "2026-01-02T04:05:06+00:00",
        "assumes": "--max-hours ends it",
        "resume": "",
    }
    return RunProgress(**{**settings, **changes})


def rerun_result(**changes: Any) -> RerunResult:
    settings: dict[str, Any] = {
        "name": "vae-1",
        "source": "/s/runs/vae-1/journal",
        "equal": False,
        "epochs": 3,
        "recorded_epochs": 3,
        "values": 12,
        "different_values": 1,
        "first_difference": "val/elbo at epoch 2: -1.5 is recorded, -1.25 here",
        "largest_difference": 0.25,
        "digests": 3,
        "different_digests": 2,
        "circumstances": {"version.torch": Difference(recorded="2.11.0", here="2.15.0")},
    }
    return RerunResult(**{**settings, **changes})
