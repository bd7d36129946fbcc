"""Draws the life of a fused trial as a sequence diagram: who calls whom, in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from docs.drawing import Drawing

_LIVES = {
    "worker": ("FusedWorker", "an actor for each device", "tuning/fused/worker.py"),
    "trial": ("FusedTrial", "a light actor, used again", "tuning/fused/trials.py"),
    "tune": ("Ray Tune", "searcher and scheduler", "tuning/tuner.py"),
    "search": ("SearchRun", "acts on Tune's events", "tuning/search_run.py"),
    "folder": ("trial's folder", "on disk: journal, checkpoints", "store/"),
    "queue": ("DeliveryQueue", "a thread", "tracking/queue.py"),
    "mlflow": ("MLflow", "a server or a database", "tracking/mlflow/"),
}
"""What takes part, left to right: name, what it is, and its file in `pipelines/`."""
_GROUPS = (
    ("worker", "worker", "a process"),
    ("trial", "trial", "a process"),
    ("tune", "queue", "the process of genpipe search"),
)
"""Processes: the first and the last that they hold, and what they are."""
_SPACING, _LEFT, _ROW = 172, 100, 30


@dataclass(frozen=True)
class _Message:
    source: str
    target: str
    text: str
    reply: bool = False


@dataclass(frozen=True)
class _Section:
    title: str
    messages: Sequence[_Message]


_SECTIONS = (
    _Section(
        "1. A trial starts",
        (
            _Message("tune", "trial", "setup(config), or reset_config"),
            _Message("trial", "worker", "reserve(trial_id)"),
            _Message("tune", "search", "event TrialStarted"),
            _Message("search", "folder", "config.json, RunInfo"),
            _Message("search", "queue", "sync(journal)"),
            _Message("queue", "mlflow", "create the run"),
        ),
    ),
    _Section(
        "2. Each epoch",
        (
            _Message("tune", "trial", "step()"),
            _Message("trial", "worker", "run_epoch(TrialRequest)"),
            _Message("worker", "worker", "EpochLoop: train, validate, draw pictures"),
            _Message("worker", "folder", "EpochRecord into the journal, then the checkpoint"),
            _Message("worker", "trial", "report", reply=True),
            _Message("trial", "tune", "report", reply=True),
            _Message("tune", "tune", "scheduler: go on, stop, pause or perturb?"),
            _Message("tune", "search", "event TrialReported"),
            _Message("search", "queue", "sync(journal, upto=epoch), at most every 3 s"),
            _Message("queue", "folder", "read what is new"),
            _Message("queue", "mlflow", "metrics, pictures"),
        ),
    ),
    _Section(
        "3. The trial ends: completed, stopped early, diverged or failed",
        (
            _Message("tune", "search", "event TrialEnded"),
            _Message("search", "folder", "prune checkpoints, Outcome"),
            _Message("search", "queue", "sync(journal)"),
            _Message("queue", "mlflow", "best epoch, status"),
            _Message("tune", "trial", "reset_config, cleanup"),
            _Message("trial", "worker", "leave(trial_id)"),
        ),
    ),
)


def trial_svg() -> str:
    """Return the picture of a trial's life."""
    width = _LEFT * 2 + _SPACING * (len(_LIVES) - 1)
    rows = sum(len(section.messages) + 1.6 for section in _SECTIONS)
    top = 176
    bottom = top + rows * _ROW
    drawing = Drawing(width, int(bottom + 50), "The life of a fused trial")
    drawing.text(24, 34, "The life of a fused trial", size=18, bold=True, anchor="start")
    at = {name: _LEFT + _SPACING * index for index, name in enumerate(_LIVES)}
    for first, last, text in _GROUPS:
        x, end = at[first] - 80, at[last] + 80
        drawing.box(x, 54, end - x, bottom - 44, fill="#f4f7fa", stroke="#d5dde5")
        drawing.text((x + end) / 2, 72, text, size=11, colour="#555")
    for name, lines in _LIVES.items():
        _draw_head(drawing, at[name], lines, bottom)
    y = float(top)
    for section in _SECTIONS:
        drawing.text(
            24, y + 6, section.title, size=13, bold=True, anchor="start", colour="#8a3b00"
        )
        drawing.line([(24, y + 12), (width - 24, y + 12)], head=False, colour="#d9c3b0")
        y += 1.3 * _ROW
        for message in section.messages:
            _draw_message(drawing, message, at, y)
            y += _ROW
        y += 0.3 * _ROW
    note = (
        "A worker that dies is started again, and reads the trial's checkpoint. While MLflow is "
        "away, the journals keep what it lacks."
    )
    drawing.text(24, bottom + 36, note, anchor="start", colour="#555")
    return drawing.svg()


def _draw_head(drawing: Drawing, x: float, lines: tuple[str, str, str], bottom: float) -> None:
    name, kind, path = lines
    drawing.line([(x, 150), (x, bottom)], head=False, dashed=True, colour="#9ab")
    drawing.box(x - 74, 82, 148, 68, fill="#fdf6e3" if name.endswith("folder") else "white")
    drawing.text(x, 102, name, size=13, bold=True)
    drawing.text(x, 120, kind, size=9.5)
    drawing.text(x, 138, path, size=9.5, colour="#8a5a00")


def _draw_message(drawing: Drawing, message: _Message, at: Mapping[str, float], y: float) -> None:
    start, end = at[message.source], at[message.target]
    if message.source == message.target:
        drawing.line(
            [(start, y - 8), (start + 24, y - 8), (start + 24, y + 6), (start + 2, y + 6)]
        )
        drawing.text(start + 30, y + 4, message.text, size=11, anchor="start", halo=True)
        return
    towards = 3 if end > start else -3
    drawing.line([(start + towards, y), (end - towards, y)], dashed=message.reply)
    middle = (start + end) / 2 if abs(end - start) < 2 * _SPACING else start + 0.9 * _SPACING
    drawing.text(middle, y - 5, message.text, size=10.5, halo=True)
