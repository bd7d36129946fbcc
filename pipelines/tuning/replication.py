"""`genpipe confirm`: the seed study of a recorded run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gen_models.core.errors import require
from pipelines.config.run import as_train
from pipelines.config.search import Fuse, Search, SeedStudy
from pipelines.report.console import ensure_logging
from pipelines.report.results import SearchResult
from pipelines.store.layout import Store, default_store
from pipelines.tracking.base import find_backend, recorded_uri
from pipelines.tracking.queue import warn_of_losses
from pipelines.tuning.search import run_search
from pipelines.tuning.studies import make_study


def confirm(
    run: str,
    *,
    seeds: int = 50,
    store: str | Path | None = None,
    tracking_uri: str | None = None,
    fuse: Fuse = "auto",
    data: str | None = None,
    data_root: str | Path | None = None,
    download: bool = False,
    address: str | None = None,
    max_concurrent: int | None = None,
    experiment: str | None = None,
    tag: Sequence[str] = (),
    note: str | None = None,
) -> SearchResult:
    """Train a recorded run's config again with other seeds, and return their statistics.

    `run`: a run's id or name, a trial's, `NAME@champion` or `models:/NAME/VERSION`. The run's own
    seed is not among the seeds, because it was selected for its result. `experiment`, `tag`,
    `note`: where MLflow records the seeds, and how they are labelled. Raises `InputError`.

    >>> import genpipe
    >>> study = genpipe.confirm("vae-digits@champion", seeds=20, store="runs")
    >>> study.seed_statistics.mean, study.seeds_beaten
    """
    ensure_logging()
    where: dict[str, Any] = {
        "store": Path(store) if store else default_store(),
        "tracking_uri": tracking_uri,
        "download": download,
        "address": address,
        "max_concurrent": max_concurrent,
        "experiment": experiment,
        "tag": tuple(tag),
        "note": note,
    }
    if data is not None:
        where["data"] = data
    if data_root is not None:
        where["data_root"] = Path(data_root)
    return run_search(study_of_run(run, seeds, fuse, where))


def study_of_run(name: str, seeds: int, fuse: Fuse, where: dict[str, Any]) -> Search:
    """Return the seed study of a recorded run. `where`: settings of the study that say where and
    how it runs, such as `store`.

    Raises `InputError` if there is no such run, or if it is not a run of one config.
    """
    store = Store.at(where["store"])
    uri = recorded_uri(store, where.get("tracking_uri"))
    backend = find_backend(uri)
    with backend.settings():
        warn_of_losses(store, uri, backend)
        reader = backend.reader(uri, store)
        row = reader.run(name)
        alone = f"a run or a trial, and not a {row.kind or 'run of another program'}"
        require(row.kind in ("run", "trial"), "run", name, alone)
        changed = any(metric.startswith("config/") for metric in row.metrics)
        one = "a run with one config, which a trial of population based training does not have"
        require(not changed, "run", name, one)
        config = as_train(reader.config(row))
    study = SeedStudy(
        run=row.run_id,
        name=row.name,
        search_id=row.search_id,
        data_digest=row.tags["data_digest"],
        value=row.metrics.get(f"best/{config.metric}"),
    )
    return replace(make_study(config, study, seeds, fuse), **where)
