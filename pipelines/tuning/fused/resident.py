"""The members of a population: trials in memory, trained together where they gain from it.

Every epoch ends with a line in the trial's journal and a checkpoint in its folder, so members are
kept in memory only to save time: one that is not there is taken up from its checkpoint.
"""

from __future__ import annotations

import io
import shutil
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch

from gen_models.core.checkpoint import restore_learner, save_checkpoint
from gen_models.core.config import flatten
from gen_models.fused.trainer import FusedTrainer
from gen_models.training.cpu import prepare_thread
from gen_models.training.learner import Learner
from pipelines.analysis.run_results import best_epochs, better, prune, saved_epochs
from pipelines.config.run import Search, Train, as_train, run_from_dict, with_sampled
from pipelines.store.journal import Journal, checkpoint_name
from pipelines.training.loop import (
    has_diverged,
    is_picture_epoch,
    make_data,
    make_learner,
    record,
    told,
)
from pipelines.training.payload import Images, Job, trial_folder
from pipelines.tuning.fused.worker import Request


@dataclass
class Member:
    """A trial in memory."""

    trial_id: str
    run: Train
    sampled: Mapping[str, Any]
    folder: Path
    learner: Learner
    epoch: int
    """Epochs that this trial has run; the learner's position is another if it was copied."""
    values: dict[int, float]
    """The metric that ranks, by epoch."""


class Members:
    """Trials of a search. Not for several threads: torch's global generator bears one."""

    def __init__(self, search: Job, capacity: int, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        prepare_thread()
        self.search, self.run = search, run_from_dict(Search, search.run)
        self.capacity = capacity
        images: Images = ray.get(search.images[0])
        self.num_classes = images.num_classes
        device = torch.device("cuda" if search.on_gpu else "cpu")
        self.data, self.evaluator = make_data(self.run, images, device)
        self.population = FusedTrainer(self.data)
        self.together = False
        """Whether members are trained as one, so that they should come together."""
        self._members: OrderedDict[str, Member] = OrderedDict()
        self._best: float | None = None

    def serve(self, requests: Sequence[Request]) -> None:
        """Train those who ask, and answer each as soon as it is done."""
        waiting: dict[Learner, tuple[Member, Request]] = {}
        for request in requests:
            try:
                member = self._member(request.trial_id, request.config, request.done)
                if request.done is None and member.epoch:
                    request.answer.set_result(_repeated(member))
                else:
                    waiting[member.learner] = member, request
            except Exception as error:
                request.answer.set_exception(error)
        groups = self.population.groups(list(waiting))
        self.together = any(len(group) > 1 for group in groups)
        for group in groups:
            self._serve_group([waiting[learner] for learner in group])

    def _serve_group(self, group: Sequence[tuple[Member, Request]]) -> None:
        try:
            reports = self._run_epoch([member for member, _ in group])
        except Exception as error:
            for member, request in group:
                self.forget(member.trial_id)  # what it has become is not known
                request.answer.set_exception(error)
        else:
            for (_, request), report in zip(group, reports, strict=True):
                request.answer.set_result(report)

    # -- an epoch ---------------------------------------------------------------------------
    def _run_epoch(self, members: Sequence[Member]) -> list[dict[str, Any]]:
        start = time.perf_counter()
        learners = [member.learner for member in members]
        self.population.run_epoch(learners)
        trained = [learner.pop_metrics() for learner in learners]
        # of the device's time, each of those that are trained as one takes its share
        seconds = (time.perf_counter() - start) / len(members)
        pace = {
            "epoch_seconds": seconds,
            "images_per_second": self.data.images_per_epoch / seconds,
        }
        networks = [learner.sampling_networks() for learner in learners]
        validated = self.evaluator.metrics([learner.model for learner in learners], networks)
        return [
            self._finish(member, {f"train/{k}": v for k, v in own.items()} | found | pace, nets)
            for member, own, found, nets in zip(members, trained, validated, networks, strict=True)
        ]

    def _finish(
        self, member: Member, metrics: dict[str, float], networks: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Write down a member's epoch; what Tune is told of it."""
        member.epoch += 1
        if self.run.scheduler == "pbt":  # then a trial's config changes, and MLflow's cannot
            numbers = flatten(member.sampled).items()
            metrics |= {f"config/{k}": v for k, v in numbers if isinstance(v, (int, float))}
        diverged = has_diverged(metrics)
        leads = not diverged and self._leads(metrics[self.run.metric])
        draw = leads and is_picture_epoch(self.run, member.epoch)
        pictures = self.evaluator.pictures(member.learner.model, networks) if draw else {}
        record(member.folder, member.epoch, metrics, pictures)
        if not diverged:
            member.values[member.epoch] = metrics[self.run.metric]
            self._save_checkpoint(member)
        return told(self.run, member.epoch, metrics)

    def _leads(self, value: float) -> bool:
        """Whether no member has been better. A thousand trials don't need a thousand pictures."""
        if self._best is not None and not better(value, self._best, self.run.mode):
            return False
        self._best = value
        return True

    def _save_checkpoint(self, member: Member) -> None:
        """Write the checkpoint of an epoch, whole or not at all; drop those that are no longer
        among the best."""
        folder = member.folder / checkpoint_name(member.epoch)
        aside = folder.with_name(f".{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        save_checkpoint(aside, member.run.family, member.run.optim, member.learner)
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
        best = best_epochs(self.run, member.values, saved_epochs(member.folder))
        prune(member.folder, {*best[: self.run.keep_checkpoints], member.epoch})

    # -- coming and going -------------------------------------------------------------------
    def save(self, trial_id: str, config: Mapping[str, Any], done: int | None) -> bytes:
        """A trial's whole state after the epoch `done`."""
        buffer = io.BytesIO()
        torch.save(self._member(trial_id, config, done).learner.state_dict(), buffer)
        return buffer.getvalue()

    def load(
        self, trial_id: str, config: Mapping[str, Any], state: bytes, epoch: int | None
    ) -> int:
        """Put a saved state, its own or another trial's, into a trial; the epochs that the trial
        has run: `epoch`, or as many as its journal holds."""
        member = self._new_member(trial_id, config)
        device = member.learner.device
        content = torch.load(io.BytesIO(state), weights_only=True, map_location=device)
        member.learner.load_state_dict(content)
        reported = max(Journal(member.folder).epochs(), default=0)
        member.epoch = reported if epoch is None else epoch
        self._keep(member)
        return member.epoch

    def forget(self, trial_id: str) -> None:
        """Drop a trial from memory."""
        self._members.pop(trial_id, None)

    def _member(self, trial_id: str, config: Mapping[str, Any], done: int | None) -> Member:
        """A trial after the epoch `done`, from memory or from its checkpoint; where `done` is
        None, after the last epoch that it has a checkpoint of."""
        member = self._members.get(trial_id)
        if member is None or done is None or member.epoch != done:
            member = self._restored(trial_id, config)
            if done is not None and member.epoch != done:
                raise RuntimeError(
                    f"trial {trial_id} is at epoch {done}, its checkpoint at {member.epoch}"
                )
        self._keep(member)
        return member

    def _new_member(self, trial_id: str, config: Mapping[str, Any]) -> Member:
        run = as_train(with_sampled(self.run, config))
        folder = trial_folder(self.search.folder, trial_id)
        learner = make_learner(run, self.data, self.num_classes)
        reports = Journal(folder).reports()
        values = {r.epoch: r.metrics[run.metric] for r in reports if run.metric in r.metrics}
        return Member(trial_id, run, config, folder, learner, 0, values)

    def _restored(self, trial_id: str, config: Mapping[str, Any]) -> Member:
        member = self._new_member(trial_id, config)
        found = [epoch for epoch in saved_epochs(member.folder) if epoch in member.values]
        if found:
            member.epoch = found[-1]
            restore_learner(member.folder / checkpoint_name(member.epoch), member.learner)
        return member

    def _keep(self, member: Member) -> None:
        """Keep a member in memory, as many as run at a time."""
        self._members[member.trial_id] = member
        self._members.move_to_end(member.trial_id)
        while len(self._members) > self.capacity + 1:
            self._members.popitem(last=False)


def _repeated(member: Member) -> dict[str, Any]:
    """The report of a member's last epoch, again."""
    (report,) = Journal(member.folder).reports(member.epoch - 1, member.epoch)
    return {**report.metrics, "epoch": member.epoch}
