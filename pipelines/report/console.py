"""The console: log lines on stderr, results on stdout."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from pipelines.report.results import (
    BestResult,
    EvaluationResult,
    RerunResult,
    RunsResult,
    SampleResult,
    SearchResult,
    SyncResult,
    TrainResult,
    TrialRow,
)
from pipelines.store.secrets import redact

_WIDTH = 160
"""Columns of a table on what is no terminal."""
_LOGGERS = ("pipelines", "gen_models")
_terminal = Console(stderr=True, highlight=False)
_out = Console(highlight=False, markup=False)  # a run may be called [red]
if not _out.is_terminal:
    _out = Console(highlight=False, markup=False, width=_WIDTH)


# -- logging --------------------------------------------------------------------------------------
class ConsoleHandler(logging.Handler):
    """Prints log messages on stderr, above a line that is kept current there."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            prefix = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
            text = redact(self.format(record))
            _terminal.print(f"{prefix}{text}", markup=False, soft_wrap=True)
        except Exception:
            self.handleError(record)


def set_verbosity(level: int) -> None:
    """Show the log messages of this project from `level` on, on stderr."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(level)
        if not any(isinstance(handler, ConsoleHandler) for handler in logger.handlers):
            logger.addHandler(ConsoleHandler())


def ensure_logging() -> None:
    """Show progress on stderr, unless the program has configured logging itself."""
    configured = [logging.getLogger(), *map(logging.getLogger, _LOGGERS)]
    if not any(logger.handlers for logger in configured):
        set_verbosity(logging.INFO)


def terminal() -> Console:
    """Return the console on stderr, where a line can be kept current."""
    return _terminal


# -- results --------------------------------------------------------------------------------------
def show_train(result: TrainResult) -> None:
    """Print the result of one run."""
    _print(f"{result.name}: {result.outcome} after epoch {result.epoch}")
    if result.value is not None:
        _print(f"best {result.metric} {result.value:.6g} at epoch {result.best_epoch}")
        _print_metrics(result.metrics)
    _print(f"checkpoint  {result.checkpoint}")
    _print(f"samples     {result.samples}")
    _print(f"MLflow run  {result.run_id} in {result.experiment}, {result.tracking_uri}")
    _print_model_error(result.model_error)


def show_search(result: SearchResult, store: str) -> None:
    """Print the ranking of a search, its champion, and the command that opens MLflow's page."""
    if result.seed_study:
        _show_seed_study(result, store)
        return
    _print_ranking(result)
    _print_failures(result)
    if result.pareto:
        by = ", ".join(map(str, result.objectives))
        _print(f"Pareto front (*): {len(result.pareto)} trials, of {by}")
    if champion := result.champion:
        title = "champion" if result.outcome == "completed" else "best so far"
        _print(f"{title}: trial {champion.trial_id}, epoch {champion.best_epoch}")
        if champion.of:
            _print(f"the median seed's model, of the config of trial {champion.of}")
        for name, value in champion.config.items():
            _print(f"  {name} = {value}")
        _print_metrics(champion.metrics)
        if champion.version:
            held = f", alias {champion.alias}" if champion.alias else ""
            _print(f"model     models:/{result.experiment}/{champion.version}{held}")
        if result.samples:
            _print(f"samples   {result.samples}")
        _print_model_error(champion.model_error)
    _print(f"browse    {_genpipe()} browse --store {shlex.quote(store)}")


def _show_seed_study(result: SearchResult, store: str) -> None:
    """Print the metric over seeds, and how the studied run compares with them."""
    study, seeds = result.seed_study, result.seed_statistics
    assert study
    if seeds is None:
        _print(f"{study.name}: fewer than two seeds have a value of {result.metric}")
    else:
        lost = f", {seeds.lost} more were lost" if seeds.lost else ""
        _print(f"{study.name}: {result.metric} ({result.mode}) over {seeds.seeds} seeds{lost}")
        _print(f"  mean      {seeds.mean:.6g}, standard error {seeds.sem:.2g}")
        for name in ("std", "best", "median", "worst"):
            _print(f"  {name:<9} {getattr(seeds, name):.6g}")
    _print_failures(result)
    if result.seeds_beaten is not None:
        _print(f"  recorded  {study.value:.6g}, better than {result.seeds_beaten} of these seeds")
    _print(f"MLflow run  {result.run_id} in {result.experiment}, {result.tracking_uri}")
    _print(f"browse      {_genpipe()} browse --store {shlex.quote(store)}")


def show_evaluation(result: EvaluationResult) -> None:
    """Print the results on the test split."""
    _print(f"{result.name}, run {result.run_id}")
    for name, value in {**result.metrics, **result.tags}.items():
        _print(f"  {name} {_number(value)}")
    for name, path in result.pictures.items():
        _print(f"  {name} {path}")


def show_samples(result: SampleResult, model: str) -> None:
    """Print where samples were written."""
    _print(f"{result.num} samples of {model}: {result.path}")


def show_runs(result: RunsResult) -> None:
    """Print a table of recorded runs."""
    if not result.runs:
        _print("nothing is recorded here yet")
        return
    table = Table(box=None)
    names = ("run_id", "name", "experiment", "kind", "outcome", "epoch", "metric", "value", "key")
    for name in names:
        table.add_column(name.removesuffix("_id"), overflow="fold")
    for run in result.runs:
        table.add_row(*(_number(getattr(run, name)) for name in names))
    _out.print(table)
    _print_resume(result.resume)


def show_best(result: BestResult) -> None:
    """Print the best runs of a family, the first in full."""
    table = Table("run", "name", "outcome", result.metric, box=None)
    for run in result.ranking:
        table.add_row(run.run_id, run.name, run.outcome, _number(run.value))
    _out.print(table)
    best = result.ranking[0]
    for name, value in best.params.items():
        if name.startswith(("model.", "optim.")):
            _print(f"  {name} = {value}")
    _print_metrics(best.metrics)
    _print(f"compared:  {result.comparable}, key {result.key}")
    for key, num in result.left_out.items():
        _print(f"not compared with these: {num} of key {key}; --key {key} ranks them")
    _print(f"train it again:  {best.rerun}")
    _print_resume(result.resume)


def show_sync(result: SyncResult) -> None:
    """Print how much was recorded anew, and what was not."""
    for failure in result.failed:
        _print(f"{failure.name}: not recorded: {failure.reason}")
    _print(f"{result.runs} runs and {result.evaluations} evaluations: {result.tracking_uri}")


def show_rerun(result: RerunResult) -> None:
    """Print whether a repetition gave what is recorded, and if not, what differs."""
    _print(f"{result.name}: {'equal' if result.equal else 'differs'}, from {result.source}")
    _print(f"  {result.epochs} of {result.recorded_epochs} epochs repeated")
    _print(f"  {result.different_values} of {result.values} values differ")
    _print(f"  {result.different_digests} of {result.digests} digests of weights differ")
    if result.first_difference:
        _print(f"  the first: {result.first_difference}")
        _print(f"  the largest relative difference: {result.largest_difference:.2g}")
    for name, each in sorted(result.circumstances.items()):
        _print(f"  {name}: {each.recorded} is recorded, {each.here} here")


def _print(text: str) -> None:
    """Print one line of a result."""
    _out.print(text, markup=False, soft_wrap=True)


def _genpipe() -> str:
    """Return how the program is called here: by its name if the shell finds it."""
    if shutil.which("genpipe"):
        return "genpipe"
    return shlex.join([os.path.relpath(sys.executable), "-m", "pipelines"])


def _print_metrics(metrics: Mapping[str, float]) -> None:
    for name, value in sorted(metrics.items()):
        if name.startswith(("val/", "best/val/")):
            _print(f"  {name} {value:.6g}")


def _print_resume(commands: Mapping[str, str]) -> None:
    for name, command in commands.items():
        _print(f"{name} was interrupted; resume it:  {command}")


def _print_model_error(error: str | None) -> None:
    if error:
        _print(f"NO MODEL: the checkpoint could not be exported as an MLflow model: {error}")


def _print_failures(result: SearchResult) -> None:
    """Print why trials failed, or why none has a value."""
    failed = Counter(result.failures)
    for study in result.studies.values():
        failed.update(study.failures)
    for reason, num in failed.items():
        _print(f"FAILED: {num} {'trial' if num == 1 else 'trials'}: {reason}")
    if result.outcome != "interrupted" and all(row.value is None for row in result.ranking):
        outcomes = Counter(row.outcome.replace("_", " ") for row in result.ranking)
        ended = ", ".join(f"{num} {outcome}" for outcome, num in outcomes.items())
        _print(f"NO RESULT: no trial has a value of {result.metric}: {ended or 'none ended'}")


def _print_ranking(result: SearchResult) -> None:
    pareto = {row.trial_id for row in result.pareto}
    settings = list(result.ranking[0].config) if result.ranking else []
    metrics = [objective.metric for objective in result.objectives]
    statistics = ["mean", "std"] if any(row.confirmed for row in result.ranking) else []
    names = ["trial", "outcome", "epochs", *metrics, *statistics, *settings]
    table = Table("rank", *names, box=None)
    for rank, row in enumerate(result.ranking, 1):
        table.add_row(
            f"{rank} *" if row.trial_id in pareto else str(rank),
            *_ranking_cells(row, metrics, statistics),
        )
    _out.print(table)


def _ranking_cells(row: TrialRow, metrics: Sequence[str], statistics: Sequence[str]) -> list[str]:
    first, *further = metrics
    return [
        row.trial_id,
        row.outcome.replace("_", " "),
        str(row.epochs),
        row.outcome if row.value is None else _number(row.values[first]),
        *(_number(row.values[name]) for name in further),
        *(_number(getattr(row.confirmed, name, None)) for name in statistics),
        *(_number(value) for value in row.config.values()),
    ]


def _number(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value if value is not None else "")
