"""Checks of a command against its data, its store, its tracker and this machine, before any Ray
process starts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

import gen_models
from gen_models.core.contract import Model, TakesRowsTogether
from gen_models.core.errors import DamagedError, InputError, require
from pipelines.cluster.resources import check_machine
from pipelines.config.run import Run
from pipelines.config.search import Search
from pipelines.data import Dataset, load
from pipelines.data.loading import absolute_name
from pipelines.evaluation.feature_spaces import (
    Extractor,
    make_extractor,
    require_features,
    space_name,
    with_moments,
)
from pipelines.evaluation.metric_names import matching
from pipelines.evaluation.validation import MIN_IMAGES, metric_names
from pipelines.store.journal import Journal
from pipelines.store.layout import Store
from pipelines.tracking.base import tracking_uri

R = TypeVar("R", bound=Run)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunContext(Generic[R]):
    """A command that was checked: its config, its data, where it records."""

    run: R
    dataset: Dataset
    store: Store
    uri: str = ""
    """The tracking URI; "" before it was checked."""

    @property
    def experiment(self) -> str:
        """The name of MLflow's experiment."""
        return self.run.experiment or self.registered_model

    @property
    def registered_model(self) -> str:
        """The name of the registered model, whatever the experiment: its alias goes to the best of
        all that can be compared."""
        return f"{self.run.family}-{self.dataset.slug}"

    @cached_property
    def extractor(self) -> Extractor:
        """The run's feature space, with the moments of the validation data. Computing it takes up
        to minutes, once per store."""
        run = self.run
        extractor = make_extractor(self.dataset, self.store, run.features, run.download)
        return with_moments(extractor, self.dataset, self.store)


def preflight(run: R) -> RunContext[R]:
    """Load the data, and check the config against it, the store, the tracker and this machine.

    Raises `InputError`.
    """
    context = check_run(run)
    return replace(context, uri=tracking_uri(context.store, run.tracking_uri))


def check_run(run: R) -> RunContext[R]:
    """Load the data, and check the config against it and this machine. Writes nothing, but for
    data that are downloaded.

    Raises `InputError`.
    """
    check_machine(run.address, run.device, run.num_workers)
    dataset = load_data(run)
    _check_validation(run, len(dataset.validation))
    for each in _with_each_batch_size(run):
        _check_batches(each, len(dataset.train))
    model: Model = gen_models.family(run.family).Model(run.model, dataset.spec)
    if isinstance(model, TakesRowsTogether):
        for each in _with_each_batch_size(run):
            _check_groups(each, model.rows_together, len(dataset.train))
    require_features(dataset, run.features, run.download)
    run = _with_full_metrics(run, metric_names(model, space_name(dataset, run.features)))
    store = Store.at(run.store)
    data, root = absolute_name(run.data), run.data_root.absolute()
    run = replace(run, store=store.root, data=data, data_root=root)
    return RunContext(run, dataset, store)


def load_data(run: Run) -> Dataset:
    """Load the run's data set. Raises `InputError` if it is missing or damaged."""
    kind, colon, path = run.data.partition(":")
    if colon and path and not Path(path).expanduser().exists():
        raise InputError(
            f"data = {run.data!r}: does not exist: expected a path; of data that were moved, the "
            f"new one is given by --data {kind}:PATH"
        )
    dataset = load(
        run.data,
        run.data_root,
        download=run.download,
        image_size=run.image_size,
        channels=run.channels,
    )
    return dataset.with_binary_evaluation() if run.binarise else dataset


def with_data(run: R, data: str | None, data_root: str | Path | None, download: bool) -> R:
    """Return a recorded config with its data where they are now, if they were moved."""
    run = replace(run, download=download)
    if data is not None:
        run = replace(run, data=data)
    return run if data_root is None else replace(run, data_root=Path(data_root))


def require_same_data(run: Run, dataset: Dataset, digest: str, name: str) -> None:
    """Raise `InputError` unless the data set is the one that the run `name` was trained on."""
    own = f"the data set that {name} was trained on, of digest {digest}"
    require(dataset.digest == digest, "data", run.data, f"{own}, and not {dataset.digest}")


def require_recorded_data(run: Run, dataset: Dataset, journal: Journal) -> None:
    """Raise `InputError` if a journal was begun on other data, for example before files of a
    folder were changed. Of a journal whose info is damaged the data are not known."""
    try:
        info = journal.info()
    except DamagedError as error:
        _log.warning("%s", error)
        return
    if info:
        digest = str(info.dataset.get("digest", dataset.digest))
        require_same_data(run, dataset, digest, info.name)


def _check_validation(run: Run, num_images: int) -> None:
    expected = (
        f"at least {MIN_IMAGES} validation images, a sixth of the training images, for the "
        f"Fréchet distance, and not {num_images}"
    )
    require(num_images >= MIN_IMAGES, "data", run.data, expected)


def _with_each_batch_size(run: Run) -> list[Run]:
    """Return the config with each batch size that it has, or that is an end of those that it
    searches."""
    searched = run.searched.by_name.get("batch_size") if isinstance(run, Search) else None
    return (
        [replace(run, batch_size=size) for size in searched.domain.ends()] if searched else [run]
    )


def _check_batches(run: Run, num_images: int) -> None:
    most = f"at most {num_images}, the training images of {run.data}"
    require(run.batch_size <= num_images, "batch_size", run.batch_size, most)
    rest = num_images % run.batch_size
    shared = run.drop_last or rest == 0 or rest >= run.num_workers
    expected = (
        f"True, because the last batch of {rest} cannot be shared by {run.num_workers} workers"
    )
    require(shared, "drop_last", run.drop_last, expected)


def _check_groups(run: Run, together: int, num_images: int) -> None:
    """Check batches of a model whose loss takes `together` rows as one group."""
    of_all = together * run.num_workers
    why = f"because the model takes {together} rows together on each of {run.num_workers} workers"
    expected = f"a multiple of {of_all}, {why}"
    require(run.batch_size % of_all == 0, "batch_size", run.batch_size, expected)
    rest = num_images % run.batch_size
    expected = f"True, because the last batch has {rest} rows, and {why.removeprefix('because ')}"
    require(run.drop_last or rest % of_all == 0, "drop_last", run.drop_last, expected)


def _with_full_metrics(run: R, names: Sequence[str]) -> R:
    """Replace the beginnings of metric names, such as `val/fd`, by the full names."""
    if isinstance(run, Search):
        further = tuple((_full_name(metric, names), mode) for metric, mode in run.further)
        run = replace(run, further=further)
    return replace(run, metric=_full_name(run.metric, names))


def _full_name(metric: str, names: Sequence[str]) -> str:
    found = matching(metric, names)
    require(len(found) == 1, "metric", metric, f"one of {', '.join(names)}")
    return found[0]
