"""The journal: what a run has to say, on disk, before anybody else hears of it.

Rank 0 writes one file per reported epoch into the run's folder, whole or not at all. MLflow is
a projection of these files (`pipelines.tracking`), so an outage, a kill or a restart can delay
what MLflow shows, but can neither lose a point nor log one twice: a retrained epoch overwrites
its own file with the same content.

    <run folder>/journal/
        identity.json               who the run is: `Identity`
        reports/000005.json         epoch 5: {"epoch": 5, "metrics": {…}, "pictures": ["samples"]}
        reports/000005.samples.png
        outcome.json                how it ended: `Outcome`; absent while it runs
        delivered.json              what MLflow holds of it (written by `pipelines.tracking`)
"""

import json
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Ending = Literal["completed", "stopped_early", "diverged", "failed", "interrupted", "superseded"]
"""superseded: the search was killed before Tune had saved that it knew of the trial, and tried
its config again as another one."""


def checkpoint_name(epoch: int) -> str:
    """The folder of an epoch's checkpoint, within the run's folder."""
    return f"checkpoint_{epoch:06d}"


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file aside and rename it, so that a reader sees all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    aside.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(aside, path)


@dataclass(frozen=True)
class Identity:
    """Who a run is: everything that MLflow is told of it before its first metric."""

    name: str
    """The run's name in MLflow."""
    experiment: str
    """MLflow experiment, `<family>-<data>`."""
    kind: Literal["run", "search", "confirmation", "trial"]
    """confirmation: a search over the seed of a recorded run's config."""
    search_id: str = ""
    """The search that this run is, or is a trial of."""
    trial_id: str = ""
    parent: str = ""
    """For a trial: the folder of its search's run, relative to the trial's own folder."""
    params: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    """The config, flat: `{"model.latent_dim": 16, …}`."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Lineage: seed, git commit, versions, the command that re-runs it."""
    dataset: Mapping[str, Any] = field(default_factory=dict)
    """`{"name", "digest", "shape": [C, H, W] or [2], "num_train", "num_validation"}`."""
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Unique; MLflow's run is found by it, for MLflow lets nobody choose a run's id."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    ending: Ending
    last_epoch: int
    """The last epoch that counts. Reports beyond it are not delivered: a worker may be an epoch
    ahead when its trial is stopped."""
    summary: Mapping[str, float] = field(default_factory=dict)
    """Metrics of the whole run, such as `best/val/elbo`, `wall_seconds`; they have no step."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Told at the end, such as `best_epoch`, `checkpoint`, `message`."""
    artifacts: Mapping[str, str] = field(default_factory=dict)
    """Artifact folder in MLflow -> file or folder, absolute, to copy there."""
    checkpoint: str = ""
    """A checkpoint folder to log as a model, or nothing."""
    register: str = ""
    """The registered model that it becomes a version of, or nothing."""
    champion: Mapping[str, str | float] = field(default_factory=dict)
    """`{"metric": "val/elbo", "mode": "max", "value": -20.1}`: claim the alias `champion` unless
    the holder, ranked by the same metric on the same data digest, is better. With `"seeds": 50`
    where the value is a mean over as many."""


@dataclass(frozen=True)
class Report:
    """One epoch: plain finite floats, and the pictures made at it, by key."""

    epoch: int
    metrics: Mapping[str, float]
    pictures: Mapping[str, Path]


class Journal:
    """The journal in one run's folder. Cheap to make; holds no open file and no state."""

    def __init__(self, run_folder: str | Path) -> None:
        self.run_folder = Path(run_folder)
        self.folder = self.run_folder / "journal"
        self.reports_folder = self.folder / "reports"

    # -- identity -----------------------------------------------------------------------------
    def open(self, identity: Identity) -> Identity:
        """Write who the run is; a run that has an identity keeps it. Forgets how it ended."""
        (self.folder / "outcome.json").unlink(missing_ok=True)
        if not (known := self.identity()):
            write_whole(self.folder / "identity.json", _json(asdict(identity)))
            known = identity
        return known

    def identity(self) -> Identity | None:
        content = _read(self.folder / "identity.json")
        return Identity(**content) if content else None

    # -- reports ------------------------------------------------------------------------------
    def report(
        self, epoch: int, metrics: Mapping[str, float], pictures: Mapping[str, bytes]
    ) -> None:
        """Record one epoch; `pictures` are PNG files, by key. The JSON comes last: it commits."""
        for key, png in pictures.items():
            write_whole(self._picture(epoch, key), png)
        content = {"epoch": epoch, "metrics": dict(metrics), "pictures": sorted(pictures)}
        write_whole(self.reports_folder / f"{epoch:06d}.json", _json(content))

    def epochs(self) -> list[int]:
        """The epochs reported so far, ascending."""
        return sorted(int(path.stem) for path in self.reports_folder.glob("[0-9]*.json"))

    def reports(self, after: int = 0, upto: int | None = None) -> Iterator[Report]:
        """The reports of the epochs in (after, upto], in order."""
        for epoch in self.epochs():
            if epoch > after and (upto is None or epoch <= upto):
                content = _read(self.reports_folder / f"{epoch:06d}.json")
                pictures = {key: self._picture(epoch, key) for key in content["pictures"]}
                yield Report(epoch, content["metrics"], pictures)

    def last(self) -> Report | None:
        """The report of the latest epoch."""
        epochs = self.epochs()
        return next(self.reports(after=epochs[-1] - 1), None) if epochs else None

    def _picture(self, epoch: int, key: str) -> Path:
        return self.reports_folder / f"{epoch:06d}.{key}.png"

    # -- outcome ------------------------------------------------------------------------------
    def close(self, outcome: Outcome) -> None:
        write_whole(self.folder / "outcome.json", _json(asdict(outcome)))

    def outcome(self) -> Outcome | None:
        content = _read(self.folder / "outcome.json")
        return Outcome(**content) if content else None

    # -- what MLflow holds --------------------------------------------------------------------
    def mark_delivered(self, content: Mapping[str, Any]) -> None:
        write_whole(self.folder / "delivered.json", _json(dict(content)))

    def delivered(self) -> dict[str, Any]:
        return _read(self.folder / "delivered.json")


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return content
