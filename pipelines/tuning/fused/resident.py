"""The trials that reside on a device, and are trained together where that is faster.

Every epoch ends with a record in the trial's journal and a checkpoint in its folder, so trials are
kept in memory only to save time: a trial that is not there is restored from its checkpoint.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import torch

from gen_models.core.checkpoint import restore_learner, save_checkpoint
from gen_models.core.config import flatten
from gen_models.fused.trainer import FusedTrainer
from gen_models.training.cpu import prepare_thread
from gen_models.training.learner import Learner
from pipelines.config.run import as_train
from pipelines.config.search import Search
from pipelines.config.serialization import from_dict, with_settings
from pipelines.store.checkpoints import checkpoint_folder, prune_checkpoints, saved_epochs
from pipelines.store.files import LOCAL
from pipelines.store.journal import Journal
from pipelines.store.layout import SearchFolder
from pipelines.training.loop import (
    EpochLoop,
    Metrics,
    TrialState,
    is_picture_epoch,
    make_data,
    make_learner,
    repeated_report,
)
from pipelines.training.payload import SharedDataset, TrainingPayload
from pipelines.tuning.fused.requests import TrialRequest


class ResidentTrials:
    """Trains the trials that reside on this device. Not thread-safe: it seeds torch's global
    generator, and sets this process's torch threads."""

    def __init__(
        self, payload: TrainingPayload, dataset: SharedDataset, capacity: int, num_threads: int
    ) -> None:
        """Put the data on the device. `dataset`: what `payload.dataset` refers to. `capacity`:
        trials at a time."""
        torch.set_num_threads(num_threads)
        prepare_thread()
        self.run = from_dict(Search, payload.config)
        self.folder = SearchFolder.at(payload.folder)
        self.capacity = capacity
        self.num_classes = dataset.num_classes
        device = torch.device("cuda" if payload.on_gpu else "cpu")
        self.data, evaluator = make_data(self.run, dataset, device)
        self.trainer = FusedTrainer(self.data)
        self.loop = EpochLoop(self.data, evaluator, _FusedOutputs(self.run))
        self.vectorised = False
        """Whether trials are trained as one, so that requests should be gathered."""
        self._trials: OrderedDict[str, TrialState] = OrderedDict()

    # -- epochs -------------------------------------------------------------------------------
    def run_epochs(self, requests: Mapping[Future[Any], TrialRequest]) -> None:
        """Train each trial for an epoch, and set each future to its report, or to its error."""
        waiting: dict[Learner, _Waiting] = {}
        for reply, request in requests.items():
            try:
                trial = self._resident(request)
                if request.epoch is None and trial.epoch:
                    reply.set_result(repeated_report(trial.folder, trial.epoch))
                else:
                    waiting[trial.learner] = _Waiting(trial, reply)
            except Exception as error:
                reply.set_exception(error)
        groups = self.trainer.groups(list(waiting))
        self.vectorised = any(len(group) > 1 for group in groups)
        for group in groups:
            self._run_group([waiting[learner] for learner in group])

    def _run_group(self, group: Sequence[_Waiting]) -> None:
        try:
            reports = self.loop.run([each.trial for each in group], self.trainer.run_epoch)
        except Exception as error:
            for each in group:
                self.forget(each.trial.trial_id)  # its state is undefined
                each.reply.set_exception(error)
        else:
            for each, report in zip(group, reports, strict=True):
                each.reply.set_result(report)

    # -- states -------------------------------------------------------------------------------
    def save(self, request: TrialRequest) -> bytes:
        """Return a trial's whole state after the epoch of the request."""
        buffer = io.BytesIO()
        torch.save(self._resident(request).learner.state_dict(), buffer)
        return buffer.getvalue()

    def load(self, request: TrialRequest, state: bytes) -> int:
        """Put a saved state, the trial's own or another's, into a trial.

        Returns the number of epochs that the trial has run: the request's, or if that is None as
        many as its journal holds.
        """
        trial = self._new_trial(request)
        device = trial.learner.device
        content = torch.load(io.BytesIO(state), weights_only=True, map_location=device)
        trial.learner.load_state_dict(content)
        recorded = max(Journal(trial.folder).epochs(), default=0)
        trial.epoch = recorded if request.epoch is None else request.epoch
        self._keep(trial)
        return trial.epoch

    def forget(self, trial_id: str) -> None:
        """Drop a trial from memory."""
        self._trials.pop(trial_id, None)

    def describe(self) -> str:
        """Return how trials are trained, and why; a line for each structure."""
        return self.trainer.describe()

    def _resident(self, request: TrialRequest) -> TrialState:
        """Return a trial after the epoch of the request, from memory or from its checkpoint;
        without an epoch, after the last one that has a checkpoint."""
        trial = self._trials.get(request.trial_id)
        if trial is None or request.epoch is None or trial.epoch != request.epoch:
            trial = self._restored(request)
            if request.epoch is not None and trial.epoch != request.epoch:
                raise RuntimeError(
                    f"trial {request.trial_id} is at epoch {request.epoch}, its checkpoint at "
                    f"{trial.epoch}"
                )
        self._keep(trial)
        return trial

    def _new_trial(self, request: TrialRequest) -> TrialState:
        run = as_train(with_settings(self.run, request.config))
        folder = self.folder.trial(request.trial_id).path
        costs = {
            record.epoch: run.objective.cost(record.metrics[run.metric])
            for record in Journal(folder).records()
            if run.metric in record.metrics
        }
        return TrialState(
            run=run,
            learner=make_learner(run, self.data, self.num_classes),
            folder=folder,
            trial_id=request.trial_id,
            sampled=request.config,
            costs=costs,
        )

    def _restored(self, request: TrialRequest) -> TrialState:
        trial = self._new_trial(request)
        restorable = [epoch for epoch in saved_epochs(trial.folder) if epoch in trial.costs]
        if restorable:
            trial.epoch = restorable[-1]
            restore_learner(checkpoint_folder(trial.folder, trial.epoch), trial.learner)
        return trial

    def _keep(self, trial: TrialState) -> None:
        """Keep a trial in memory, and as many as run at a time."""
        self._trials[trial.trial_id] = trial
        self._trials.move_to_end(trial.trial_id)
        while len(self._trials) > self.capacity + 1:
            self._trials.popitem(last=False)


@dataclass(frozen=True)
class _Waiting:
    trial: TrialState
    reply: Future[Any]


class _FusedOutputs:
    """Writes journals and checkpoints into the trials' folders."""

    writes = True

    def __init__(self, run: Search) -> None:
        self.run = run
        self._best_cost: float | None = None

    def extra_metrics(self, trial: TrialState) -> Metrics:
        """Record the settings of a trial of population based training, which change: MLflow's
        parameters cannot."""
        if self.run.scheduler != "pbt":
            return {}
        settings = flatten(trial.sampled).items()
        return {f"config/{k}": float(v) for k, v in settings if isinstance(v, (int, float))}

    def draws_pictures(self, trial: TrialState, metrics: Metrics) -> bool:
        """Return whether the trial is the best so far: 1,000 trials need not draw 1,000
        pictures."""
        cost = self.run.objective.cost(metrics[self.run.metric])
        if self._best_cost is not None and cost >= self._best_cost:
            return False
        self._best_cost = cost
        return is_picture_epoch(self.run, trial.epoch)

    def save(self, trial: TrialState, report: Mapping[str, float], *, diverged: bool) -> None:
        """Write the checkpoint of an epoch, and remove those that are no longer kept."""
        if diverged:
            return
        with LOCAL.new_folder(checkpoint_folder(trial.folder, trial.epoch)) as folder:
            save_checkpoint(folder, trial.run.family, trial.run.optim, trial.learner)
        prune_checkpoints(trial.folder, trial.costs, trial.run.keep_checkpoints)
