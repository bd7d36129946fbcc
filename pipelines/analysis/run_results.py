"""What a run came to: read from its journal and its checkpoints, and nowhere else, so that what
is printed and what MLflow holds agree.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gen_models.core.checkpoint import load_checkpoint
from gen_models.core.sampling import sample
from pipelines.config.objectives import described
from pipelines.config.run import Mode, Run, Search, result_settings
from pipelines.config.serialization import command
from pipelines.data import Dataset
from pipelines.evaluation.feature_spaces import space_name
from pipelines.evaluation.images import drawing_of
from pipelines.store.journal import (
    Ending,
    Identity,
    Journal,
    Outcome,
    checkpoint_name,
    write_whole,
)
from pipelines.tracking import lineage


@dataclass(frozen=True)
class Best:
    """The best epoch of a run that still has its checkpoint."""

    epoch: int
    value: float
    checkpoint: Path
    metrics: Mapping[str, float]


def saved_epochs(run_folder: Path) -> list[int]:
    """The epochs of which a run has a checkpoint, ascending."""
    prefix = checkpoint_name(0)[:-6]
    return sorted(int(path.name[len(prefix) :]) for path in run_folder.glob(f"{prefix}[0-9]*"))


def best_epochs(run: Run, values: Mapping[int, float], saved: Sequence[int]) -> list[int]:
    """The epochs of `saved`, the best first. `values`: the metric that ranks, by epoch."""
    sign = -1.0 if run.mode == "max" else 1.0
    return sorted((e for e in saved if e in values), key=lambda epoch: sign * values[epoch])


def prune(run_folder: Path, keep: Collection[int]) -> None:
    """Drop a run's checkpoints but those of the epochs `keep`."""
    for epoch in saved_epochs(run_folder):
        if epoch not in keep:
            shutil.rmtree(run_folder / checkpoint_name(epoch), ignore_errors=True)


def better(a: float, b: float, mode: Mode) -> bool:
    """Whether `a` is strictly better than `b`."""
    return a > b if mode == "max" else a < b


def best_of(
    run_folder: Path, metric: str, mode: Mode, last_epoch: int | None = None
) -> Best | None:
    """The best epoch up to `last_epoch`; None where no checkpoint is left."""
    found: Best | None = None
    for report in Journal(run_folder).reports(upto=last_epoch):
        folder = run_folder / checkpoint_name(report.epoch)
        value = report.metrics.get(metric)
        if value is None or not (folder / "model.json").is_file():
            continue
        if found is None or better(value, found.value, mode):
            found = Best(report.epoch, value, folder, report.metrics)
    return found


def best_at_end(
    run_folder: Path, metric: str, mode: Mode, ending: Ending, last_epoch: int
) -> Best | None:
    """The best epoch of a run that has ended; a run that diverged has none."""
    return None if ending == "diverged" else best_of(run_folder, metric, mode, last_epoch)


def identity(
    run: Run,
    dataset: Dataset,
    *,
    kind: str,
    name: str,
    experiment: str,
    search_id: str = "",
    trial_id: str = "",
    parent: str = "",
    searched: Sequence[str] = (),
) -> Identity:
    """Who a run or a search is, with its lineage. `searched`: what a search's trials vary."""
    params = {k: _param(v) for k, v in result_settings(run).items()}
    return Identity(
        name=name,
        experiment=experiment,
        kind=kind,  # type: ignore[arg-type]
        search_id=search_id,
        trial_id=trial_id,
        parent=parent,
        params=params | ({"searched": " ".join(searched)} if searched else {}),
        tags={
            **_lineage(),
            "family": run.family,
            "seed": str(run.seed),
            "data_digest": dataset.digest,
            "features": space_name(dataset, run.features),
            "metric": run.metric,
            "mode": run.mode,
            "rerun": command(run),
        },
        dataset={
            "name": dataset.name,
            "digest": dataset.digest,
            "shape": list(dataset.spec.shape),
            "num_train": len(dataset.train),
            "num_validation": len(dataset.validation),
        },
    )


def search_tags(run: Search) -> dict[str, str]:
    """What MLflow is told of a search beyond that: several objectives, the run it confirms."""
    if run.further:
        return {"objectives": described(run.objectives)}
    if (confirms := run.confirms) is None:
        return {}
    return {
        "confirms": confirms.run,
        "confirms_name": confirms.name,
        "confirms_search": confirms.search_id,
    }


def outcome(
    run_folder: Path, run: Run, ending: Ending, last_epoch: int, message: str = ""
) -> Outcome:
    """How a run ended, with its best epoch."""
    best = best_at_end(run_folder, run.metric, run.mode, ending, last_epoch)
    tags = {"message": message} if message else {}
    summary: dict[str, float] = {}
    if best:
        summary = {"best/epoch": best.epoch}
        summary |= {f"best/{k}": v for k, v in best.metrics.items() if k.startswith("val/")}
        tags |= {"best_epoch": str(best.epoch), "checkpoint": str(best.checkpoint)}
    return Outcome(ending=ending, last_epoch=last_epoch, summary=summary, tags=tags)


def write_samples(checkpoint: Path, path: Path, seed: int = 0) -> Path:
    """Write a picture of a checkpoint's samples as a PNG file."""
    loaded = load_checkpoint(checkpoint)
    draw = drawing_of(loaded.model)
    samples = sample(loaded.model, loaded.networks, draw.num_samples, seed)
    write_whole(path, draw.samples(samples))
    return path


def settings_hash(run: Run, dataset: Dataset) -> str:
    """Eight characters that follow from all that the result depends on."""
    content = json.dumps([result_settings(run), dataset.digest], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:8]


@cache
def _lineage() -> dict[str, str]:
    """Of this command: asked of git once, and not for each of a thousand trials."""
    return lineage()


def _param(value: Any) -> str | int | float | bool:
    return value if isinstance(value, (str, int, float, bool)) else str(value)
