"""Everything that can be found wrong with a command before any Ray process starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

import torch

import gen_models
from gen_models.core.contract import Model, TakesRowsTogether
from gen_models.core.errors import InputError, require
from pipelines.config.requests import Evaluate
from pipelines.config.run import Run, Search
from pipelines.data import Dataset, load
from pipelines.evaluation.feature_extractor import Extractor, extractor, with_moments
from pipelines.evaluation.feature_spaces import require_features, space_name
from pipelines.evaluation.validation import matching, metric_names
from pipelines.tracking import tracking_uri

R = TypeVar("R", bound=Run)


@dataclass(frozen=True)
class Plan(Generic[R]):
    """A command that may start."""

    run: R
    dataset: Dataset
    uri: str
    """MLflow's tracking URI."""

    @property
    def experiment(self) -> str:
        """MLflow's experiment, and the name of the registered model."""
        return f"{self.run.family}-{self.dataset.slug}"

    @cached_property
    def extractor(self) -> Extractor:
        """Of the run's feature space, with the moments of the validation data; the first time
        it may take minutes."""
        run = self.run
        found = extractor(self.dataset, run.store, run.features, run.download)
        return with_moments(found, self.dataset, run.store)


def preflight(run: R) -> Plan[R]:
    """Load the data and check the config against it, the store, MLflow and this machine.

    Raises `InputError`.
    """
    check_machine(run)
    dataset = load_data(run)
    _check_batches(run, len(dataset.train))
    model = _model(run, dataset)
    require_features(dataset, run.features, run.download)
    run = _with_full_metrics(run, metric_names(model, space_name(dataset, run.features)))
    store = run.store.expanduser().absolute()
    run = replace(run, store=store, data_root=run.data_root.absolute())
    uri = tracking_uri(store, run.tracking_uri)
    return Plan(run, dataset, uri)


def load_data(run: Run) -> Dataset:
    """The run's data set. Raises `InputError` where it cannot be had."""
    dataset = load(
        run.data,
        run.data_root,
        download=run.download,
        image_size=run.image_size,
        channels=run.channels,
    )
    return dataset.with_binary_evaluation() if run.binarise else dataset


def require_same_data(run: Run, dataset: Dataset, digest: str, name: str) -> None:
    """Raise `InputError` unless the data set is the one that the run `name` was trained on."""
    own = f"the data set that {name} was trained on, of digest {digest}"
    expected = f"{own}, and not {dataset.digest}"
    require(dataset.digest == digest, "data", run.data, expected)


def existing_store(store: Path) -> Path:
    """The store of a command that only reads. Raises `InputError` where there is none."""
    if not (store / "mlflow.db").is_file():
        raise InputError(f"store = {str(store)!r}: expected a folder in which runs are recorded")
    return store


def check_machine(run: Run | Evaluate) -> None:
    """Raise `InputError` where this machine, if it is to do the work, has too little."""
    if run.address or os.environ.get("RAY_ADDRESS"):
        return  # the cluster is asked once it is connected
    cores, gpus = os.cpu_count() or 1, torch.cuda.device_count()
    if run.device == "cuda":
        require(gpus > 0, "device", run.device, "cpu or auto, for this machine has no GPU")
    on_gpu = gpus > 0 and run.device != "cpu"
    most, kind = (gpus, "GPUs") if on_gpu else (cores, "CPU cores")
    expected = f"at most {most}, for this machine has {most} {kind} and a worker takes one"
    require(run.num_workers <= most, "num_workers", run.num_workers, expected)


def _check_batches(run: Run, num_images: int) -> None:
    most = f"at most {num_images}, the training images of {run.data}"
    require(run.batch_size <= num_images, "batch_size", run.batch_size, most)
    rest = num_images % run.batch_size
    shared = run.drop_last or rest == 0 or rest >= run.num_workers
    expected = f"True, for the last batch of {rest} cannot be shared by {run.num_workers} workers"
    require(shared, "drop_last", run.drop_last, expected)


def _model(run: Run, dataset: Dataset) -> Model:
    model: Model = gen_models.family(run.family).Model(run.model, dataset.spec)
    if isinstance(model, TakesRowsTogether):
        _check_groups(run, model.rows_together, len(dataset.train))
    return model


def _with_full_metrics(run: R, names: Sequence[str]) -> R:
    """`run` with its metrics' full names, of which the beginnings may have been given."""
    if isinstance(run, Search):
        further = tuple((_full_name(metric, names), mode) for metric, mode in run.further)
        run = replace(run, further=further)
    return replace(run, metric=_full_name(run.metric, names))


def _full_name(metric: str, names: Sequence[str]) -> str:
    meant = matching(metric, names)
    require(len(meant) == 1, "metric", metric, f"one of {', '.join(names)}")
    return meant[0]


def _check_groups(run: Run, together: int, num_images: int) -> None:
    of_all = together * run.num_workers
    why = f"for the model takes {together} rows together on each of {run.num_workers} workers"
    expected = f"a multiple of {of_all}, {why}"
    require(run.batch_size % of_all == 0, "batch_size", run.batch_size, expected)
    rest = num_images % run.batch_size
    expected = f"True, for the last batch has {rest} rows, {why}"
    require(run.drop_last or rest % of_all == 0, "drop_last", run.drop_last, expected)
