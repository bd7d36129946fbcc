"""The best epoch of a run, and the summary of a run that has ended."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.config.objectives import Objective
from pipelines.store.checkpoints import checkpoint_folder
from pipelines.store.journal import EpochContext, Outcome, RunStatus
from pipelines.store.scan import RunRecord

WEIGHTS = "weights_digest"
"""Tag: digest of the weights after the last epoch that counts."""
WIDEST = "widest"
"""Tag of a vectorised trial: the widths to which it was padded, as JSON."""
BEST_SETTINGS = "best_settings"
"""Tag of a trial whose settings changed in training: those at its best epoch, flat, as JSON."""


@dataclass(frozen=True)
class BestEpoch:
    """The best epoch of a run among those whose checkpoint is kept."""

    epoch: int
    value: float
    """The metric that ranks."""
    checkpoint: Path
    metrics: Mapping[str, float]
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The searched settings at this epoch, flat, if settings change in training."""


def epoch_costs(record: RunRecord, objective: Objective) -> dict[int, float]:
    """Return the cost of each epoch that counts and has a value of the objective."""
    return {
        each.epoch: objective.cost(each.metrics[objective.metric])
        for each in record.counted()
        if objective.metric in each.metrics
    }


def best_epoch(record: RunRecord, objective: Objective) -> BestEpoch | None:
    """Return the best epoch of a run that has a checkpoint; of equal ones the first.

    None if no checkpoint is left, and for a run that diverged.
    """
    if record.outcome and record.outcome.ending == "diverged":
        return None
    costs = epoch_costs(record, objective)
    saved = [epoch for epoch in costs if epoch in record.saved]
    if not saved:
        return None
    epoch = min(saved, key=lambda e: (costs[e], e))
    metrics, schedule = record.epochs[epoch].metrics, record.epochs[epoch].context.schedule
    folder = checkpoint_folder(record.folder.path, epoch)
    settings = schedule[-1].settings if schedule else {}
    return BestEpoch(epoch, metrics[objective.metric], folder, metrics, settings)


def summarise_run(
    record: RunRecord,
    objective: Objective,
    status: RunStatus,
    last_epoch: int,
    message: str = "",
) -> Outcome:
    """Return the outcome of a run that ends now, with the metrics of its best epoch.

    `last_epoch`: the last epoch that counts. `message`: why the run failed; why it diverged, its
    last epoch says.
    """
    outcome = Outcome(status, last_epoch)
    ended = RunRecord(record.folder, record.info, outcome, record.epochs, record.saved)
    best = best_epoch(ended, objective)
    if status == "diverged" and not message:
        message = _divergence(record, last_epoch)
    tags = {"message": message} if message else {}
    tags |= _training_tags([each.context for each in ended.counted()])
    summary: dict[str, float] = {}
    if best:
        summary = {"best/epoch": best.epoch}
        summary |= {f"best/{k}": v for k, v in best.metrics.items() if k.startswith("val/")}
        tags |= {"best_epoch": str(best.epoch), "checkpoint": best.checkpoint.name}
        if best.settings and record.info:  # no command of one config gives this result
            tags[BEST_SETTINGS] = json.dumps(dict(best.settings))
            tags["rerun"] = shlex.join(["genpipe", "rerun", record.info.name])
    return Outcome(ending=status, last_epoch=last_epoch, summary=summary, tags=tags)


def _divergence(record: RunRecord, epoch: int) -> str:
    """Return why a run diverged in an epoch; "" where an older version has not recorded it."""
    reason = record.epochs[epoch].context.divergence if epoch in record.epochs else ""
    return f"{reason} in epoch {epoch}" if reason else ""


def _training_tags(epochs: Sequence[EpochContext]) -> dict[str, str]:
    """Return how the epochs that count were trained; of several ways all, in their order."""
    tags = {}
    for name in ("execution", "device", "processor"):
        ways = dict.fromkeys(getattr(each, name) for each in epochs)
        tags[name] = "; ".join(filter(None, ways))
    if epochs:
        last = epochs[-1]
        tags[WEIGHTS] = last.weights
        tags[WIDEST] = json.dumps(dict(last.widest)) if last.widest else ""
    return {name: value for name, value in tags.items() if value}
