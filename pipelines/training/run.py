"""One config on W workers: Ray Train spreads it, the journal records it, MLflow shows it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ray.train.v2.api.exceptions import TrainingFailedError

from gen_models.core.errors import InputError
from pipelines.analysis.run_results import (
    best_at_end,
    identity,
    outcome,
    settings_hash,
    write_samples,
)
from pipelines.cluster.connection import Cluster, connect
from pipelines.config.requests import Evaluate
from pipelines.config.run import Run, Train, to_dict
from pipelines.store.journal import Ending, Identity, Journal
from pipelines.tracking import Tracker
from pipelines.training.payload import Job, share_images
from pipelines.training.precision import resolve_precision
from pipelines.training.preflight import Plan, preflight
from pipelines.training.trainer import make_trainer
from pipelines.tuning.progress import say, show_epoch

POLL_SECONDS = 0.3
FLUSH_SECONDS = 60.0
"""How long the end of a command waits for MLflow; what is not delivered by then is kept."""


def uses_gpu(run: Run | Evaluate, cluster: Cluster) -> bool:
    """Whether each worker takes a GPU. Raises `InputError` where the cluster has too little."""
    on_gpu = run.device == "cuda" or (run.device == "auto" and cluster.num_gpus > 0)
    cluster.require_workers(run.num_workers, 1, 1 if on_gpu else 0)
    return on_gpu


def train(run: Train) -> dict[str, Any]:
    """Train one config to its end, from where it stands; the result, as `--json` prints it."""
    plan = preflight(run)
    run = plan.run
    name = run.name or f"{plan.experiment}-{settings_hash(run, plan.dataset)}"
    folder = run.store / "runs" / name
    journal = Journal(folder)
    _require_same(name, journal, _identity(plan, run, name).params)
    with Tracker(plan.uri, run.store) as tracker:
        ended = journal.outcome()
        if ended and ended.ending == "completed":
            say(f"{name} was complete already: --name NAME runs the same config anew")
        else:
            _run(plan, journal, tracker)
        tracker.sync(journal)
        deliver(tracker, plan.uri)
        return _result(plan, name, folder, tracker)


def deliver(tracker: Tracker, uri: str) -> None:
    """Wait until MLflow has everything, or say that it has not."""
    if not tracker.flush(FLUSH_SECONDS):
        say(f"MLflow at {uri} has not taken everything yet; `genpipe runs` delivers the rest")


def _require_same(name: str, journal: Journal, params: Mapping[str, Any]) -> None:
    """A name stands for one config: refuse to go on with another."""
    known = journal.identity()
    for key in sorted(params) if known else []:
        before = known.params.get(key) if known else None
        measured = key == "precision" and params[key] == "auto"
        free = measured or key in {"num_workers", "max_failures"}
        if before != params[key] and not free:
            raise InputError(
                f"name = {name!r}: expected a new name, for the run of this name in "
                f"{journal.run_folder} has {key} = {before!r} and not {params[key]!r}"
            )


def _identity(plan: Plan[Train], run: Train, name: str) -> Identity:
    return identity(
        run, plan.dataset, kind="run", name=name, experiment=plan.experiment, trial_id=name
    )


def _run(plan: Plan[Train], journal: Journal, tracker: Tracker) -> None:
    """Run the workers to their end, and write down how it ended."""
    extractor = plan.extractor  # before Ray takes the cores
    run, start = plan.run, time.monotonic()
    ending: Ending = "completed"
    message = ""
    try:
        with connect(run.address) as cluster:
            on_gpu = uses_gpu(run, cluster)
            run = _as_before(run, journal)
            run = resolve_precision(run, plan.dataset.spec, cluster, on_gpu)
            journal.open(_identity(plan, run, journal.run_folder.name))
            images = share_images(plan.dataset, extractor)
            trainer = make_trainer(Job(to_dict(run), str(journal.run_folder), images, on_gpu))
            _follow(in_thread(trainer.fit), journal, run.epochs, tracker)
    except TrainingFailedError as error:
        ending, message = "failed", str(error)
        say(f"training failed: {message}")
    except KeyboardInterrupt:
        ending = "interrupted"
        say("interrupted: the same command goes on from the last checkpoint")
    _close(plan, journal.run_folder, ending, message, time.monotonic() - start)


def _as_before(run: Train, journal: Journal) -> Train:
    """A run that goes on keeps the precision that was measured for it."""
    known = journal.identity()
    before: Any = known.params.get("precision") if known else None
    return replace(run, precision=before or run.precision)


def in_thread(work: Callable[[], object]) -> Future[object]:
    """Run `work` in a thread: in the main thread Ray Train would take Ctrl-C for itself."""
    future: Future[object] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def _follow(work: Future[object], journal: Journal, epochs: int, tracker: Tracker) -> None:
    """Show and deliver each epoch as it appears in the journal, until the work is done.

    Raises what the work raises.
    """
    last = max(journal.epochs(), default=0)
    if last:
        say(f"going on after epoch {last}")
    over = False
    while not over:
        over = bool(wait([work], POLL_SECONDS).done)  # and one more look after the end
        for report in journal.reports(after=last):
            last = report.epoch
            show_epoch(report, epochs)
            tracker.sync(journal)
    work.result()


def _close(plan: Plan[Train], folder: Path, ending: Ending, message: str, seconds: float) -> None:
    run, journal = plan.run, Journal(folder)
    final = journal.last()
    if ending == "completed" and final and final.metrics["diverged"]:
        ending = "diverged"
    last = final.epoch if final else 0
    found = outcome(folder, run, ending, last, message)
    found = replace(
        found, summary={**found.summary, **plan.extractor.summary, "wall_seconds": seconds}
    )
    best = best_at_end(folder, run.metric, run.mode, ending, last)
    if ending == "completed" and best:
        picture = write_samples(best.checkpoint, folder / "samples.png")
        found = replace(
            found, checkpoint=str(best.checkpoint), artifacts={"samples": str(picture)}
        )
    journal.close(found)


def _result(plan: Plan[Train], name: str, folder: Path, tracker: Tracker) -> dict[str, Any]:
    run, journal = plan.run, Journal(folder)
    ended = journal.outcome()
    assert ended is not None
    best = best_at_end(folder, run.metric, run.mode, ended.ending, ended.last_epoch)
    return {
        "name": name,
        "run_id": tracker.run_id(journal),
        "experiment": plan.experiment,
        "tracking_uri": plan.uri,
        "outcome": ended.ending,
        "epoch": ended.last_epoch,
        "metric": run.metric,
        "value": best.value if best else None,
        "best_epoch": best.epoch if best else None,
        "metrics": dict(best.metrics) if best else {},
        "checkpoint": str(best.checkpoint) if best else None,
        "samples": str(folder / "samples.png") if (folder / "samples.png").is_file() else None,
        "model": asdict(run.model),
        "optim": asdict(run.optim),
    }
