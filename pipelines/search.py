"""Many configs: Ray Tune chooses and stops them, each is a run of Ray Train.

A trial is a function trainable that drives a `TorchTrainer` (Ray's documented pattern). What it
reports goes to Tune for its decisions; what is recorded comes from the trial's journal.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import BasicVariantGenerator, SearchAlgorithm, Searcher

from gen_models.core.config import flatten
from gen_models.core.errors import InputError, require
from pipelines.cluster import Cluster, connect
from pipelines.config import (
    Search,
    defaults,
    run_from_dict,
    to_dict,
)
from pipelines.job import Job, share_images, trial
from pipelines.journal import write_whole
from pipelines.preflight import preflight
from pipelines.progress import say
from pipelines.recorder import Recorder, TuneEvents
from pipelines.tracking import Tracker
from pipelines.train import deliver, uses_gpu
from tune_spaces import space

_DRIVER = {"CPU": 0, "node:__internal_head__": 0.001}
"""What a trial itself takes: none of the CPUs that its workers need, and a place on the head,
which is no spot node."""
_REQUEST = "search.json"
_TUNE = "tune"
_HERE = ("store", "address", "download", "json")
"""Settings of a resumed search that are always the new command's."""
_IF_GIVEN = ("tracking_uri", "data_root")
"""Settings of a resumed search that are the new command's where they are not the default."""


def domains(run: Search) -> dict[str, Any]:
    """What is searched: the family's space, less what was given on the command line."""

    def free(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for name, value in content.items():
            path = f"{prefix}{name}"
            if isinstance(value, Mapping):
                kept |= {name: inner} if (inner := free(value, f"{path}.")) else {}
            elif path not in run.fixed:
                kept[name] = value
        return kept

    found = free(space(run.family).domains)
    if not found:
        raise InputError("every setting of the space was given: `genpipe train` runs one config")
    return found


def default_point(run: Search, searched: Mapping[str, Any]) -> dict[str, Any]:
    """The config's own values of what is searched, in the same shape: the first trial."""
    own = {"model": asdict(run.model), "optim": asdict(run.optim)}

    def pick(shape: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: pick(inner, values[name]) if isinstance(inner, Mapping) else values[name]
            for name, inner in shape.items()
        }

    return pick(searched, own)


def make_searcher(run: Search, searched: Mapping[str, Any]) -> Searcher | SearchAlgorithm:
    """Who chooses the configs."""
    first = default_point(run, searched)
    if run.searcher == "random":
        return BasicVariantGenerator(points_to_evaluate=[first], random_state=run.seed)
    import optuna
    from ray.tune.search.optuna import OptunaSearch
    from ray.tune.utils.util import flatten_dict

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=run.seed, multivariate=True, constant_liar=True)
    return OptunaSearch(points_to_evaluate=[flatten_dict(first, "/")], sampler=sampler)


def make_scheduler(run: Search) -> TrialScheduler:
    """Who stops trials. Epochs are counted by the workers: Tune's own count restarts on resume."""
    if run.scheduler == "fifo":
        return FIFOScheduler()
    return AsyncHyperBandScheduler(
        time_attr="epoch",
        max_t=run.epochs,
        grace_period=run.grace_period,
        reduction_factor=run.reduction_factor,
    )


def max_concurrent(run: Search, cluster: Cluster, on_gpu: bool) -> int:
    """Trials at once: no more than have their workers, or one could starve another's."""
    have = cluster.num_gpus if on_gpu else cluster.num_cpus
    fit = max(1, int(have // run.num_workers))
    return min(run.trials, fit, run.max_concurrent or fit)


def search(run: Search) -> dict[str, Any]:
    """Search to the end, from where it stands; the result, as `--json` prints it."""
    run, folder = _opened(run)
    plan = preflight(run)
    run = plan.run
    searched = domains(run)
    with Tracker(plan.uri, run.store) as tracker:
        recorder = Recorder(plan, folder, tracker, list(flatten(searched)))
        try:
            with connect(run.address) as cluster:
                on_gpu = uses_gpu(run, cluster)
                concurrent = max_concurrent(run, cluster, on_gpu)
                say(f"search {folder.name}: {run.trials} trials, {concurrent} at once")
                write_whole(folder / _REQUEST, json.dumps(to_dict(run), indent=1) + "\n")
                recorder.open()
                job = Job(to_dict(run), str(folder), share_images(plan.dataset), on_gpu)
                _tuner(run, job, searched, concurrent).fit()
        finally:
            recorder.end()  # not before Ray has gone, and with it all who write to journals
        recorder.crown()
        deliver(tracker, plan.uri)
        return recorder.result()


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


def _tuner(run: Search, job: Job, searched: Mapping[str, Any], concurrent: int) -> tune.Tuner:
    """A tuner of a new search, or the one that was interrupted."""
    folder = Path(job.folder)
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # TensorBoard and CSV: unread here
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # its table; the recorder shows progress
    trainable = tune.with_resources(tune.with_parameters(trial, search=job), _DRIVER)
    # A resumed trial says again what it said last.
    warnings.filterwarnings("ignore", message="The reported value is ignored")
    path = str(folder / _TUNE)
    if tune.Tuner.can_restore(path):
        return tune.Tuner.restore(path, trainable=trainable, resume_errored=True)
    return tune.Tuner(
        trainable,
        param_space=dict(searched),
        tune_config=tune.TuneConfig(
            num_samples=run.trials,
            metric=run.metric,
            mode=run.mode,
            search_alg=make_searcher(run, searched),
            scheduler=make_scheduler(run),
            max_concurrent_trials=concurrent,
        ),
        run_config=tune.RunConfig(
            name=_TUNE,
            storage_path=str(folder),
            verbose=0,
            callbacks=[TuneEvents(folder.name), tune.logger.JsonLoggerCallback()],
            failure_config=tune.FailureConfig(max_failures=run.max_failures),
        ),
    )
