"""Results of commands: what the public functions return and `--json` prints.

`docs/results.schema.json` is the JSON schema of these classes, written by `python -m
docs.generate`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipelines.analysis.best_epoch import BestEpoch
from pipelines.analysis.ranking import TrialResult
from pipelines.analysis.seeds import SeedStatistics
from pipelines.config.objectives import Mode, Objective
from pipelines.config.search import SeedStudy
from pipelines.report.notebook import as_html
from pipelines.report.tables import Column, field_column, number_text, pair_columns, setting_column
from pipelines.store.journal import Journal, RunStatus

_RANKED = 20
"""Trials that the table of a search has, beside those of its Pareto front."""
EXIT_CODES: Mapping[str, int] = {"completed": 0, "stopped_early": 0, "interrupted": 130}
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

    def columns(self) -> list[Column]:
        """Return the result as a table; [] if it has no rows."""
        return pair_columns(vars(self))

    def headline(self) -> str:
        """Return a line that says what the table is of; "" if nothing needs to be said."""
        return ""

    def shown_pictures(self) -> Sequence[str | None]:
        """Return the paths of pictures, which need not exist."""
        return ()

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return as_html([self.headline()], self.columns(), self.shown_pictures())


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
    ended_by: str = ""
    """Why it has ended before its last epoch: who has stopped it, or what has diverged."""
    resume: str = ""
    """The command that goes on with it, if its outcome is `stopped_early`."""

    @property
    def exit_code(self) -> int:
        return 1 if self.model_error else EXIT_CODES.get(self.outcome, 1)

    def columns(self) -> list[Column]:
        """Return the metrics of the best epoch."""
        return pair_columns(self.metrics)

    def headline(self) -> str:
        line = f"{self.name}: {self.outcome.replace('_', ' ')} after epoch {self.epoch}"
        if self.value is None:
            return line
        return f"{line}; best {self.metric} {number_text(self.value)} at epoch {self.best_epoch}"

    def shown_pictures(self) -> Sequence[str | None]:
        return [self.samples]


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
class EdgeSetting:
    """A setting whose best value lies at an edge of its range."""

    name: str
    value: Any
    edge: Literal["lower", "upper"]
    range: str
    flag: str
    """The flag of `search` that widens the range."""


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
    registered_model: str = ""
    """The registered model that the champion is a version of."""
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
    edges: tuple[EdgeSetting, ...] = ()
    """The champion's settings that lie at an edge of the space."""
    ended_by: str = ""
    """Why it ended before all its trials had: a budget, or `genpipe stop`; "" if it did not."""
    resume: str = ""
    """The command that goes on with it then; if a budget is used up, with a larger one."""
    hours: float = 0.0
    """Hours in which its trials ran, over all resumptions."""
    device_hours: float = 0.0
    """The same, times the devices that they held."""

    @property
    def exit_code(self) -> int:
        """1 also if a trial failed, or none has a value of the metric that ranks."""
        if self.outcome != "completed":
            return EXIT_CODES.get(self.outcome, 1)
        has_value = any(row.value is not None for row in self.ranking)
        failed = self.failures or any(study.failures for study in self.studies.values())
        no_model = self.champion is not None and self.champion.model_error is not None
        return 1 if failed or no_model or not has_value else 0

    def _shown(self) -> list[tuple[int, TrialRow]]:
        """Return the best trials and those of the Pareto front, with their ranks."""
        pareto = {row.trial_id for row in self.pareto}
        ranked = enumerate(self.ranking, 1)
        return [each for each in ranked if each[0] <= _RANKED or each[1].trial_id in pareto]

    @property
    def num_hidden(self) -> int:
        """How many trials the table leaves out."""
        return len(self.ranking) - len(self._shown())

    def columns(self) -> list[Column]:
        """Return the table of the best trials and those of the Pareto front, marked by a star."""
        shown = self._shown()
        rows = [row for _, row in shown]
        if not rows:
            return []
        pareto = {row.trial_id for row in self.pareto}
        ranks = [f"{rank} *" if row.trial_id in pareto else str(rank) for rank, row in shown]
        columns = [Column("rank", ranks), Column("trial", [row.trial_id for row in rows])]
        columns.append(Column("outcome", [row.outcome.removesuffix("_early") for row in rows]))
        columns.append(field_column(rows, "epochs", "number"))
        for objective in self.objectives:
            values = [number_text(row.values.get(objective.metric)) for row in rows]
            columns.append(Column(objective.metric, values, "number"))
        for name in ("mean", "std") if any(row.confirmed for row in rows) else ():
            values = [number_text(getattr(row.confirmed, name, None)) for row in rows]
            columns.append(Column(name, values, "number"))
        for name in rows[0].config:
            cells = [number_text(row.config.get(name)) for row in rows]
            columns.append(setting_column(name, cells))
        return columns

    def headline(self) -> str:
        line = f"{self.search_id}: {self.outcome.replace('_', ' ')}"
        if self.ended_by:
            line += f"; {self.ended_by}; go on with it: {self.resume}"
        return line + (f"; {self.num_hidden} more in .ranking" if self.num_hidden else "")

    def shown_pictures(self) -> Sequence[str | None]:
        return [self.samples]


@dataclass(frozen=True, kw_only=True)
class EvaluationResult(Result):
    """An evaluation on the test split."""

    run_id: str
    name: str
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    pictures: Mapping[str, str]
    """Paths of PNG files."""

    def columns(self) -> list[Column]:
        """Return the metrics, and what belongs to them."""
        return pair_columns({**self.metrics, **self.tags})

    def headline(self) -> str:
        return self.name

    def shown_pictures(self) -> Sequence[str | None]:
        return list(self.pictures.values())


@dataclass(frozen=True, kw_only=True)
class SampleResult(Result):
    """Samples that were written to a file."""

    path: str
    num: int
    seed: int
    family: str

    def shown_pictures(self) -> Sequence[str | None]:
        return [self.path] if self.path.endswith(".png") else []


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
    tags: Mapping[str, str] = field(default_factory=dict)
    """The tags that a person gave it."""
    note: str = ""
    """The note that a person wrote of it, in Markdown."""


@dataclass(frozen=True, kw_only=True)
class RunsResult(Result):
    """Recorded runs, newest first; it can be iterated over."""

    runs: tuple[RecordedRun, ...]
    resume: Mapping[str, str] = field(default_factory=dict)
    """The commands that resume what was interrupted of these, by the name of the run or search."""

    def __iter__(self) -> Iterator[RecordedRun]:
        return iter(self.runs)

    def __len__(self) -> int:
        return len(self.runs)

    def columns(self) -> list[Column]:
        """Return the table of the runs."""
        if not self.runs:
            return []
        columns = [field_column(self.runs, "run_id", "id"), field_column(self.runs, "name")]
        for name in ("experiment", "kind", "outcome"):
            columns.append(field_column(self.runs, name, optional=name == "experiment"))
        columns.append(field_column(self.runs, "epoch", "number"))
        columns.append(field_column(self.runs, "metric", optional=True))
        columns.append(field_column(self.runs, "value", "number"))
        columns.append(field_column(self.runs, "key", "id", optional=True))
        return columns

    def headline(self) -> str:
        return "" if self.runs else "nothing is recorded"


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

    def columns(self) -> list[Column]:
        """Return the table of the runs."""
        columns = [field_column(self.ranking, "run_id", "id"), field_column(self.ranking, "name")]
        columns.append(field_column(self.ranking, "outcome"))
        values = [number_text(run.value) for run in self.ranking]
        return [*columns, Column(self.metric, values, "number")]

    def headline(self) -> str:
        return f"compared: {self.comparable}"


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


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """A stage of a job that has ended."""

    command: str
    exit_code: int
    is_new: bool
    """False if it had ended before, and its result was read."""
    result: Mapping[str, Any]
    """The command's result, as its own `--json` prints it."""


@dataclass(frozen=True, kw_only=True)
class JobFileResult(Result):
    """The stages of a job file (`genpipe run`)."""

    job: str
    store: str
    stages: Mapping[str, StageResult]
    """The stages that have ended, by their names, in their order."""
    left: tuple[str, ...]
    """The stages that have not begun, because the one before them failed or was interrupted."""

    @property
    def exit_code(self) -> int:
        """That of the first stage that did not end with 0."""
        return next((s.exit_code for s in self.stages.values() if s.exit_code), 0)


@dataclass(frozen=True, kw_only=True)
class ReportedSearch:
    """A search that a page shows."""

    search_id: str
    outcome: RunStatus | None
    """None while it runs."""
    trials: int
    """Trials that have begun, without those that were tried again under another id."""
    metric: str
    mode: Mode
    best_trial: str | None
    """The trial that the search selects, of those that have ended."""
    value: float | None
    """Its value."""
    config: Mapping[str, Any]
    """Its searched settings, flat."""
    edges: tuple[EdgeSetting, ...]
    """Its settings at an edge of their range, beyond which better values may lie."""
    importance: Mapping[str, float]
    """The share of each setting in the importance of all, the largest first; {} with too few
    trials."""
    importance_trials: int
    """The trials on which the importance rests."""
    device_hours: float
    epochs: int
    saved_epochs: int
    """Epochs that trials which were stopped early did not train."""


@dataclass(frozen=True, kw_only=True)
class ReportResult(Result):
    """A page of a search, or of several side by side."""

    path: str
    searches: tuple[ReportedSearch, ...]


@dataclass(frozen=True, kw_only=True)
class StopResult(Result):
    """A run or a search that was asked to end."""

    name: str
    asked: str
    """Who has asked for it, and when."""
    outcome: str
    """How it has ended; "" if that was not waited for."""
    ended_by: str
    """What has ended it before all its trials had: "" if nothing has, or it was not waited for."""
    resume: str
    """The command that goes on with it."""


@dataclass(frozen=True, kw_only=True)
class RunProgress:
    """How far a run or a search is."""

    name: str
    running: bool
    """Whether a process works on it."""
    host: str
    """Where it runs."""
    process: int
    since: str
    """When this process began, ISO 8601."""
    outcome: str
    """How it has ended; "" while it runs."""
    ended_by: str
    """What has ended it before all its trials had, or ends it now."""
    metric: str
    value: float | None
    """The best value so far."""
    best_trial: str
    trials: int
    """Trials in all; 1 for a run."""
    trials_done: int
    trials_running: int
    trials_left: int
    epochs: int
    """Epochs that are recorded, of all trials."""
    epochs_per_minute: float | None
    """Over the last minutes; None while it is not known."""
    device_share: float | None
    """Share of its devices' time that is training, over the last minutes; the rest is validation,
    checkpoints and waiting."""
    hours: float
    """Hours in which its trials ran, over all resumptions."""
    device_hours: float
    hours_left: float | None
    """Of --max-hours; None without this budget."""
    device_hours_left: float | None
    flat_trials_left: int | None
    """Of --stop-when-flat: trials that may end without an improvement."""
    seconds_left: float | None
    """Estimate of when it ends; None while nothing is known."""
    until: str
    """The same as a time, ISO 8601."""
    assumes: str
    """What the estimate assumes."""
    resume: str
    """The command that goes on with it, if it does not run."""


@dataclass(frozen=True, kw_only=True)
class StatusResult(Result):
    """What runs in a store, and how far it is."""

    runs: tuple[RunProgress, ...]


RESULTS: tuple[type[Result], ...] = (
    TrainResult,
    SearchResult,
    EvaluationResult,
    SampleResult,
    RunsResult,
    BestResult,
    SyncResult,
    RerunResult,
    JobFileResult,
    ReportResult,
    StopResult,
    StatusResult,
)


def existing(path: Path) -> str | None:
    """Return the path as text if there is such a file."""
    return str(path) if path.is_file() else None
