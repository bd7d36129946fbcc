"""Runs Ray Tune over the trials of a search."""

from __future__ import annotations

import json
import logging
import pickle  # nosec B403  # of Tune's own state, in a store that is trusted (SECURITY.md)
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.callback import CallbackList
from ray.tune.execution.tune_controller import TuneController
from ray.tune.search import Searcher
from ray.tune.search.basic_variant import BasicVariantGenerator
from ray.tune.search.search_generator import SearchGenerator

from gen_models.core.config import flatten
from pipelines.cluster.environment import environment, ignored_warnings
from pipelines.cluster.signals import handlers_restored
from pipelines.config.search import Search
from pipelines.config.serialization import load_config
from pipelines.store.files import StoreError
from pipelines.store.journal import as_json, read_json
from pipelines.store.layout import SearchFolder
from pipelines.store.scan import JournalCache
from pipelines.tuning import callbacks, searchers
from pipelines.tuning.schedulers import make_scheduler
from pipelines.tuning.searchers import ContinuedSearch, RecordedTrial, make_searcher
from pipelines.tuning.space import default_point, domains, grid

_log = logging.getLogger(__name__)
_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # TensorBoard and CSV files, which nobody reads
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's own table; SearchProgress shows progress
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # an epoch that diverged lacks metrics
}
_STATE_FILES = (
    TuneController.CKPT_FILE_TMPL,
    SearchGenerator.CKPT_FILE_TMPL,
    BasicVariantGenerator.CKPT_FILE_TMPL,
    Searcher.CKPT_FILE_TMPL,
    CallbackList.CKPT_FILE_TMPL,
)
_STATE_TIME = "%Y-%m-%d_%H-%M-%S"  # of ray.tune.execution.tune_controller.TuneController


def run_tuner(
    run: Search,
    folder: SearchFolder,
    trainable: Any,
    concurrent: int,
    tune_callbacks: Sequence[tune.Callback],
) -> list[str]:
    """Run the trials of a search to their end, from where Tune stood if it was interrupted.

    Tune writes its state as a copy that a kill can tear, and the first some time after it has
    started. If it cannot be read, Tune begins anew with what the journals hold: trials that have
    ended stay, the others go on from their checkpoints.

    Returns the ids of the trials that Tune knows, or that ended before its state was lost. Ctrl-C
    ends it early, without an error. Raises `StoreError` if no trial can use the store.
    """
    with (
        environment(_SETTINGS),
        ignored_warnings("The reported value is ignored"),  # a resumed trial repeats a report
        _quiet_optuna(),
        _quiet_about_the_store(),
        handlers_restored(signal.SIGINT, signal.SIGUSR1),
    ):
        try:
            results = _make_tuner(run, folder, trainable, concurrent, tune_callbacks).fit()
        except tune.TuneError as error:  # Tune has only the text of what was raised
            raise StoreError.found_in(str(error)) or error from None
    known = [result.metrics["trial_id"] for result in results if result.metrics]
    return [*known, *_carried(folder)]


def _make_tuner(
    run: Search,
    folder: SearchFolder,
    trainable: Any,
    concurrent: int,
    tune_callbacks: Sequence[tune.Callback],
) -> tune.Tuner:
    recorded: list[RecordedTrial] = []
    if folder.files.exists(folder.tune):
        with _modules_of_version_0_1():
            error = damage(folder.tune)
            if error is None:
                _order_by_clock(folder)
                path = str(folder.tune)
                return tune.Tuner.restore(path, trainable=trainable, resume_errored=True)
        recorded = _set_aside(run, folder, error)
    searched, by_grid = domains(run), run.chosen_searcher == "grid"
    searcher, num_samples = make_searcher(run, searched), 1 if by_grid else run.trials
    limit: int | None = concurrent
    if recorded:
        searcher, limit = ContinuedSearch(run, searched, recorded, concurrent), None
        num_samples = 1 if by_grid else searcher.num_samples
    return tune.Tuner(
        trainable,
        param_space=grid(run, searched) if by_grid else searched,
        tune_config=tune.TuneConfig(
            num_samples=num_samples,
            metric=None if run.further else run.metric,  # of several, the searcher has them
            mode=None if run.further else run.mode,
            search_alg=searcher,
            scheduler=make_scheduler(run, searched),
            max_concurrent_trials=limit,
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


# -- Tune's state is lost -------------------------------------------------------------------------
def damage(folder: Path) -> str | None:
    """Return why Tune cannot go on from its state in a folder; None if it can."""
    try:
        pickle.loads((folder / "tuner.pkl").read_bytes())  # nosec B301  # Tune does the same next
        state = json.loads(_newest(folder, "experiment_state-*.json").read_bytes())
        for trial, metadata in state["trial_data"]:
            json.loads(trial), json.loads(metadata)
        for kind in ("search_gen_state-*.json", "basic-variant-state-*.json"):
            for path in sorted(folder.glob(kind))[-1:]:
                pickle.loads(path.read_bytes())  # nosec B301  # likewise
    except Exception as error:  # whatever torn bytes may raise
        return f"{type(error).__name__}: {error}"
    return None


def _newest(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if not found:
        raise FileNotFoundError(f"no {pattern}: it was killed before it had saved any")
    return found[-1]


def _order_by_clock(folder: SearchFolder) -> None:
    """Give Tune's newest state a time before now, if the clock was set back since: Tune takes the
    latest time in a name for the newest state, and would resume from this one for ever."""
    now = datetime.now()
    for kind in _STATE_FILES:
        states = folder.files.list(folder.tune, kind.format("*"))
        if not states or states[-1].name < kind.format(now.strftime(_STATE_TIME)):
            continue
        for path in states[:-1]:  # first, so that the newest is always the last
            folder.files.remove(path)
        earlier = kind.format((now - timedelta(seconds=1)).strftime(_STATE_TIME))
        folder.files.move(states[-1], folder.tune / earlier)


def _set_aside(run: Search, folder: SearchFolder, error: str) -> list[RecordedTrial]:
    """Put Tune's state aside, and note the trials that have ended; return those that are
    recorded."""
    recorded = recorded_trials(run, folder)
    ended = [trial.trial_id for trial in recorded if trial.has_ended]
    folder.files.write(folder.carried, as_json({"trials": ended}))
    folder.files.remove(folder.damaged_tune)
    folder.tune.rename(folder.damaged_tune)
    _log.warning(
        "Tune's state of search %s cannot be read (%s): it begins anew with what the journals "
        "hold: %d trials have ended, %d go on from their checkpoints",
        folder.name,
        error,
        len(ended),
        len(recorded) - len(ended),
    )
    return recorded


def recorded_trials(run: Search, folder: SearchFolder) -> list[RecordedTrial]:
    """Return the trials that the journals of a search hold, but for superseded ones."""
    searched, found = domains(run), []
    names = list(flatten(searched))
    for record in JournalCache().read_trials(folder):
        info, outcome = record.info, record.outcome
        ending = outcome.ending if outcome else "interrupted"
        if info is None or ending == "superseded":
            continue
        config_file = record.folder.config
        config = load_config(folder.files.read(config_file), str(config_file))
        counted = record.counted()
        last: Mapping[str, float] = counted[-1].metrics if counted else {}
        values = [last[o.metric] for o in run.objectives if o.metric in last]
        found.append(
            RecordedTrial(
                trial_id=info.trial_id,
                params={name: info.params[name] for name in names},
                point=default_point(config, searched),
                has_ended=ending in ("completed", "stopped_early", "diverged"),
                values=values if len(values) == len(run.objectives) else None,
            )
        )
    return found


def _carried(folder: SearchFolder) -> list[str]:
    """Return the trials that had ended when Tune began anew."""
    trial_ids: list[str] = read_json(folder.files, folder.carried).get("trials", [])
    return trial_ids


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
def _quiet_about_the_store() -> Iterator[None]:
    """Hide the tracebacks that Tune logs of trials that cannot use the store: the command ends
    with one message of it."""

    def is_shown(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return StoreError.found_in(f"{error}") is None

    logger = logging.getLogger("ray.tune.execution.tune_controller")
    logger.addFilter(is_shown)
    try:
        yield
    finally:
        logger.removeFilter(is_shown)


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
