"""Results of commands: what the public functions return and `--json` prints.

`docs/results.schema.json` is the JSON schema of these classes, written by `python -m
docs.generate`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipelines.analysis.best_epoch import BestEpoch
from pipelines.analysis.ranking import TrialResult
from pipelines.analysis.seeds import SeedStatistics
from pipelines.config.objectives import Mode, Objective
from pipelines.config.search import SeedStudy
from pipelines.store.journal import Journal, RunStatus

EXIT_CODES: Mapping[str, int] = {"completed": 0, "interrupted": 130}
"""Exit code of a command by its result's outcome; any other is 1."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """A command's result."""

    @property
    def exit_code(self) -> int:
        """The command's exit code."""
        return 0

    def to_json(self) -> str:
        """Return the result as one line of JSON."""
        return json.dumps(asdict(self), default=str)


@dataclass(frozen=True, kw_only=True)
class TrainResult(Result):
    """A training run."""

    name: str
    run_id: str | None
    """MLflow's id; None if MLflow has not taken the run yet."""
    experiment: str
    tracking_uri: str
    outcome: RunStatus
    epoch: int
    """The last epoch."""
    metric: str
    value: float | None
    """The metric at the best epoch."""
    best_epoch: int | None
    metrics: Mapping[str, float]
    """All metrics of the best epoch."""
    checkpoint: str | None
    """Folder of the best checkpoint."""
    samples: str | None
    """Picture of the best checkpoint's samples."""
    model: Mapping[str, Any]
    optim: Mapping[str, Any]
    model_error: str | None = None
    """Why the best checkpoint could not be exported as an MLflow model."""

    @property
    def exit_code(self) -> int:
        return 1 if self.model_error else EXIT_CODES.get(self.outcome, 1)


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """A trial of a search that has ended."""

    trial_id: str
    outcome: RunStatus
    epochs: int
    value: float | None
    """The metric that ranks, at the best epoch."""
    best_epoch: int | None
    confirmed: SeedStatistics | None
    """The metric of its config over other seeds, if that was studied."""
    config: Mapping[str, Any]
    """The searched settings, flat."""
    metrics: Mapping[str, float]
    """All metrics of the best epoch."""
    values: Mapping[str, float | None]
    """The value of each objective at the best epoch."""
    checkpoint: str | None
    run_id: str | None
    model: str | None
    """URI of the logged model, if there is one."""
    version: str | None
    """Version of the registered model, if it is one."""
    alias: str | None = None
    """Alias that the version holds: `champion`, or `champion-KEY` if a model that cannot be
    compared with it holds that."""
    model_error: str | None = None
    """Why the checkpoint could not be exported as an MLflow model."""
    of: str | None = None
    """Of a champion that is a seed of a seed study: the trial whose config it has."""

    @classmethod
    def from_result(
        cls, result: TrialResult, objectives: tuple[Objective, ...], run_id: str | None
    ) -> TrialRow:
        """Return the row of a ranked trial. `run_id`: MLflow's."""
        best: BestEpoch | None = result.best
        delivered = Journal(result.record.folder.path, result.record.folder.files).delivered()
        values = result.values(objectives)
        return cls(
            trial_id=result.trial_id,
            outcome=result.outcome.ending,
            epochs=result.outcome.last_epoch,
            value=best.value if best else None,
            best_epoch=best.epoch if best else None,
            confirmed=result.seeds,
            config=dict(result.config),
            metrics=dict(best.metrics) if best else {},
            values={o.metric: v for o, v in zip(objectives, values, strict=True)},
            checkpoint=str(best.checkpoint) if best else None,
            run_id=run_id,
            model=delivered.get("model_uri"),
            version=delivered.get("version"),
            alias=delivered.get("alias"),
            model_error=delivered.get("model_error"),
        )


@dataclass(frozen=True, kw_only=True)
class StudySummary:
    """A seed study that a search made of one of its trials."""

    search_id: str
    run_id: str | None
    outcome: RunStatus
    seed_study: SeedStudy | None
    seed_statistics: SeedStatistics | None
    seeds_beaten: int | None
    failures: Mapping[str, int] = field(default_factory=dict)
    """Why seeds failed, and how many of them."""


@dataclass(frozen=True, kw_only=True)
class SearchResult(Result):
    """A search, or a seed study."""

    search_id: str
    run_id: str | None
    experiment: str
    tracking_uri: str
    outcome: RunStatus
    metric: str
    mode: Mode
    objectives: tuple[Objective, ...]
    champion: TrialRow | None
    ranking: tuple[TrialRow, ...]
    """The trials that have ended, the best first."""
    pareto: tuple[TrialRow, ...]
    """With several objectives, the trials of the Pareto front, in order of the first objective."""
    samples: str | None
    """Picture of the champion's samples."""
    report: str | None
    """The search's page."""
    seed_study: SeedStudy | None = None
    """Of a seed study: the run whose config it trains again."""
    seed_statistics: SeedStatistics | None = None
    """Of a seed study in which two seeds or more have a value."""
    seeds_beaten: int | None = None
    """Of a seed study: how many seeds the studied run is better than."""
    studies: Mapping[str, StudySummary] = field(default_factory=dict)
    """Seed studies of this search's best configs, by trial id (`--confirm`)."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """Why trials failed, and how many of them."""

    @property
    def exit_code(self) -> int:
        """1 also if a trial failed, or none has a value of the metric that ranks."""
        if self.outcome != "completed":
            return EXIT_CODES.get(self.outcome, 1)
        has_value = any(row.value is not None for row in self.ranking)
        failed = self.failures or any(study.failures for study in self.studies.values())
        no_model = self.champion is not None and self.champion.model_error is not None
        return 1 if failed or no_model or not has_value else 0


@dataclass(frozen=True, kw_only=True)
class EvaluationResult(Result):
    """An evaluation on the test split."""

    run_id: str
    name: str
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    pictures: Mapping[str, str]
    """Paths of PNG files."""


@dataclass(frozen=True, kw_only=True)
class SampleResult(Result):
    """Samples that were written to a file."""

    path: str
    num: int
    seed: int
    family: str


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """A run that is recorded in MLflow."""

    run_id: str
    name: str
    experiment: str
    kind: str
    search_id: str
    trial_id: str
    status: str
    outcome: str
    epoch: int
    metric: str
    value: float | None
    params: Mapping[str, str]
    """Its config; of a trial whose settings changed in training, that of its best epoch."""
    metrics: Mapping[str, float]
    rerun: str
    """The command that trains its config again, or repeats its schedule."""
    started: str
    """ISO 8601."""
    comparable: str = ""
    """The comparison key: values of `metric` may be compared between runs of one key."""
    key: str = ""
    """Eight digits that stand for it."""


@dataclass(frozen=True, kw_only=True)
class RunsResult(Result):
    """Recorded runs, newest first."""

    runs: tuple[RecordedRun, ...]
    resume: Mapping[str, str] = field(default_factory=dict)
    """The commands that resume what was interrupted of these, by the name of the run or search."""


@dataclass(frozen=True, kw_only=True)
class BestResult(Result):
    """Recorded runs of a family on one data set, the best first."""

    metric: str
    mode: Mode
    data: str
    ranking: tuple[RecordedRun, ...]
    rerun: str
    """The command that trains the best one's config again."""
    comparable: str = ""
    """The comparison key of all that are ranked."""
    key: str = ""
    """Eight digits that stand for it."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Runs that cannot be compared with these: how many, by their keys' eight digits."""
    resume: Mapping[str, str] = field(default_factory=dict)
    """The commands that resume what was interrupted of these, by the name of the run or search."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Something that could not be done."""

    name: str
    """Of a run; of an evaluation its folder."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class SyncResult(Result):
    """What was recorded anew from the journals of a store."""

    tracking_uri: str
    runs: int
    """Runs, searches and trials that the tracking system now holds as their journals do."""
    evaluations: int
    failed: tuple[Failure, ...]

    @property
    def exit_code(self) -> int:
        return 1 if self.failed else 0


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A circumstance on which last digits depend, and which is not as it was."""

    recorded: str
    here: str


@dataclass(frozen=True, kw_only=True)
class RerunResult(Result):
    """A recorded run that was repeated, and compared value by value."""

    name: str
    source: str
    """Where what is recorded was read: a journal's folder, or MLflow's run."""
    equal: bool
    """Whether every epoch was repeated with equal values and equal weights, to the last bit."""
    epochs: int
    """Epochs that were compared."""
    recorded_epochs: int
    values: int
    """Values of metrics that were compared."""
    different_values: int
    first_difference: str | None
    largest_difference: float
    """The largest relative difference of two values."""
    digests: int
    """Epochs whose weights were compared, by their digests."""
    different_digests: int
    circumstances: Mapping[str, Difference]
    """What is not as it was: versions, device, processor, data, execution, precision, workers."""

    @property
    def exit_code(self) -> int:
        return 0 if self.equal else 1


RESULTS: tuple[type[Result], ...] = (
    TrainResult,
    SearchResult,
    EvaluationResult,
    SampleResult,
    RunsResult,
    BestResult,
    SyncResult,
    RerunResult,
)


def existing(path: Path) -> str | None:
    """Return the path as text if there is such a file."""
    return str(path) if path.is_file() else None
