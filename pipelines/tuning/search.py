"""Many configs: Ray Tune chooses and stops them.

A trial of one worker is a member of a population (`pipelines.tuning.fused.trials`); a trial of several is a
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
from pipelines.analysis.champion import verdict
from pipelines.analysis.ranking import most_promising
from pipelines.cluster.connection import Cluster, connect
from pipelines.cluster.resources import cluster_devices, local_devices
from pipelines.config.run import (
    Search,
    defaults,
    run_from_dict,
    to_dict,
)
from pipelines.report.results import answer
from pipelines.store.journal import write_whole
from pipelines.tracking import Tracker
from pipelines.training.payload import Job, SharedImages, share_images
from pipelines.training.precision import resolve_precision
from pipelines.training.preflight import preflight, require_same_data
from pipelines.training.run import deliver, uses_gpu
from pipelines.training.trainer import trial
from pipelines.tuning.fused.placement import ask_notes, plan_fusion, populations, trainable
from pipelines.tuning.progress import say
from pipelines.tuning.recorder import Recorder, TuneEvents
from pipelines.tuning.replication import confirmation_of
from pipelines.tuning.space import domains, grid, grid_size, make_scheduler, make_searcher

_DRIVER = {"CPU": 0, "node:__internal_head__": 0.001}
"""What a trial itself takes: none of the CPUs that its workers need, and a place on the head,
which is no spot node."""
_REQUEST = "search.json"
_TUNE = "tune"
_HERE = ("store", "address", "download", "json")
"""Settings of a resumed search that are always the new command's."""
_IF_GIVEN = ("tracking_uri", "data_root", "confirm", "seeds")
"""Settings of a resumed search that are the new command's where they are not the default."""


def max_concurrent(run: Search, cluster: Cluster, on_gpu: bool) -> int:
    """Trials at once: no more than have their workers, or one could starve another's."""
    have = cluster.num_gpus if on_gpu else cluster.num_cpus
    fit = max(1, int(have // run.num_workers))
    return min(run.trials, fit, run.max_concurrent or fit)


def search(run: Search) -> dict[str, Any]:
    """Search to the end, from where it stands, and confirm the best configs where that is asked
    for; the result, as `--json` prints it."""
    run, folder = _opened(run)
    run = replace(run, scheduler=run.chosen_scheduler, searcher=run.chosen_searcher)
    if run.chosen_searcher == "grid":
        run = replace(run, trials=grid_size(run))
    plan = preflight(run)
    if of := run.confirms:
        require_same_data(run, plan.dataset, of.data_digest, of.name)
    searched = list(flatten(domains(run)))
    if run.is_fused and (here := local_devices(run)):
        plan_fusion(run, plan.dataset.spec, here)  # raises where it does not fit
    confirmations: dict[str, Recorder] = {}
    extractor = plan.extractor  # before Ray takes the cores
    with Tracker(plan.uri, plan.run.store) as tracker:
        recorder = Recorder(plan, folder, tracker, searched)
        try:
            # Only the clean-up after Ray Train's workers asks Ray's dashboard.
            with connect(run.address, dashboard=not run.is_fused) as cluster:
                images = share_images(plan.dataset, extractor)
                _run(recorder, cluster, images)
                if recorder.ending == "completed":
                    _confirm(recorder, confirmations, cluster, images)
        finally:
            # Not before Ray has gone, and with it all who write to journals.
            _end(recorder, confirmations)
        _crown(recorder, confirmations)
        deliver(tracker, plan.uri)
        return answer(recorder, confirmations)


def _run(recorder: Recorder, cluster: Cluster, images: SharedImages) -> None:
    """Have Tune run the trials."""
    run, spec = recorder.plan.run, recorder.plan.dataset.spec
    on_gpu = uses_gpu(run, cluster)
    run = resolve_precision(run, spec, cluster, on_gpu)
    folder = recorder.folder
    write_whole(folder / _REQUEST, json.dumps(to_dict(run), indent=1) + "\n")
    recorder.open(run)
    job = Job(to_dict(run), str(folder), images, on_gpu)
    if run.is_fused:
        fusion = plan_fusion(run, spec, cluster_devices(cluster, on_gpu))
        say(f"search {folder.name}: {run.trials} trials; {fusion.describe()}")
        with populations(job, fusion) as started:
            fused = trainable(started, run, fusion)
            results = _tuner(run, folder, fused, fusion.at_once).fit()
            for note in {note for note in ask_notes(started) if note}:
                say(note)
    else:
        concurrent = max_concurrent(run, cluster, on_gpu)
        say(f"search {folder.name}: {run.trials} trials, {concurrent} at once, not fused")
        driver = tune.with_resources(tune.with_parameters(trial, search=job), _DRIVER)
        results = _tuner(run, folder, driver, concurrent).fit()
    recorder.finished([result.metrics["trial_id"] for result in results if result.metrics])


def _confirm(
    search: Recorder, begun: dict[str, Recorder], cluster: Cluster, images: SharedImages
) -> None:
    """Confirm the best configs of a search that has ended, one after the other, until one is
    interrupted. `begun`: their recorders, by trial."""
    run = search.run
    for standing in most_promising(search.standings(), run.mode, run.confirm):
        plan = replace(search.plan, run=confirmation_of(search, standing))
        name = f"{search.search_id}-{standing.trial_id}-{run.seeds}-seeds"
        each = Recorder(plan, search.folder.with_name(name), search.tracker, ["seed"])
        begun[standing.trial_id] = each
        say(f"trial {standing.trial_id} with {run.seeds} other seeds")
        _run(each, cluster, images)
        if each.ending != "completed":
            return
        search.confirmed(standing.trial_id, verdict(each.run, each.standings()).summary)


def _end(search: Recorder, confirmations: Mapping[str, Recorder]) -> None:
    """Close what is open; where something is left to do, say what goes on with it."""
    for each in (search, *confirmations.values()):
        each.end()
    run = search.run
    if search.journal.identity() and not _is_done(search, confirmations):
        what = f"confirm {run.confirms.run}" if run.confirms else f"search {run.family}"
        say(
            f"interrupted: `genpipe {what} --store {run.store} --resume {search.search_id}` "
            "goes on from the last checkpoints"
        )


def _is_done(search: Recorder, confirmations: Mapping[str, Recorder]) -> bool:
    """Whether the search has ended, and every confirmation that was asked for."""
    if any(each.ending != "completed" for each in (search, *confirmations.values())):
        return False
    run = search.run
    due = most_promising(search.standings(), run.mode, run.confirm) if run.confirm else []
    return len(confirmations) == len(due)


def _crown(search: Recorder, confirmations: Mapping[str, Recorder]) -> None:
    """Close what has ended. The alias is claimed for the best trial; of configs that were all
    confirmed, for the best by its mean; and for nothing by a confirmation alone."""
    run, ranking = search.run, search.standings()
    sure = ranking and ranking[0].spread and _is_done(search, confirmations)
    best = ranking[0].trial_id if sure else ""
    for trial_id, each in confirmations.items():
        each.crown(register=trial_id == best)
    search.crown(register=not (run.confirm or run.confirms))


def _opened(run: Search) -> tuple[Search, Path]:
    """The search to run and its folder: a new one, or one to go on with."""
    searches = run.store.expanduser().absolute() / "searches"
    if not run.resume:
        what = f"{run.family}-confirm" if run.confirms else run.family
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        return run, searches / f"{what}-{stamp}-{uuid4().hex[:4]}"
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
    _check_confirmed(run, before)
    default = defaults(Search, run.family)
    given = [name for name in _IF_GIVEN if getattr(run, name) != getattr(default, name)]
    return replace(before, **{name: getattr(run, name) for name in (*_HERE, *given)}), folder


def _check_confirmed(run: Search, before: Search) -> None:
    """Refuse to go on with what confirms another run, or none."""
    wanted, found = (each.confirms.run if each.confirms else "" for each in (run, before))
    expected = f"a confirmation of {wanted}" if wanted else "a search, and not a confirmation"
    require(wanted == found, "resume", run.resume, expected)


def _tuner(run: Search, folder: Path, trainable: Any, concurrent: int) -> tune.Tuner:
    """A tuner of a new search, or the one that was interrupted."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # TensorBoard and CSV: unread here
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # its table; the recorder shows progress
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"  # an epoch may lack what diverged
    # A resumed trial says again what it said last.
    warnings.filterwarnings("ignore", message="The reported value is ignored")
    path = str(folder / _TUNE)
    if tune.Tuner.can_restore(path):
        return tune.Tuner.restore(path, trainable=trainable, resume_errored=True)
    searched, by_grid = domains(run), run.chosen_searcher == "grid"
    return tune.Tuner(
        trainable,
        param_space=grid(run, searched) if by_grid else searched,
        tune_config=tune.TuneConfig(
            num_samples=1 if by_grid else run.trials,
            metric=None if run.further else run.metric,  # of several, the searcher knows
            mode=None if run.further else run.mode,
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
