"""The console: log lines on stderr, results on stdout."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence

from rich.console import Console

from pipelines.report.results import (
    BestResult,
    EvaluationResult,
    JobFileResult,
    ReportResult,
    RerunResult,
    RunProgress,
    RunsResult,
    SampleResult,
    SearchResult,
    StatusResult,
    StopResult,
    SyncResult,
    TrainResult,
)
from pipelines.report.tables import Column, ColumnKind, draw_table, number_text
from pipelines.store.secrets import redact

_LOGGERS = ("pipelines", "gen_models")
_terminal = Console(stderr=True, highlight=False)
_out = Console(highlight=False, markup=False)  # a run may be called [red]


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
    _print(f"{result.name}: {result.outcome.replace('_', ' ')} after epoch {result.epoch}")
    if result.ended_by:
        go_on = f"; go on with it:  {result.resume}" if result.resume else ""
        _print(f"{result.ended_by}{go_on}")
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
    _print_ended_by(result)
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
            _print(f"model     models:/{result.registered_model}/{champion.version}{held}")
        if result.samples:
            _print(f"samples   {result.samples}")
        _print_model_error(champion.model_error)
    for each in result.edges:
        _print(f"{each.name} = {each.value} lies at the {each.edge} end of {each.range}:")
        _print(f"  {each.flag} widens it")
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
    _print_ended_by(result)
    if result.seeds_beaten is not None:
        _print(f"  recorded  {study.value:.6g}, better than {result.seeds_beaten} of these seeds")
    _print(f"MLflow run  {result.run_id} in {result.experiment}, {result.tracking_uri}")
    _print(f"browse      {_genpipe()} browse --store {shlex.quote(store)}")


def show_job(result: JobFileResult) -> None:
    """Print how the stages of a job ended."""
    _print(f"job {result.job}, in {result.store}")
    for name, stage in result.stages.items():
        ended = "done" if stage.exit_code == 0 else f"ended with exit code {stage.exit_code}"
        _print(f"  {name:<16} {ended}{'' if stage.is_new else ' before'}")
    for name in result.left:
        _print(f"  {name:<16} not begun")


def show_evaluation(result: EvaluationResult) -> None:
    """Print the results on the test split."""
    _print(f"{result.name}, run {result.run_id}")
    for name, value in {**result.metrics, **result.tags}.items():
        _print(f"  {name} {number_text(value)}")
    for name, path in result.pictures.items():
        _print(f"  {name} {path}")


def show_samples(result: SampleResult, model: str) -> None:
    """Print where samples were written."""
    _print(f"{result.num} samples of {model}: {result.path}")


def show_runs(result: RunsResult, *, filtered: bool = False) -> None:
    """Print a table of recorded runs. `filtered`: whether some kinds were left out."""
    if not result.runs:
        _print("no such run is recorded" if filtered else "nothing is recorded here yet")
        return
    _print_table(result.columns())
    _print_resume(result.resume)


def show_best(result: BestResult) -> None:
    """Print the best runs of a family, the first in full."""
    _print_table(result.columns())
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


def show_stop(result: StopResult) -> None:
    """Print what was asked for, or how it has ended."""
    if result.outcome:
        _print(f"{result.name}: {result.outcome.replace('_', ' ')}; {result.ended_by}")
    else:
        _print(f"{result.name}: asked to end after the epochs that run ({result.asked})")
    if result.resume:
        _print(f"go on with it:  {result.resume}")


def show_status(result: StatusResult, store: str, *, clear: bool = False) -> None:
    """Print a table of what runs. `clear`: in place of what the terminal shows."""
    if clear and _out.is_terminal:
        _out.clear()
    if not result.runs:
        _print(f"nothing runs in {store}")
        return
    cells = zip(*map(_status_cells, result.runs), strict=True)
    named = zip(_STATUS, cells, strict=True)
    _print_table([Column(name, each, kind) for (name, kind), each in named])
    for run in result.runs:
        _print(f"{run.name}: {_describe_progress(run)}")
        if run.assumes:
            _print(f"{run.name}: until {run.until} (UTC) if {run.assumes}")
        if run.running:
            _print(f"{run.name}: process {run.process} on {run.host} since {run.since}")
        if run.ended_by:
            _print(f"{run.name}: {run.ended_by}")
        if run.resume:
            _print(f"{run.name} does not run; go on with it:  {run.resume}")


_STATUS: tuple[tuple[str, ColumnKind], ...] = (
    ("name", "text"),
    ("state", "text"),
    ("trials", "text"),
    ("epochs", "number"),
    ("a minute", "number"),
    ("best", "number"),
    ("until", "number"),
)


def _status_cells(run: RunProgress) -> list[str]:
    until = run.until.partition("T")[2].partition("+")[0]
    return [
        run.name,
        "running" if run.running else run.outcome.replace("_", " "),
        f"{run.trials_done}/{run.trials} done, {run.trials_running} running",
        str(run.epochs),
        "" if run.epochs_per_minute is None else f"{run.epochs_per_minute:.1f}",
        number_text(run.value),
        until,
    ]


def _describe_progress(run: RunProgress) -> str:
    """Return what a run has found, the time that it has used, and what is left of its budgets."""
    parts = []
    if run.value is not None:
        trial = f" (trial {run.best_trial})" if run.best_trial else ""
        parts.append(f"best {run.metric} {number_text(run.value)}{trial}")
    if run.device_share is not None:
        parts.append(f"training {run.device_share:.0%} of its devices' time")
    left = {"h": run.hours_left, "device h": run.device_hours_left, "trials": run.flat_trials_left}
    budgets = [f"{number_text(value)} {name}" for name, value in left.items() if value is not None]
    parts.append(f"used {run.hours:.3g} h, {run.device_hours:.3g} device h")
    parts += [f"left {', '.join(budgets)}"] if budgets else []
    return "; ".join(parts)


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


def show_report(result: ReportResult) -> None:
    """Print what was reported, and where the page is."""
    for each in result.searches:
        best = f", best {each.metric} {each.value:.6g}" if each.value is not None else ""
        state = each.outcome or "running"
        hours = f"{each.device_hours:.3g} device-hours"
        _print(f"{each.search_id}: {state}, {each.trials} trials, {hours}{best}")
        for edge in each.edges:
            _print(f"  {edge.name} = {number_text(edge.value)} lies at the {edge.edge} edge of")
            _print(f"  {edge.range}" + (f"; to widen it: {edge.flag}" if edge.flag else ""))
    _print(f"page  {result.path}")


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


def _print_ended_by(result: SearchResult) -> None:
    if result.ended_by:
        _print(f"ended before all trials had: {result.ended_by}")
        _print(f"its trials ran for {result.hours:.3g} h, on devices {result.device_hours:.3g} h")
        larger = ", with a larger budget" if result.ended_by.startswith("--") else ""
        _print(f"go on with it{larger}:  {result.resume}")


def _print_ranking(result: SearchResult) -> None:
    """Print the best trials, and those of the Pareto front."""
    if result.ranking:
        _print_table(result.columns())
    if more := result.num_hidden:
        _print(f"and {more} more: `{_genpipe()} report {result.search_id}`, or --json, has them")


def _print_table(columns: Sequence[Column]) -> None:
    """Print a table: as wide as the terminal or COLUMNS; whole where there is neither."""
    for line in draw_table(columns, shutil.get_terminal_size((0, 0)).columns or None):
        _print(line)
