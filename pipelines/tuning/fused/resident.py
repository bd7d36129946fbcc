"""The trials that reside on a device, and are trained together where that is faster.

Every epoch ends with a record in the trial's journal and a checkpoint in its folder, so trials are
kept in memory only to save time: a trial that is not there is restored from its checkpoint.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gen_models.core.checkpoint import restore_learner, save_checkpoint
from gen_models.core.config import flatten, nest
from gen_models.core.errors import DamagedError
from gen_models.fused.trainer import Execution, FusedTrainer
from gen_models.training.batches import TrainingImages
from gen_models.training.cpu import prepare_thread
from gen_models.training.learner import Learner
from pipelines.config.run import Run, as_train
from pipelines.config.search import Search
from pipelines.config.serialization import from_dict, with_settings
from pipelines.store.checkpoints import checkpoint_folder, prune_checkpoints
from pipelines.store.files import LOCAL
from pipelines.store.journal import Journal, Schedule
from pipelines.store.layout import SearchFolder
from pipelines.training.loop import (
    EpochLoop,
    EpochOutputs,
    Metrics,
    TrialState,
    is_picture_epoch,
    make_data,
    make_learner,
    repeated_report,
)
from pipelines.training.payload import SharedDataset, TrainingPayload
from pipelines.training.restoring import newest_whole
from pipelines.tuning.fused.choices import RecordedChoices
from pipelines.tuning.fused.marks import WorkerMarks
from pipelines.tuning.fused.requests import TrialRequest
from pipelines.tuning.fused.states import (
    continues,
    dump_state,
    extended,
    load_state,
    settings_of,
    with_numbers_of,
)

_log = logging.getLogger(__name__)


class ResidentTrials:
    """Trains the trials that reside on this device. Not thread-safe: it seeds torch's global
    generator, and sets this process's torch threads."""

    def __init__(
        self,
        payload: TrainingPayload,
        dataset: SharedDataset,
        capacity: int,
        num_threads: int,
        marks: WorkerMarks,
    ) -> None:
        """Put the data on the device. `dataset`: what `payload.dataset` refers to. `capacity`:
        trials at a time. `marks`: of this process."""
        torch.set_num_threads(num_threads)
        prepare_thread()
        self.run = from_dict(Search, payload.config)
        self.folder = SearchFolder.at(payload.folder)
        self.capacity, self.marks = capacity, marks
        self.settings_change = self.run.perturbs
        """Whether a trial's settings change while it is trained."""
        self.num_classes = dataset.num_classes
        device = torch.device("cuda" if payload.on_gpu else "cpu")
        self.data, self.evaluator = make_data(self.run, dataset, device)
        self.choices = RecordedChoices(self.folder)
        self.widest = payload.widest
        self.outputs: EpochOutputs = _FusedOutputs(self.run)
        self._batched: dict[tuple[int, bool], _Batched] = {}
        self.vectorised = False
        """Whether trials are trained as one, so that requests should be gathered."""
        self._trials: OrderedDict[str, TrialState] = OrderedDict()
        self._copies: set[str] = set()
        """Trials with a copied state that no epoch has saved yet."""

    # -- epochs -------------------------------------------------------------------------------
    def run_epochs(self, requests: Mapping[Future[Any], TrialRequest]) -> None:
        """Train each trial for an epoch, and set each future to its report, or to its error."""
        waiting: dict[str, _Waiting] = {}
        for reply, request in requests.items():
            try:
                with self.marks.training([request.trial_id]):
                    trial = self._resident(request)
                    self._catch_up(trial, request.epoch or 0)
                    self._execution([trial])  # measured now, if it is the first
                if trial.epoch > (request.epoch or 0):  # its report was lost
                    reply.set_result(repeated_report(trial.folder, trial.epoch))
                else:
                    waiting[trial.trial_id] = _Waiting(trial, reply, request.alone)
            except Exception as error:
                reply.set_exception(error)
        together = [each.trial for each in waiting.values() if not each.alone]
        self.vectorised = any(self._execution([trial]) == "vectorised" for trial in together)
        for group in self._groups(together):
            self._run_group([waiting[trial.trial_id] for trial in group])
        for each in waiting.values():
            if each.alone:
                self._run_group([each])

    def _groups(self, trials: Sequence[TrialState]) -> list[list[TrialState]]:
        """Group the trials that are trained together."""
        of_batches = defaultdict[_Batched, dict[Learner, TrialState]](dict)
        for trial in trials:
            of_batches[self._batches(trial.run)][trial.learner] = trial
        return [
            [known[learner] for learner in group]
            for batched, known in of_batches.items()
            for group in batched.trainer.groups(list(known))
        ]

    def _batches(self, run: Run) -> _Batched:
        """Return what trains the trials with a config's batches."""
        key = run.batch_size, run.drop_last
        if key not in self._batched:
            data = replace(self.data, batch_size=run.batch_size, drop_last=run.drop_last)
            how = self.run.execution, self.capacity, self.choices, self.widest
            loop = EpochLoop(data, self.evaluator, self.outputs)
            self._batched[key] = _Batched(data, FusedTrainer(data, *how), loop)
        return self._batched[key]

    def _catch_up(self, trial: TrialState, epoch: int) -> None:
        """Train a trial up to an epoch that it has been at: its newest checkpoint may be lost. The
        epochs have the values that they had."""
        while trial.epoch < epoch:
            self._run([trial])

    def _run_group(self, group: Sequence[_Waiting]) -> None:
        try:
            with self.marks.training([each.trial.trial_id for each in group]):
                reports = self._run([each.trial for each in group])
        except Exception as error:
            for each in group:
                self.forget(each.trial.trial_id)  # its state is undefined
                each.reply.set_exception(error)
        else:
            for each, report in zip(group, reports, strict=True):
                each.reply.set_result(report)

    def _run(self, trials: Sequence[TrialState]) -> list[dict[str, float]]:
        """Train trials that are grouped together for an epoch; return their reports."""
        learners = [trial.learner for trial in trials]
        for trial in trials:
            trial.execution = self._execution(trials)
            trial.widest = self.widest if trial.execution == "vectorised" else {}
            self._copies.discard(trial.trial_id)
            if self.settings_change:
                trial.schedule = extended(trial.schedule, flatten(trial.sampled), trial.trial_id)
        batched = self._batches(trials[0].run)
        companions = batched.trainer.companions(learners)
        return batched.loop.run(trials, batched.trainer.run_epoch, companions)

    def _execution(self, trials: Sequence[TrialState]) -> Execution:
        """Return how trials of one structure are trained."""
        trainer = self._batches(trials[0].run).trainer
        return trainer.choice([trial.learner for trial in trials]).execution

    # -- states -------------------------------------------------------------------------------
    def save(self, request: TrialRequest) -> bytes:
        """Return a trial's whole state after the epoch of the request, with its settings and what
        led to it."""
        with self.marks.training([request.trial_id]):
            trial = self._resident(request)
            self._catch_up(trial, request.epoch or 0)
            return dump_state(trial)

    def load(self, request: TrialRequest, state: bytes) -> int:
        """Restore a trial that Tune has saved at the epoch of the request, from its run folder if
        that is as new, else from `state`; return its epoch.

        The run folder may be newer: Tune saves what it knows of its trials every ten seconds or
        later. Then the trial's settings are those that it had at its newest epoch.
        """
        assert request.epoch is not None
        with self.marks.training([request.trial_id]):
            trial = self._restored(request)
            if trial.epoch < request.epoch:
                trial = self._loaded(request, state) or trial
                self._catch_up(trial, request.epoch)
            self._keep(trial)
            return trial.epoch

    def _loaded(self, request: TrialRequest, state: bytes) -> TrialState | None:
        """Return a trial with the state that Tune has saved of it; None if it is damaged."""
        assert request.epoch is not None
        try:
            saved = load_state(state, self.data.device)
        except DamagedError as error:
            _log.warning("trial %s: %s", request.trial_id, error)
            return None
        settings = saved.settings if self.settings_change else None
        trial = self._new_trial(request, settings or request.config)
        trial.learner.load_state_dict(saved.learner)
        trial.epoch, trial.schedule = request.epoch, saved.schedule
        return trial

    def copy(self, request: TrialRequest, state: bytes) -> int | None:
        """Put another trial's state into a trial, with the numbers of the request in place of the
        other's; all other settings belong to the weights.

        Returns the number of epochs that the trial has run: the request's, or if that is None as
        many as its journal holds. None if it has gone on from this state before: then it goes on
        from its newest checkpoint.
        """
        with self.marks.training([request.trial_id]):
            restored = self._restored(request)
            saved = load_state(state, restored.learner.device)
            settings = with_numbers_of(request.config, saved.settings)
            copied = saved.schedule
            if _has_gone_on(restored, copied, flatten(settings), after=request.epoch or 0):
                self._keep(restored)
                return request.epoch
            trial = self._new_trial(request, settings)
            trial.learner.load_state_dict(saved.learner)
            recorded = max(Journal(trial.folder).epochs(), default=0)
            trial.epoch = recorded if request.epoch is None else request.epoch
            trial.schedule = copied
            self._copies.add(trial.trial_id)
            self._keep(trial)
            return trial.epoch

    def forget(self, trial_id: str) -> None:
        """Drop a trial from memory."""
        self._trials.pop(trial_id, None)
        self._copies.discard(trial_id)

    def describe(self) -> str:
        """Return how trials are trained, and why; a line for each structure."""
        notes = [batched.trainer.describe() for batched in self._batched.values()]
        return "\n".join(dict.fromkeys(note for note in notes if note))

    def _resident(self, request: TrialRequest) -> TrialState:
        """Return a trial after the epoch of the request, from memory or from its checkpoint, which
        may be older or newer; without an epoch, after the last one that has a checkpoint."""
        trial = self._trials.get(request.trial_id)
        if trial is None or request.epoch is None or trial.epoch != request.epoch:
            trial = self._restored(request)
        self._keep(trial)
        return trial

    def _new_trial(self, request: TrialRequest, settings: Mapping[str, Any]) -> TrialState:
        run = as_train(with_settings(self.run, settings))
        folder = self.folder.trial(request.trial_id).path
        costs = {
            record.epoch: run.objective.cost(record.metrics[run.metric])
            for record in Journal(folder).whole_records()
            if run.metric in record.metrics
        }
        return TrialState(
            run=run,
            learner=make_learner(run, self._batches(run).data, self.num_classes),
            folder=folder,
            trial_id=request.trial_id,
            sampled=settings,
            costs=costs,
        )

    def _restored(self, request: TrialRequest) -> TrialState:
        """Return a trial after its newest checkpoint that is whole, or a new one. Its settings are
        those that it had then: they and the weights belong together, and Tune may have saved other
        settings of it."""

        def restore(epoch: int, checkpoint: Path) -> TrialState:
            settings: Mapping[str, Any] = request.config
            schedule: Schedule = ()
            if self.settings_change:
                schedule = Journal(folder).record(epoch).context.schedule
                last = nest(schedule[-1].settings) if schedule else None
                settings = last or settings_of(checkpoint, request.config)
            trial = replace(self._new_trial(request, settings), epoch=epoch, schedule=schedule)
            restore_learner(checkpoint, trial.learner)
            return trial

        folder = self.folder.trial(request.trial_id).path
        trial = newest_whole(folder, restore) or self._new_trial(request, request.config)
        return self._replayed(request, trial) if self.settings_change else trial

    def _replayed(self, request: TrialRequest, trial: TrialState) -> TrialState:
        """Return a trial after its newest recorded epoch by its schedule, if its newest checkpoint
        is older: trained on from there, it would have the settings of an earlier epoch."""
        newest = None
        for record in Journal(trial.folder).whole_records():
            if record.context.schedule and trial.run.metric in record.metrics:
                newest = record
        if newest is None or newest.epoch <= trial.epoch:
            return trial
        _log.warning(
            "trial %s: repeating its schedule up to epoch %d", request.trial_id, newest.epoch
        )
        learner = None
        for segment in newest.context.schedule:
            trial = self._new_trial(request, nest(segment.settings))
            if learner:
                trial.learner.load_state_dict(learner.state_dict())
            learner = trial.learner
            for _ in range(segment.epochs):
                self._batches(trial.run).trainer.run_epoch([learner])
                learner.pop_metrics()
        return replace(trial, epoch=newest.epoch, schedule=newest.context.schedule)

    def _keep(self, trial: TrialState) -> None:
        """Keep a trial in memory, and as many as run at a time."""
        self._trials[trial.trial_id] = trial
        self._trials.move_to_end(trial.trial_id)
        saved = [trial_id for trial_id in self._trials if trial_id not in self._copies]
        for trial_id in saved[: max(0, len(self._trials) - self.capacity - 1)]:
            del self._trials[trial_id]


@dataclass(frozen=True, eq=False)
class _Batched:
    """What trains the trials that divide the images into batches in one way."""

    data: TrainingImages
    trainer: FusedTrainer
    loop: EpochLoop


@dataclass(frozen=True)
class _Waiting:
    trial: TrialState
    reply: Future[Any]
    alone: bool


def _has_gone_on(
    trial: TrialState, copied: Schedule, settings: Mapping[str, Any], after: int
) -> bool:
    """Return whether an epoch of a trial after the epoch `after` was trained from a copied state
    with these settings, and the trial's newest checkpoint is not older than that epoch."""
    for record in Journal(trial.folder).records(after, upto=trial.epoch):
        if continues(record.context.schedule, copied, settings, trial.trial_id):
            return True
    return False


class _FusedOutputs:
    """Writes journals and checkpoints into the trials' folders."""

    writes = True

    def __init__(self, run: Search) -> None:
        self.run = run
        self._best_costs: dict[int, float] = {}
        """The best cost of a trial at each epoch at which pictures are drawn."""

    def extra_metrics(self, trial: TrialState) -> Metrics:
        """Record the settings of a trial of population based training, which change: MLflow's
        parameters cannot."""
        if not self.run.perturbs:
            return {}
        settings = flatten(trial.sampled).items()
        return {f"config/{k}": float(v) for k, v in settings if isinstance(v, (int, float))}

    def draws_pictures(self, trial: TrialState, metrics: Metrics) -> bool:
        """Return whether the trial is better than all before it at this epoch: 1,000 trials need
        not draw 1,000 pictures, and the best one should have many."""
        if not is_picture_epoch(self.run, trial.epoch):
            return False
        cost = self.run.objective.cost(metrics[self.run.metric])
        if cost >= self._best_costs.get(trial.epoch, math.inf):
            return False
        self._best_costs[trial.epoch] = cost
        return True

    def save(self, trial: TrialState, report: Mapping[str, float], *, diverged: bool) -> None:
        """Write the checkpoint of an epoch, and remove those that are no longer kept."""
        if diverged:
            return
        with LOCAL.new_folder(checkpoint_folder(trial.folder, trial.epoch)) as folder:
            save_checkpoint(folder, trial.run.family, trial.run.optim, trial.learner)
        kept = trial.run.keep_checkpoints
        prune_checkpoints(trial.folder, trial.costs, kept, going_on=True)
