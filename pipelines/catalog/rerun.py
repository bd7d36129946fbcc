"""Repeats a recorded run alone, in this process, and compares it with what is recorded.

What is recorded comes from the store's journal, or from MLflow alone: the config, the metrics of
each epoch, how epochs were trained, and the digest of the weights. A trial of population based
training is repeated by its schedule: the settings of each epoch, from the first weights on, also
where another trial had trained them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gen_models.core.config import nest, parse_object
from gen_models.core.errors import InputError, require
from gen_models.fused.trainer import FusedTrainer
from gen_models.training.cpu import cpu_thread_settings
from gen_models.training.processor import processor_name
from pipelines.analysis.best_epoch import WEIGHTS, WIDEST
from pipelines.catalog.models import reading
from pipelines.cluster.process import restored_process
from pipelines.config.run import Train, as_train
from pipelines.config.serialization import load_config, with_settings
from pipelines.data import Dataset
from pipelines.evaluation.feature_spaces import make_extractor, with_moments
from pipelines.report.console import ensure_logging
from pipelines.report.results import Difference, RerunResult
from pipelines.store.journal import SCHEDULES, EpochContext, Schedule, schedule_from
from pipelines.store.layout import RunFolder, Store
from pipelines.tracking.base import RunReader, RunRow
from pipelines.tracking.provenance import provenance
from pipelines.training.loop import EpochLoop, Metrics, TrialState, make_data, make_learner
from pipelines.training.payload import SharedDataset
from pipelines.training.preflight import load_data, with_data

_log = logging.getLogger(__name__)
_COMPARED = ("train/", "val/")
"""Metrics that follow from the config, the seed and the data."""


@dataclass(frozen=True)
class Recorded:
    """What is recorded of a run."""

    name: str
    config: Train
    tags: Mapping[str, str]
    epochs: Mapping[int, Mapping[str, float]]
    """The metrics of each epoch that counts."""
    contexts: Mapping[int, EpochContext]
    """How each epoch was trained, as far as it is known."""
    source: str
    """Where it was read."""


@restored_process()
def rerun(
    run: str,
    *,
    store: str | Path | None = None,
    tracking_uri: str | None = None,
    data: str | None = None,
    data_root: str | Path | None = None,
    download: bool = False,
) -> RerunResult:
    """Repeat a recorded run or trial alone, and compare every value.

    `run`: a run's id or name, a trial's, `NAME@champion` or `models:/NAME/VERSION`. Trains in this
    process, on the kind of device that the run was trained on, if there is one, and records
    nothing. `data`: the run's data at another path, if they were moved. Raises `InputError` if
    there is no such run.

    >>> import genpipe
    >>> genpipe.rerun("vae-digits@champion", store="runs").equal
    """
    ensure_logging()
    place = Store.at(store)
    recorded = find_recorded(run, place, tracking_uri)
    config = with_data(recorded.config, data, data_root, download)
    dataset = load_data(config)
    circumstances = _circumstances(recorded, dataset)
    again: dict[int, tuple[Metrics, str]] = {}
    if dataset.digest == recorded.tags.get("data_digest", dataset.digest):
        _log.info("training %s again, as %s has it", recorded.name, recorded.source)
        again = _repeat(recorded, config, dataset, place)
    return _compare(recorded, again, circumstances)


# -- what is recorded -------------------------------------------------------------------------
def find_recorded(run: str, store: Store, tracking_uri: str | None = None) -> Recorded:
    """Return what is recorded of a run or a trial: in the store under its name, or else in MLflow.

    Raises `InputError` if there is no such run, or if it is not one of one config.
    """
    folder = _folder_named(run, store)
    if folder:
        return _from_journal(folder)
    with reading(store, tracking_uri) as reader:
        row = reader.run(run)
        alone = f"a run or a trial, and not a {row.kind or 'run of another program'}"
        require(row.kind in ("run", "trial"), "run", run, alone)
        folder = _folder_of(row, store)
        return _from_journal(folder) if folder else _from_tracker(reader, row)


def _folder_named(name: str, store: Store) -> RunFolder | None:
    """Return the only run folder of this name in the store; None if there is not just one."""
    if not name or Path(name).name != name:
        return None
    searches = [store.search(search_id) for search_id in store.search_ids()]
    folders = [store.run(name), *(search.trial(name) for search in searches)]
    found = [folder for folder in folders if folder.files.exists(folder.config)]
    return found[0] if len(found) == 1 else None


def _folder_of(row: RunRow, store: Store) -> RunFolder | None:
    """Return the folder of a run that MLflow has; None if its journal is not in this store."""
    is_trial = row.kind == "trial"
    folder = store.search(row.search_id).trial(row.trial_id) if is_trial else store.run(row.name)
    info = folder.journal.info()
    return folder if info and info.key == row.tags.get("key") else None


def _from_journal(folder: RunFolder) -> Recorded:
    journal = folder.journal
    info, outcome = journal.info(), journal.outcome()
    require(info is not None, "run", folder.name, "a run that has started")
    assert info
    records = list(journal.records(upto=outcome.last_epoch if outcome else None))
    return Recorded(
        name=info.name,
        config=as_train(load_config(folder.files.read(folder.config), str(folder.config))),
        tags=info.tags,
        epochs={each.epoch: each.metrics for each in records},
        contexts={each.epoch: each.context for each in records},
        source=str(journal.folder),
    )


def _from_tracker(reader: RunReader, row: RunRow) -> Recorded:
    epochs = {epoch: values for epoch, values in reader.history(row).items() if epoch <= row.epoch}
    where = f"{SCHEDULES}/schedules.json of run {row.name}"
    written = parse_object(reader.artifact(row, f"{SCHEDULES}/schedules.json") or "{}", where)
    try:
        schedules = {int(epoch): schedule_from(each) for epoch, each in written.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{where}: damaged: {error}") from error
    context = EpochContext(
        execution=row.tags.get("execution", ""),
        widest=parse_object(row.tags.get(WIDEST, "{}"), f"tag {WIDEST} of run {row.name}"),
        device=row.tags.get("device", ""),
        processor=row.tags.get("processor", ""),
    )
    last = max(epochs, default=0)
    contexts = {
        epoch: replace(
            context,
            schedule=schedules.get(epoch, ()),
            weights=row.tags.get(WEIGHTS, "") if epoch == last else "",
        )
        for epoch in epochs
    }
    config = as_train(reader.config(row))
    return Recorded(row.name, config, row.tags, epochs, contexts, f"MLflow's run {row.run_id}")


# -- the circumstances ------------------------------------------------------------------------
def _circumstances(recorded: Recorded, dataset: Dataset) -> dict[str, Difference]:
    """Return what differs between the recorded run and this repetition of it."""
    before = {name: value for name, value in recorded.tags.items() if name.startswith("version.")}
    here = {name: provenance()[name] for name in before if name in provenance()}
    before["data_digest"] = recorded.tags.get("data_digest", "")
    here["data_digest"] = dataset.digest
    last = recorded.contexts[max(recorded.contexts)] if recorded.contexts else EpochContext()
    device = _device(last)
    before |= {"device": last.device, "processor": last.processor}
    here |= {"device": device.type, "processor": processor_name(device.type)}
    ways = {each.execution or "in_turn" for each in recorded.contexts.values()}
    before["execution"], here["execution"] = "; ".join(sorted(ways)), last.execution or "in_turn"
    before["num_workers"], here["num_workers"] = str(recorded.config.num_workers), "1"
    before["precision"] = recorded.config.precision
    here["precision"] = _config(recorded.config).precision
    return {
        name: Difference(recorded=before[name], here=value)
        for name, value in here.items()
        if before[name] and before[name] != value
    }


def _device(context: EpochContext) -> torch.device:
    """Return the kind of device that an epoch was trained on, if this machine has one."""
    is_gpu = context.device != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if is_gpu else "cpu")


def _config(config: Train) -> Train:
    """Return a recorded config as it can be trained here, alone."""
    precision = "fp32" if config.precision == "auto" else config.precision
    return replace(config, precision=precision, num_workers=1)


# -- the repetition ---------------------------------------------------------------------------
Plan = tuple[str, ...]
"""The searched settings of each epoch that led to a state, flat, as JSON."""


def _repeat(
    recorded: Recorded, config: Train, dataset: Dataset, store: Store
) -> dict[int, tuple[Metrics, str]]:
    """Train the run again; return the metrics and the digest of the weights of each epoch."""
    plans = {epoch: _plan(epoch, each.schedule) for epoch, each in recorded.contexts.items()}
    again: dict[int, tuple[Metrics, str]] = {}
    with _threads_of_a_worker():
        training = _Training(recorded, _config(config), dataset, store)
        for plan in _longest(plans.values()):
            results = training.run(plan)
            for epoch, own in plans.items():
                if plan[: len(own)] == own and len(own) <= len(results):
                    again.setdefault(epoch, results[len(own) - 1])
    return again


def _plan(epoch: int, schedule: Schedule) -> Plan:
    if not schedule:
        return ("{}",) * epoch
    return tuple(
        json.dumps(dict(segment.settings), sort_keys=True)
        for segment in schedule
        for _ in range(segment.epochs)
    )


def _longest(plans: Iterable[Plan]) -> list[Plan]:
    """Return the plans that are not the beginning of another: those that are trained."""
    longest: list[Plan] = []
    for plan in sorted(set(plans), key=len, reverse=True):
        if all(other[: len(plan)] != plan for other in longest):
            longest.append(plan)
    return longest


class _Training:
    """Trains a config alone, as a fused worker or a worker of Ray Train does."""

    def __init__(self, recorded: Recorded, config: Train, dataset: Dataset, store: Store) -> None:
        self.config = config
        last = recorded.contexts[max(recorded.contexts)]
        extractor = make_extractor(dataset, store, config.features, config.download)
        extractor = with_moments(extractor, dataset, store)
        parts = dataset.part("train"), dataset.part("validation")
        shared = SharedDataset(*parts, dataset.num_classes, extractor)
        self.data, evaluator = make_data(config, shared, _device(last))
        self.num_classes = dataset.num_classes
        self.outputs = _Kept()
        self.loop = EpochLoop(self.data, evaluator, self.outputs)
        execution: Any = last.execution or "in_turn"
        self.trainer = FusedTrainer(self.data, execution, widest=last.widest)

    def run(self, plan: Plan) -> list[tuple[Metrics, str]]:
        """Train the epochs of a plan; return the metrics and the weights' digest of each, up to
        one that diverged."""
        self.outputs.epochs = []
        trial: TrialState | None = None
        for number, settings in enumerate(plan, 1):
            if trial is None or settings != plan[number - 2]:
                trial = self._with_settings(json.loads(settings), trial)
            companions = self.trainer.companions([trial.learner])
            (report,) = self.loop.run([trial], self.trainer.run_epoch, companions)
            _log.info("epoch %d of %d", number, len(plan))
            if report["diverged"]:
                break
        return self.outputs.epochs

    def _with_settings(self, settings: Mapping[str, Any], before: TrialState | None) -> TrialState:
        """Return a new trial, or one that goes on from a trial's state with other settings."""
        run = with_settings(self.config, nest(settings))
        learner = make_learner(run, self.data, self.num_classes)
        if before:
            learner.load_state_dict(before.learner.state_dict())
        return TrialState(run, learner, Path())


class _Kept:
    """Keeps what an epoch gave, and writes nothing."""

    writes = False

    def __init__(self) -> None:
        self.epochs: list[tuple[Metrics, str]] = []

    def extra_metrics(self, trial: TrialState) -> Metrics:
        return {}

    def draws_pictures(self, trial: TrialState, metrics: Metrics) -> bool:
        return False

    def save(self, trial: TrialState, report: Mapping[str, float], *, diverged: bool) -> None:
        self.epochs.append((dict(report), trial.context().weights))


@contextmanager
def _threads_of_a_worker() -> Iterator[None]:
    """Compute with one thread, as workers do: sums have another order on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with cpu_thread_settings():
            yield
    finally:
        torch.set_num_threads(threads)


# -- the comparison ---------------------------------------------------------------------------
def _compare(
    recorded: Recorded,
    again: Mapping[int, tuple[Metrics, str]],
    circumstances: Mapping[str, Difference],
) -> RerunResult:
    values = [
        (epoch, name, value, again[epoch][0].get(name))
        for epoch, metrics in sorted(recorded.epochs.items())
        if epoch in again
        for name, value in sorted(metrics.items())
        if name.startswith(_COMPARED)
    ]
    different = [each for each in values if each[2] != each[3]]
    weights = {
        epoch: (context.weights, again[epoch][1])
        for epoch, context in recorded.contexts.items()
        if context.weights and epoch in again
    }
    wrong = [epoch for epoch, (before, here) in sorted(weights.items()) if before != here]
    epochs = sorted(set(recorded.epochs) & set(again))
    return RerunResult(
        name=recorded.name,
        source=recorded.source,
        equal=bool(values) and len(epochs) == len(recorded.epochs) and not different and not wrong,
        epochs=len(epochs),
        recorded_epochs=len(recorded.epochs),
        values=len(values),
        different_values=len(different),
        first_difference=_describe(different[0]) if different else None,
        largest_difference=max((_relative(*each[2:]) for each in different), default=0.0),
        digests=len(weights),
        different_digests=len(wrong),
        circumstances=dict(circumstances),
    )


def _describe(different: Sequence[Any]) -> str:
    epoch, name, before, here = different
    return f"{name} at epoch {epoch}: {before!r} is recorded, {here!r} here"


def _relative(before: float, here: float | None) -> float:
    """Return the relative difference of two values; infinite if one is missing."""
    if here is None:
        return float("inf")
    return abs(before - here) / max(abs(before), abs(here))
