"""A trial's state as Tune keeps it: weights, the settings that belong to them, and the schedule
that led to them, by which population based training can be repeated."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gen_models.core.checkpoint import load_checkpoint
from gen_models.core.errors import DamagedError
from pipelines.store.journal import Schedule, Segment, schedule_from
from pipelines.training.loop import TrialState

_MARK = b"sha256:"
_START = len(_MARK) + hashlib.sha256().digest_size
"""Where the content begins, after the mark and the content's digest."""


@dataclass(frozen=True)
class SavedState:
    """What Tune has saved of a trial."""

    learner: Mapping[str, Any]
    """A `Learner.state_dict`."""
    settings: Mapping[str, Any]
    """The searched settings, in the config's shape; {} if an older version saved it."""
    schedule: Schedule


def dump_state(trial: TrialState) -> bytes:
    """Return a trial's whole state."""
    schedule = [asdict(segment) for segment in trial.schedule]
    origin = json.dumps({"settings": trial.sampled, "schedule": schedule})
    buffer = io.BytesIO()
    torch.save({"learner": trial.learner.state_dict(), "origin": origin}, buffer)
    content = buffer.getvalue()
    return _MARK + hashlib.sha256(content).digest() + content


def load_state(state: bytes, device: torch.device) -> SavedState:
    """Return what `dump_state` was given. Runs no code from it. Raises `DamagedError` if it is not
    what was saved."""
    if state.startswith(_MARK):  # version 0.2 saved no digest
        digest, state = state[len(_MARK) : _START], state[_START:]
        if hashlib.sha256(state).digest() != digest:
            raise DamagedError("what Tune has saved is damaged: its SHA-256 is another")
    try:
        content = torch.load(io.BytesIO(state), weights_only=True, map_location=device)
        if "origin" not in content:  # saved by version 0.2
            return SavedState(content, {}, ())
        origin = json.loads(content["origin"])
        schedule = schedule_from(origin["schedule"])
        return SavedState(content["learner"], origin["settings"], schedule)
    except Exception as error:  # a file that was cut short raises whatever zip or pickle does
        raise DamagedError(f"what Tune has saved is damaged: {error}") from error


def settings_of(checkpoint: Path, shape: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with which the model of a checkpoint folder was trained. `shape`: names
    the settings that are searched, in the config's shape."""
    loaded = load_checkpoint(checkpoint)
    content = {
        "model": asdict(loaded.model.config),
        "optim": asdict(loaded.optim),
        "seed": loaded.seed,
    }
    return _pick(shape, content)


def _pick(shape: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _pick(inner, content[name])
        if isinstance(inner, Mapping)
        else content.get(name, inner)
        for name, inner in shape.items()
    }


def with_numbers_of(wanted: Mapping[str, Any], copied: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a copied state with the numbers of `wanted`, which population based
    training has changed. All others decide about shapes, and belong to the copied weights: the
    settings that Tune holds of the other trial may be older than its state."""
    return {
        name: with_numbers_of(value, copied.get(name, {}))
        if isinstance(value, Mapping)
        else value
        if isinstance(value, float)
        else copied.get(name, value)
        for name, value in wanted.items()
    }


def extended(schedule: Schedule, settings: Mapping[str, Any], trial_id: str) -> Schedule:
    """Return a schedule with one more epoch, of these settings (flat) in this trial."""
    last = schedule[-1] if schedule else None
    if last and last.settings == settings and last.trial_id == trial_id:
        return (*schedule[:-1], replace(last, epochs=last.epochs + 1))
    return (*schedule, Segment(1, settings, trial_id))


def continues(
    schedule: Schedule, copied: Schedule, settings: Mapping[str, Any], trial_id: str
) -> bool:
    """Return whether `schedule` is `copied` and more epochs of these settings in this trial."""
    missing = sum(s.epochs for s in schedule) - sum(s.epochs for s in copied)
    expected = copied
    for _ in range(missing):
        expected = extended(expected, settings, trial_id)
    return missing > 0 and schedule == expected
