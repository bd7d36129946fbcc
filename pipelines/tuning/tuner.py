"""Runs Ray Tune over the trials of a search."""

from __future__ import annotations

import json
import logging
import pickle  # nosec B403  # of Tune's own state, in a store that is trusted (SECURITY.md)
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.callback import CallbackList
from ray.tune.execution.tune_controller import TuneController
from ray.tune.search import Searcher
from ray.tune.search.search_generator import SearchGenerator

from pipelines.cluster.environment import environment, ignored_warnings
from pipelines.cluster.signals import handlers_restored
from pipelines.config.search import Search
from pipelines.store.files import StoreError
from pipelines.store.journal import as_json, read_json
from pipelines.store.layout import SearchFolder
from pipelines.store.usage import read_usage
from pipelines.tuning import callbacks
from pipelines.tuning.strategy.recorded_trials import recorded_trials
from pipelines.tuning.strategy.schedulers import make_scheduler
from pipelines.tuning.strategy.searchers import STATE_FILE, Lesson, RecordedSearch, RecordedTrial

_log = logging.getLogger(__name__)
_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # TensorBoard and CSV files, which nobody reads
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's own table; SearchProgress shows progress
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # an epoch that diverged lacks metrics
}
_EXPECTED_WARNINGS = (
    "The reported value is ignored",  # a resumed trial repeats a report
    # pb2 fits a Gaussian process at each decision, first to very few trials.
    "The optimal value found for dimension",
    "lbfgs failed to converge",
)
_STATE_FILES = (
    TuneController.CKPT_FILE_TMPL,
    SearchGenerator.CKPT_FILE_TMPL,
    STATE_FILE,
    Searcher.CKPT_FILE_TMPL,
    CallbackList.CKPT_FILE_TMPL,
)
_JSON_FILES = (TuneController.CKPT_FILE_TMPL, STATE_FILE)
"""Of these, the ones that are no pickled objects."""
_STATE_TIME = "%Y-%m-%d_%H-%M-%S"  # of ray.tune.execution.tune_controller.TuneController


def run_tuner(
    run: Search,
    folder: SearchFolder,
    trainable: Any,
    concurrent: int,
    tune_callbacks: Sequence[tune.Callback],
    earlier: Sequence[tuple[Mapping[str, Any], Lesson]] = (),
) -> list[str]:
    """Run the trials of a search to their end, from where Tune stood if it was interrupted.

    `earlier`: points of earlier searches, and what they teach the searcher.

    Tune writes its state as a copy that a kill can tear, and the first some time after it has
    started. If it cannot be read, if the search was given more trials or epochs since, or was
    ended before all its trials had (`SearchStopper`), Tune begins anew with what the journals
    hold: trials that have ended stay, the others go on from their checkpoints.

    Returns the ids of the trials that Tune knows, or that ended before its state was lost. Ctrl-C
    ends it early, without an error. Raises `StoreError` if no trial can use the store.
    """
    with (
        environment(_SETTINGS),
        ignored_warnings(*_EXPECTED_WARNINGS),
        _quiet_optuna(),
        _quiet_about_the_store(),
        handlers_restored(signal.SIGINT, signal.SIGUSR1),
    ):
        try:
            tuner = _make_tuner(run, folder, trainable, concurrent, tune_callbacks, earlier)
            results = tuner.fit()
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
    earlier: Sequence[tuple[Mapping[str, Any], Lesson]],
) -> tune.Tuner:
    stopper = callbacks.SearchStopper(folder.name)
    if folder.files.exists(folder.tune):
        reason = why_anew(run, folder)
        if reason is None:
            _order_by_clock(folder)
            path = str(folder.tune)
            return tune.Tuner.restore(path, trainable=trainable, resume_errored=True)
        _log.warning("search %s: Tune begins anew, because %s", folder.name, reason)
    recorded = _set_aside(run, folder)
    searcher = RecordedSearch(run, recorded, concurrent, folder.name, earlier)
    if earlier:
        _log.info(
            "search %s: %d of %d trials of earlier searches lie in its space, and are known to "
            "its searcher",
            folder.name,
            searcher.num_earlier,
            len(earlier),
        )
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            num_samples=searcher.num_samples,
            search_alg=searcher,
            scheduler=make_scheduler(run, recorded),
            reuse_actors=run.is_fused,
        ),
        run_config=tune.RunConfig(
            name=folder.tune.name,
            storage_path=str(folder.path),
            verbose=0,
            callbacks=[*tune_callbacks, tune.logger.JsonLoggerCallback()],
            stop=stopper,
            failure_config=tune.FailureConfig(max_failures=run.max_failures),
            # A trial's last checkpoint lies in its run folder already.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )


# -- Tune begins anew ----------------------------------------------------------------------------
def why_anew(run: Search, folder: SearchFolder) -> str | None:
    """Return why Tune cannot go on from its state of a search; None if it can."""
    if ended_by := read_usage(folder).ended_by:
        return f"it was ended: {ended_by}"
    try:
        # Tune reads the same next.
        tuner = pickle.loads((folder.tune / "tuner.pkl").read_bytes())  # nosec B301
        for kind in _STATE_FILES:
            is_optional = kind == CallbackList.CKPT_FILE_TMPL  # no callback need have a state
            if is_optional and not folder.files.list(folder.tune, kind.format("*")):
                continue
            content = _newest(folder.tune, kind.format("*")).read_bytes()
            if kind not in _JSON_FILES:
                pickle.loads(content)  # nosec B301  # likewise
            elif kind == TuneController.CKPT_FILE_TMPL:
                for trial, metadata in json.loads(content)["trial_data"]:
                    json.loads(trial), json.loads(metadata)
            else:
                json.loads(content)
    except Exception as error:  # whatever torn bytes may raise
        return f"its state cannot be read ({type(error).__name__}: {error})"
    made_for = getattr(tuner["_tune_config"].search_alg, "budget", None)
    if made_for is None:
        return "its state was written by an earlier version"
    if made_for != (run.trials, run.epochs):
        return f"it was made for {made_for[0]} trials of {made_for[1]} epochs"
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


def _set_aside(run: Search, folder: SearchFolder) -> list[RecordedTrial]:
    """Put Tune's state aside, if there is any, and note the trials that have ended; return those
    that are recorded, of a new search none."""
    recorded = recorded_trials(run, folder)
    if not recorded and not folder.files.exists(folder.tune):
        return []
    ended = [trial.trial_id for trial in recorded if trial.has_ended]
    folder.files.write(folder.carried, as_json({"trials": ended}))
    if folder.files.exists(folder.tune):
        folder.files.remove(folder.damaged_tune)
        folder.tune.rename(folder.damaged_tune)
    _log.info(
        "search %s goes on with what the journals hold: %d trials have ended, %d go on from their "
        "checkpoints",
        folder.name,
        len(ended),
        len(recorded) - len(ended),
    )
    return recorded


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
