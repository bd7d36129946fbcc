"""Many configs: Ray Tune chooses and stops them.

A trial of one worker is a member of a population (`pipelines.fused`); a trial of several is a
function trainable that drives a `TorchTrainer` (Ray's documented pattern). What it reports goes
to Tune for its decisions; what is recorded comes from the trial's journal.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from ray import tune

from gen_models.core.config import flatten
from gen_models.core.errors import InputError, require
from pipelines.choosing import domains, grid, grid_size, make_scheduler, make_searcher
from pipelines.cluster import Cluster, connect
from pipelines.config import (
    Search,
    defaults,
    run_from_dict,
    to_dict,
)
from pipelines.devices import cluster_devices, local_devices
from pipelines.fusing import ask_notes, plan_fusion, start_populations, trainable
from pipelines.job import Job, share_images
from pipelines.journal import write_whole
from pipelines.precision import resolve_precision
from pipelines.preflight import preflight
from pipelines.progress import say
from pipelines.recorder import Recorder, TuneEvents
from pipelines.tracking import Tracker
from pipelines.train import deliver, uses_gpu
from pipelines.trainer import trial

_DRIVER = {"CPU": 0, "node:__internal_head__": 0.001}
"""What a trial itself takes: none of the CPUs that its workers need, and a place on the head,
which is no spot node."""
_REQUEST = "search.json"
_TUNE = "tune"
_HERE = ("store", "address", "download", "json")
"""Settings of a resumed search that are always the new command's."""
_IF_GIVEN = ("tracking_uri", "data_root")
"""Settings of a resumed search that are the new command's where they are not the default."""


def max_concurrent(run: Search, cluster: Cluster, on_gpu: bool) -> int:
    """Trials at once: no more than have their workers, or one could starve another's."""
    have = cluster.num_gpus if on_gpu else cluster.num_cpus
    fit = max(1, int(have // run.num_workers))
    return min(run.trials, fit, run.max_concurrent or fit)


def search(run: Search) -> dict[str, Any]:
    """Search to the end, from where it stands; the result, as `--json` prints it."""
    run, folder = _opened(run)
    if run.chosen_searcher == "grid":
        run = replace(run, trials=grid_size(run))
    plan = preflight(run)
    searched = domains(run)
    if run.is_fused and (here := local_devices(run)):
        plan_fusion(run, plan.dataset.spec, here)  # raises where it does not fit
    with Tracker(plan.uri, plan.run.store) as tracker:
        recorder = Recorder(plan, folder, tracker, list(flatten(searched)))
        try:
            # Only the clean-up after Ray Train's workers asks Ray's dashboard.
            with connect(run.address, dashboard=not run.is_fused) as cluster:
                _run(plan.run, recorder, cluster, searched)
        finally:
            recorder.end()  # not before Ray has gone, and with it all who write to journals
        recorder.crown()
        deliver(tracker, plan.uri)
        return recorder.result()


def _run(run: Search, recorder: Recorder, cluster: Cluster, searched: Mapping[str, Any]) -> None:
    """Have Tune run the trials."""
    on_gpu = uses_gpu(run, cluster)
    run = resolve_precision(run, recorder.plan.dataset.spec, cluster, on_gpu)
    folder = recorder.folder
    write_whole(folder / _REQUEST, json.dumps(to_dict(run), indent=1) + "\n")
    recorder.open(run)
    images = share_images(recorder.plan.dataset, recorder.plan.extractor)
    job = Job(to_dict(run), str(folder), images, on_gpu)
    if run.is_fused:
        spec = recorder.plan.dataset.spec
        fusion = plan_fusion(run, spec, cluster_devices(cluster, on_gpu))
        say(f"search {folder.name}: {run.trials} trials; {fusion.describe()}")
        populations = start_populations(job, fusion)
        fused = trainable(populations, run, fusion)
        results = _tuner(run, folder, fused, searched, fusion.at_once).fit()
        for note in {note for note in ask_notes(populations) if note}:
            say(note)
    else:
        concurrent = max_concurrent(run, cluster, on_gpu)
        say(f"search {folder.name}: {run.trials} trials, {concurrent} at once, not fused")
        driver = tune.with_resources(tune.with_parameters(trial, search=job), _DRIVER)
        results = _tuner(run, folder, driver, searched, concurrent).fit()
    recorder.finished([result.metrics["trial_id"] for result in results if result.metrics])


def _opened(run: Search) -> tuple[Search, Path]:
    """The search to run and its folder: a new one, or one to go on with."""
    searches = run.store.expanduser().absolute() / "searches"
    if not run.resume:
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        return run, searches / f"{run.family}-{stamp}-{uuid4().hex[:4]}"
    folder = searches / run.resume
    if not (folder / _REQUEST).is_file():
        known = sorted(path.parent.name for path in searches.glob(f"*/{_REQUEST}"))
        raise InputError(
            f"resume = {run.resume!r}: expected a search of {searches}: "
            f"{', '.join(known) or 'there is none'}"
        )
    before = run_from_dict(Search, json.loads((folder / _REQUEST).read_text()))
    other = f"a search of {run.family}, and not of {before.family}"
    require(before.family == run.family, "resume", run.resume, other)
    default = defaults(Search, run.family)
    given = [name for name in _IF_GIVEN if getattr(run, name) != getattr(default, name)]
    return replace(before, **{name: getattr(run, name) for name in (*_HERE, *given)}), folder


def _tuner(
    run: Search, folder: Path, trainable: Any, searched: Mapping[str, Any], concurrent: int
) -> tune.Tuner:
    """A tuner of a new search, or the one that was interrupted."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # TensorBoard and CSV: unread here
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # its table; the recorder shows progress
    # A resumed trial says again what it said last.
    warnings.filterwarnings("ignore", message="The reported value is ignored")
    path = str(folder / _TUNE)
    if tune.Tuner.can_restore(path):
        return tune.Tuner.restore(path, trainable=trainable, resume_errored=True)
    by_grid = run.chosen_searcher == "grid"
    return tune.Tuner(
        trainable,
        param_space=grid(run, searched) if by_grid else dict(searched),
        tune_config=tune.TuneConfig(
            num_samples=1 if by_grid else run.trials,
            metric=run.metric,
            mode=run.mode,
            search_alg=make_searcher(run, searched),
            scheduler=make_scheduler(run, searched),
            max_concurrent_trials=concurrent,
            reuse_actors=run.is_fused,
        ),
        run_config=tune.RunConfig(
            name=_TUNE,
            storage_path=str(folder),
            verbose=0,
            callbacks=[TuneEvents(folder.name), tune.logger.JsonLoggerCallback()],
            failure_config=tune.FailureConfig(max_failures=run.max_failures),
            # A trial's last checkpoint lies in its run's folder already.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
