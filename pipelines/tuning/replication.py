"""Is a config good, or was it lucky? The search over seeds that asks, for a recorded run."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Literal

from gen_models.core.errors import require
from pipelines.analysis.ranking import Standing
from pipelines.catalog.runs import recorded_at
from pipelines.config.requests import Confirm
from pipelines.config.run import Confirmed, Run, Search, Train
from pipelines.config.serialization import config_of
from pipelines.store.journal import Journal
from pipelines.tracking import resolve_run
from pipelines.training.payload import trial_folder
from pipelines.tuning.recorder import Recorder


def as_search(asked: Confirm) -> Search:
    """The search over seeds that a `genpipe confirm` means.

    Raises `InputError` where there is no such run, or it has no config to confirm.
    """
    row = resolve_run(recorded_at(asked.store, asked.tracking_uri), asked.run)
    kind = row.kind or "run of another program"
    alone = f"a run or a trial, and not a {kind}"
    require(row.kind in ("run", "trial"), "run", asked.run, alone)
    changed = any(name.startswith("config/") for name in row.metrics)
    kept = "a run with one config, which a trial of population based training has not"
    require(not changed, "run", asked.run, kept)
    config = config_of(row.tags["rerun"])
    confirms = Confirmed(
        run=row.run_id,
        name=row.name,
        search_id=row.search_id,
        data_digest=row.tags["data_digest"],
        value=row.metrics.get(f"best/{config.metric}"),
    )
    return replace(
        _confirmation(config, confirms, asked.seeds, asked.fuse),
        store=asked.store,
        tracking_uri=asked.tracking_uri,
        address=asked.address,
        data_root=asked.data_root or config.data_root,
        download=asked.download,
        max_concurrent=asked.max_concurrent,
        resume=asked.resume,
        dry_run=asked.dry_run,
        json=asked.json,
    )


def confirmation_of(search: Recorder, standing: Standing) -> Search:
    """The search over seeds that confirms a trial of a search, where the search ran. As many
    members are put on a device as is usual: the config may be larger than the default."""
    run, journal = search.run, Journal(trial_folder(search.folder, standing.trial_id))
    known = journal.identity()
    assert known and standing.best
    confirms = Confirmed(
        run=search.tracker.run_id(journal) or known.name,
        name=known.name,
        search_id=search.search_id,
        data_digest=search.plan.dataset.digest,
        value=standing.best.value,
    )
    fuse: Literal["auto", "off"] = "auto" if run.is_fused else "off"
    return replace(
        _confirmation(config_of(known.tags["rerun"]), confirms, run.seeds, fuse),
        store=run.store,
        tracking_uri=run.tracking_uri,
        address=run.address,
        data_root=run.data_root,
        download=run.download,
        max_concurrent=run.max_concurrent,
        json=run.json,
    )


def _confirmation(
    config: Train, confirms: Confirmed, seeds: int, fuse: Literal["auto", "off"] | int
) -> Search:
    """A trial for each seed, run to its end. Fused trials have one worker: what a run comes to
    does not depend on how many it had."""
    content = {f.name: getattr(config, f.name) for f in fields(Run)}
    if fuse != "off":
        content["num_workers"] = 1
    return Search(
        **content,
        trials=seeds,
        seeds=seeds,
        scheduler="fifo",
        searcher="grid",
        grace_period=1,
        fuse=fuse,
        confirms=confirms,
    )
