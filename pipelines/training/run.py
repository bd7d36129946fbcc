"""Training of one config: Ray Train runs the workers, the journal records them."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from concurrent.futures import Future, wait
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import asdict, replace
from typing import Any

from ray.train.v2.api.exceptions import TrainingFailedError

from gen_models.core.checkpoint import load_checkpoint
from gen_models.core.errors import DamagedError, InputError, require
from gen_models.core.sampling import sample
from pipelines.analysis.best_epoch import best_epoch, epoch_costs, summarise_run
from pipelines.cluster import signals
from pipelines.cluster.connection import connect
from pipelines.cluster.process import restored_process
from pipelines.cluster.resources import uses_gpu
from pipelines.cluster.shared_store import shared_store
from pipelines.cluster.threads import run_in_thread
from pipelines.config.command import resume_command
from pipelines.config.job_text import dump_job
from pipelines.config.objectives import as_list
from pipelines.config.run import Train
from pipelines.config.search import with_metrics
from pipelines.config.serialization import config_from_python, dump_config, load_config, to_dict
from pipelines.data.loading import is_moved
from pipelines.evaluation.images import drawing_of
from pipelines.report.console import ensure_logging
from pipelines.report.results import TrainResult, existing
from pipelines.store.checkpoints import damaged_epochs, prune_checkpoints
from pipelines.store.files import LeaseLostError, StoreError
from pipelines.store.journal import EpochRecord, RunInfo, RunStatus
from pipelines.store.layout import RunFolder
from pipelines.store.lease import holding, require_held
from pipelines.store.scan import JournalCache, RunRecord
from pipelines.store.secrets import hide
from pipelines.store.stop_request import withdraw_request
from pipelines.tracking.base import Tracker, check_recording
from pipelines.tracking.queue import open_tracker
from pipelines.training.control import StopPoll
from pipelines.training.payload import TrainingPayload, share_dataset
from pipelines.training.precision import resolve_precision
from pipelines.training.preflight import (
    RunContext,
    check_run,
    preflight,
    require_recorded_data,
)
from pipelines.training.restoring import is_whole
from pipelines.training.run_info import param_values, run_info, settings_hash
from pipelines.training.trainer import make_trainer

_LINE = 80
"""Characters of a line about an epoch."""
_POLL_SECONDS = 0.3
_log = logging.getLogger(__name__)

_FREE = {"num_workers", "max_failures"}
"""Settings that may differ when a run is resumed: its result does not depend on them."""


def train(
    family: str, *, metric: str | None = None, mode: str | None = None, **settings: Any
) -> TrainResult:
    """Train one config, and record it.

    `metric` selects the best epoch; `mode` is by default what is known of it. The other `settings`
    are those of `genpipe train FAMILY --help`, with `_` in place of `-`; `model` and `optim` are
    mappings. Raises `InputError` at an unknown setting or a wrong value, before Ray starts.

    >>> import genpipe
    >>> result = genpipe.train("vae", data="digits", epochs=5, model={"latent_dim": 8})
    >>> result.value, result.checkpoint
    """
    ensure_logging()
    run = config_from_python(Train, family, settings)
    return train_config(with_metrics(run, as_list("metric", metric), as_list("mode", mode)))


@restored_process()
def train_config(run: Train) -> TrainResult:
    """Train one config to its end, from its last checkpoint if it has one.

    Raises `InputError` if the config is wrong, or the run's name stands for another config.
    """
    context = preflight(run)
    folder = _folder(context)
    with holding(folder, "name"):
        withdraw_request(folder)
        _require_recorded(context, folder)
        context = _with_recorded_labels(context, folder)
        return _train(context, folder)


def check_train(run: Train) -> RunContext[Train]:
    """Make the checks that training makes before it begins, writing nothing.

    Raises `InputError` as `train_config` does.
    """
    context = check_run(run)
    check_recording(context.store, run.tracking_uri)
    folder = _folder(context)
    _require_recorded(context, folder)
    return _with_recorded_labels(context, folder)


def _folder(context: RunContext[Train]) -> RunFolder:
    name = context.run.name or (
        f"{context.registered_model}-{settings_hash(context.run, context.dataset)}"
    )
    return context.store.run(name)


def _require_recorded(context: RunContext[Train], folder: RunFolder) -> None:
    """Raise `InputError` if the run's name was used for another config or other data."""
    require_recorded_data(context.run, context.dataset, folder.journal)
    _require_same(folder, _info(context, context.run, folder.name))


def _with_recorded_labels(context: RunContext[Train], folder: RunFolder) -> RunContext[Train]:
    """Return the context with the experiment, tags and note that the run was recorded with, as far
    as this command gives no others.

    Raises `InputError` at another experiment: MLflow cannot move a run.
    """
    with suppress(DamagedError):
        if info := folder.journal.info():
            run, labels = context.run, folder.journal.labels()
            expected = f"{info.experiment}, the experiment of run {info.name}, or another --name"
            fits = run.experiment in (None, info.experiment)
            require(fits, "experiment", run.experiment, expected)
            tag = run.tag or tuple(f"{name}={value}" for name, value in labels.tags.items())
            note = run.note or labels.note or None
            run = replace(run, experiment=info.experiment, tag=tag, note=note)
            return replace(context, run=run)
    return context


def _train(context: RunContext[Train], folder: RunFolder) -> TrainResult:
    """Train a run to its end, unless it is complete; return its result once it is delivered."""
    with ExitStack() as at_end, open_tracker(context.uri, context.store) as tracker:
        at_end.callback(_say_how_to_resume, context.run, folder)
        record = JournalCache().read(folder)
        if record.outcome and record.outcome.ending == "completed" and not record.damage:
            folder.journal.label(context.run.labels)
            _log.info("%s is complete already; --name NAME trains the config again", folder.name)
        else:
            _run(context, folder, tracker)
        tracker.sync(folder.journal)
        tracker.finish()
        return _result(context, folder, tracker)


def _say_how_to_resume(run: Train, folder: RunFolder) -> None:
    """Log the command that resumes a run, if it was interrupted."""
    with suppress(DamagedError, LeaseLostError):  # lost: another command goes on with it
        require_held(folder)
        outcome = folder.journal.outcome()
        if folder.journal.has_started and (not outcome or outcome.ending == "interrupted"):
            _log.warning("interrupted: `%s` resumes from the last checkpoint", resume_command(run))


def write_samples(folder: RunFolder, checkpoint: Any, path: Any, seed: int = 0) -> None:
    """Write a picture of a checkpoint's samples as a PNG file."""
    loaded = load_checkpoint(checkpoint)
    drawing = drawing_of(loaded.model)
    samples = sample(loaded.model, loaded.networks, drawing.num_samples, seed)
    folder.files.write(path, drawing.samples(samples))


def open_run(folder: RunFolder, run: Train, info: RunInfo) -> None:
    """Record that a run starts or goes on, with its config; but for a trial also as a job file."""
    if info.kind == "run":
        folder.files.write(folder.job, dump_job(run, folder.name))
        folder.journal.label(run.labels)
    folder.files.write(folder.config, dump_config(run))
    folder.journal.open(info)


def _info(context: RunContext[Train], run: Train, name: str) -> RunInfo:
    experiment = context.experiment
    return run_info(
        run, context.dataset, kind="run", name=name, experiment=experiment, trial_id=name
    )


def _require_same(folder: RunFolder, info: RunInfo) -> None:
    """Raise `InputError` if the run's name was used for another config."""
    known = _recorded_params(folder)
    for key in sorted(info.params) if known else []:
        before = known.get(key)
        is_measured = key == "precision" and info.params[key] == "auto"
        if key == "data" and is_moved(str(info.params[key]), str(before)):
            continue  # their digests are compared
        if before != info.params[key] and not is_measured and key not in _FREE:
            raise InputError(
                f"name = {info.name!r}: expected a new name, because the run of this name in "
                f"{folder.path} has {key} = {before!r} and not {info.params[key]!r}"
            )


def _run(context: RunContext[Train], folder: RunFolder, tracker: Tracker) -> None:
    """Run the workers to their end, and record how it ended."""
    extractor = context.extractor  # computed before Ray takes the cores
    run, start = context.run, time.monotonic()
    status: RunStatus = "completed"
    message, unusable = "", None
    try:
        with connect(run.address) as cluster:
            on_gpu = uses_gpu(cluster, run.device, run.num_workers)
            marker = shared_store(context.store.root, folder.marker, cluster)
            run = _with_recorded_precision(run, folder)
            run = resolve_precision(run, context.dataset.spec, cluster, on_gpu)
            open_run(folder, run, _info(context, run, folder.name))
            dataset = share_dataset(context.dataset, extractor)
            trainer = make_trainer(
                TrainingPayload(to_dict(run), str(folder.path), dataset, on_gpu, marker)
            )
            message = _follow(run_in_thread(trainer.fit), folder, run, tracker)
            status = "stopped_early" if message else "completed"
    except TrainingFailedError as error:
        unusable = StoreError.found_in(str(error))
        status, message = ("interrupted", str(unusable)) if unusable else ("failed", str(error))
        if not unusable:
            _log.error("training failed: %s", message)
    except KeyboardInterrupt:
        if not folder.journal.has_started:
            raise
        status = "interrupted"
    with signals.deferred(), suppress(StoreError) if unusable else nullcontext():
        _close(context, folder, status, message, time.monotonic() - start)
    if unusable:
        raise unusable


def _recorded_params(folder: RunFolder) -> Mapping[str, Any]:
    """Return the parameters with which the run was started; {} if it is new. Both files that hold
    them would have to be damaged for it to be taken for new."""
    try:
        info = folder.journal.info()
        return info.params if info else {}
    except DamagedError as error:
        _log.warning("%s", error)
    try:
        return param_values(load_config(folder.files.read(folder.config), str(folder.config)))
    except (InputError, FileNotFoundError) as error:
        _log.warning("%s", error)
        return {}


def _with_recorded_precision(run: Train, folder: RunFolder) -> Train:
    """Return the run with the precision that was measured when it started, if it is resumed."""
    recorded: Any = _recorded_params(folder).get("precision")
    return replace(run, precision=recorded or run.precision)


def _follow(work: Future[Any], folder: RunFolder, run: Train, tracker: Tracker) -> str:
    """Log and deliver each epoch as it appears in the journal, until the work is done, as it is
    after the running epoch if `genpipe stop` asks for it. Return why it was stopped; "" if it was
    not.

    Raises what the work raises.
    """
    poll, asked = StopPoll([folder]), ""
    journal = folder.journal
    last, damaged = journal.whole_until(), set(damaged_epochs(folder.path, folder.files))
    if last:
        _log.info("resuming after epoch %d", last)
    over = False
    while not over:
        over = bool(wait([work], _POLL_SECONDS).done)  # then look once more after the end
        require_held(folder)
        with suppress(DamagedError):  # of a record that is trained again soon
            for record in journal.records(after=last):
                last = record.epoch
                _log.info(epoch_line(record, run))
                tracker.sync(journal)
        for epoch in damaged_epochs(folder.path, folder.files):
            if epoch not in damaged:
                damaged.add(epoch)
                _log.warning(DAMAGED, folder.name, epoch, epoch)
        if over:
            break
        if not asked and (asked := poll.look(time.monotonic())):
            _log.info("%s: ending after the epoch that runs", asked)
    work.result()
    if last >= run.epochs:
        return ""
    return asked or StopPoll([folder]).look(time.monotonic())


DAMAGED = (
    "%s: the checkpoint of epoch %d is damaged, and kept as damaged_checkpoint_%06d: training "
    "went on from the one before it"
)


def epoch_line(record: EpochRecord, run: Train) -> str:
    """Return an epoch in one line of some 80 characters, whose parts stand below those of the
    line before: the metric that ranks, losses, and of the other metrics those that have room."""
    metrics, num = record.metrics, len(str(run.epochs))
    names = [name for name in metrics if name.startswith(("val/", "train/"))]
    names.sort(key=lambda name: (name != run.metric, "loss" not in name, "val/" not in name))
    speed = metrics.get("images_per_second")
    end = f"{speed:,.0f} images/s" if speed is not None else ""
    line = f"epoch {record.epoch:{num}}/{run.epochs}  "
    for name in names:
        part = f"{name} {metrics[name]:<10.4g}  "
        if name == run.metric or len(line) + len(part) <= _LINE - len(" 100,000 images/s"):
            line += part
    return f"{line}{end}".rstrip()


def _with_whole_best(folder: RunFolder, run: Train) -> RunRecord:
    """Return the run's record. Its best checkpoint is whole: damaged ones are set aside."""
    while True:
        record = JournalCache().read(folder)
        best = best_epoch(record, run.objective)
        if best is None or is_whole(folder.path, best.epoch, folder.files):
            return record


def _close(
    context: RunContext[Train], folder: RunFolder, status: RunStatus, message: str, seconds: float
) -> None:
    """Record how the run ended, with its best checkpoint if it is complete or was stopped."""
    require_held(folder)
    run, record = context.run, _with_whole_best(folder, context.run)
    final = record.epochs.get(record.last_epoch)
    if status == "completed" and final and final.metrics.get("diverged"):
        status = "diverged"
    outcome = summarise_run(record, run.objective, status, record.last_epoch, message)
    summary = {**outcome.summary, **context.extractor.summary, "wall_seconds": seconds}
    outcome = replace(outcome, summary=summary)
    best = best_epoch(record, run.objective)
    if status in ("completed", "stopped_early") and best:
        write_samples(folder, best.checkpoint, folder.samples)
        artifacts = {"samples": folder.samples.name}
        outcome = replace(outcome, checkpoint=best.checkpoint.name, artifacts=artifacts)
        costs = epoch_costs(record, run.objective)
        prune_checkpoints(folder.path, costs, run.keep_checkpoints, files=folder.files)
    folder.journal.close(outcome)


def _result(context: RunContext[Train], folder: RunFolder, tracker: Tracker) -> TrainResult:
    run, record = context.run, JournalCache().read(folder)
    assert record.outcome is not None
    best = best_epoch(record, run.objective)
    is_stopped = record.outcome.ending == "stopped_early"
    return TrainResult(
        name=folder.name,
        run_id=tracker.run_id(folder.journal),
        experiment=context.experiment,
        tracking_uri=hide(context.uri),
        outcome=record.outcome.ending,
        epoch=record.outcome.last_epoch,
        metric=run.metric,
        value=best.value if best else None,
        best_epoch=best.epoch if best else None,
        metrics=dict(best.metrics) if best else {},
        checkpoint=str(best.checkpoint) if best else None,
        samples=existing(folder.samples),
        model=asdict(run.model),
        optim=asdict(run.optim),
        model_error=folder.journal.delivered().get("model_error"),
        ended_by=record.outcome.tags.get("message", ""),
        resume=resume_command(run) if is_stopped else "",
    )
