"""A search in this process without Ray: events stand for Tune, journals for trials."""

import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from support.training import small_run

import gen_models
from gen_models.core.checkpoint import save_checkpoint
from gen_models.core.data import DataSpec
from gen_models.training.learner import Learner
from pipelines.config.search import Search
from pipelines.data import load
from pipelines.store.checkpoints import checkpoint_folder
from pipelines.store.journal import EvaluationJournal, Journal
from pipelines.store.layout import Store
from pipelines.training.preflight import RunContext
from pipelines.tuning.recorder import TrialEnded, TrialReported, TrialStarted
from pipelines.tuning.search_run import SearchRun

METRIC = "val/nll/iw8"


class RecordingTracker:
    """A tracker that keeps what it is asked to deliver, and takes it at once."""

    def __init__(self) -> None:
        self.synced: list[tuple[str, int | None]] = []
        """Folder name and epoch of each call."""

    def sync(self, journal: Journal | EvaluationJournal, upto: int | None = None) -> None:
        self.synced.append((journal.run_folder.name, upto))

    def flush(self, timeout: float) -> bool:
        return True

    def run_id(self, journal: Journal) -> str | None:
        return f"id-of-{journal.run_folder.name}"


def make_search(root: Path, **settings: Any) -> SearchRun:
    """Return a search that has started in the store `root`."""
    own = {"trials": 3, "epochs": 4, "grace_period": 1, "store": str(root)}
    run = small_run(Search, **{**own, **settings})
    run = replace(run, scheduler=run.chosen_scheduler, searcher=run.chosen_searcher)
    store = Store.at(root)
    context = RunContext(run, load(run.data, Path()), store, "sqlite:///unused.db")
    folder = store.search("search-1")
    search = SearchRun(context, folder, RecordingTracker(), list(run.searched.by_name))
    search.start(run)
    return search


def run_trial(
    search: SearchRun,
    trial_id: str,
    values: list[float],
    config: Mapping[str, Any] | None = None,
    *,
    end: bool = True,
    error: str | None = None,
    metrics: Mapping[str, float] | None = None,
) -> None:
    """Run a trial that has these values of the metric that ranks, with a checkpoint an epoch.
    `metrics`: more metrics of every epoch."""
    config = config or {"optim": {"lr": 1e-3 * (1 + int(trial_id[-1], 36))}}
    folder = search.folder.trial(trial_id)
    search.handle(TrialStarted(trial_id, config, 0))
    for epoch, value in enumerate(values, 1):
        folder.journal.write_epoch(epoch, {METRIC: value, "diverged": 0.0, **(metrics or {})}, {})
        write_checkpoint(search.run, folder.path, epoch)
        search.handle(TrialReported(trial_id, epoch, value, False, 100.0 * epoch))
    if end:
        num = len(values)
        search.handle(TrialEnded(trial_id, num, num, diverged=False, error=error))


def finish_tune(search: SearchRun) -> None:
    """Tell the search that Tune has ended, and knows every trial."""
    search.tune_ended([folder.name for folder in search.folder.trials()])
    search.close_open_trials()


def run_seeds(study: SearchRun, values: list[float]) -> None:
    """Run a seed study to its end, with a value for each seed."""
    study.start(study.run)
    first = study.run.seed + 1
    for seed, value in zip(itertools.count(first), values, strict=False):
        run_trial(study, f"seed-{seed}", [value + 1.0, value], {"seed": seed})
    finish_tune(study)


def write_checkpoint(run: Search, folder: Path, epoch: int) -> None:
    """Write the checkpoint of an untrained model of the run."""
    model = gen_models.family(run.family).Model(run.model, DataSpec((1, 8, 8), 10))
    path = checkpoint_folder(folder, epoch)
    path.mkdir(parents=True, exist_ok=True)
    learner = Learner(model, run.optim, seed=0, steps_per_epoch=1)
    save_checkpoint(path, run.family, run.optim, learner)
