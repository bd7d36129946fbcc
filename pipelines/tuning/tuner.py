"""Runs Ray Tune over the trials of a search."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ray import tune

from pipelines.cluster.environment import environment, ignored_warnings
from pipelines.config.search import Search
from pipelines.store.layout import SearchFolder
from pipelines.tuning import callbacks, searchers
from pipelines.tuning.schedulers import make_scheduler
from pipelines.tuning.searchers import make_searcher
from pipelines.tuning.space import domains, grid

_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # TensorBoard and CSV files, which nobody reads
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's own table; SearchProgress shows progress
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # an epoch that diverged lacks metrics
}


def run_tuner(
    run: Search,
    folder: SearchFolder,
    trainable: Any,
    concurrent: int,
    tune_callbacks: Sequence[tune.Callback],
) -> list[str]:
    """Run the trials of a search to their end, from where Tune stood if it was interrupted.

    Returns the ids of the trials that Tune knows. Ctrl-C ends it early, without an error.
    """
    with (
        environment(_SETTINGS),
        ignored_warnings("The reported value is ignored"),  # a resumed trial repeats a report
        _quiet_optuna(),
        _signal_handlers_restored(),
    ):
        results = _make_tuner(run, folder, trainable, concurrent, tune_callbacks).fit()
    return [result.metrics["trial_id"] for result in results if result.metrics]


def _make_tuner(
    run: Search,
    folder: SearchFolder,
    trainable: Any,
    concurrent: int,
    tune_callbacks: Sequence[tune.Callback],
) -> tune.Tuner:
    path = str(folder.tune)
    if tune.Tuner.can_restore(path):
        with _modules_of_version_0_1():
            return tune.Tuner.restore(path, trainable=trainable, resume_errored=True)
    searched, by_grid = domains(run), run.chosen_searcher == "grid"
    return tune.Tuner(
        trainable,
        param_space=grid(run, searched) if by_grid else searched,
        tune_config=tune.TuneConfig(
            num_samples=1 if by_grid else run.trials,
            metric=None if run.further else run.metric,  # of several, the searcher has them
            mode=None if run.further else run.mode,
            search_alg=make_searcher(run, searched),
            scheduler=make_scheduler(run, searched),
            max_concurrent_trials=concurrent,
            reuse_actors=run.is_fused,
        ),
        run_config=tune.RunConfig(
            name=folder.tune.name,
            storage_path=str(folder.path),
            verbose=0,
            callbacks=[*tune_callbacks, tune.logger.JsonLoggerCallback()],
            failure_config=tune.FailureConfig(max_failures=run.max_failures),
            # A trial's last checkpoint lies in its run folder already.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Show Optuna's warnings only, for the block: it logs a line for each trial."""
    logger = logging.getLogger("optuna")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _signal_handlers_restored() -> Iterator[None]:
    """Restore the process's signal handlers after the block: Tune installs its own, with which
    Ctrl-C ends a search in order, and leaves them behind (`ray.tune.tune.run`)."""
    if threading.current_thread() is not threading.main_thread():
        yield  # no signal handler can be set here, so Tune sets none
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _modules_of_version_0_1() -> Iterator[None]:
    """Make the classes that version 0.1 pickled into Tune's state known under their old names, for
    the block, so that its searches can be resumed."""
    modules = {"pipelines.recorder": callbacks, "pipelines.tpe": searchers}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]
