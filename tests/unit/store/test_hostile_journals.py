"""Journals that somebody made to do harm, or that were damaged: each is refused in one message
that names the file, and takes little memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from support import loaders
from support.containment import Reading, read_contained
from support.journals import run_info, write_run

PEAK = 48
"""MiB that reading any of these files may take beyond its own size."""
INFO = asdict(run_info("a"))
OUTCOME = {"ending": "completed", "last_epoch": 1}
EPOCH = {"epoch": 1, "metrics": {"val/elbo": -1.0}, "pictures": []}


def changed(content: dict[str, Any], **changes: Any) -> str:
    return json.dumps(content | changes)


FILES: dict[str, tuple[str, str]] = {
    "empty": ("identity", ""),
    "a list": ("identity", "[]"),
    "cut": ("identity", json.dumps(INFO)[:-9]),
    "nested 100,000 deep": ("identity", '{"name":' * 100_000),
    "64 MiB of spaces": ("identity", " " * (64 << 20)),
    "a million empty lists": ("identity", f'{{"name": [{",".join(["[]"] * 8_000_000)}]}}'),
    "a number of 5,000 digits": ("identity", '{"name": 1' + "0" * 5000 + "}"),
    "an unknown field": ("identity", changed(INFO, **{"a\nb": 1})),
    "a field of another type": ("identity", changed(INFO, params=[1])),
    "a kind that is none": ("identity", changed(INFO, kind="rm")),
    "a name of a megabyte": ("identity", changed(INFO, name=["x\n" * 500_000])),
    "no ending": ("outcome", '{"last_epoch": 1}'),
    "an ending that is none": ("outcome", changed(OUTCOME, ending="well")),
    "half an epoch": ("outcome", changed(OUTCOME, last_epoch=1.5)),
    "metrics that are text": ("reports/000001", changed(EPOCH, metrics={"x": "1"})),
    "metrics that are true": ("reports/000001", changed(EPOCH, metrics={"x": True})),
    "no metrics": ("reports/000001", changed(EPOCH, metrics=None)),
    "a picture elsewhere": ("reports/000001", changed(EPOCH, pictures=["../../../secret"])),
    "a picture at the root": ("reports/000001", changed(EPOCH, pictures=["/etc/passwd"])),
    "pictures that are a number": ("reports/000001", changed(EPOCH, pictures=7)),
    "a context that is a list": ("reports/000001", changed(EPOCH, context=[1])),
    "a context of unknown fields": ("reports/000001", changed(EPOCH, context={"x": 1})),
    "a schedule that is a number": ("reports/000001", changed(EPOCH, context={"schedule": 3})),
}


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


SPECIAL: dict[str, tuple[str, Callable[[Path], None]]] = {
    f"{what} in place of {name}": (name, make)
    for name in ("identity", "outcome", "reports/000001")
    for what, make in (("a pipe", pipe), ("a device", endless), ("a folder", Path.mkdir))
}


@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Reading]]:
    """What became of each journal."""
    above, paths, tasks = tmp_path_factory.mktemp("hostile_journals"), [], []
    for number, (name, what) in enumerate([*FILES.values(), *SPECIAL.values()]):
        folder = write_run(above / f"{number:03}", [1.0]).path
        path = folder / "journal" / f"{name}.json"
        path.unlink()
        if isinstance(what, str):
            path.write_text(what)
        else:
            what(path)
        paths.append(path)
        tasks.append((loaders.journal, (folder,)))
    return dict(zip(CASES, zip(paths, read_contained(tasks), strict=True), strict=True))


CASES = [*FILES, *SPECIAL]


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_journal_is_refused(
    case: str, readings: dict[str, tuple[Path, Reading]]
) -> None:
    path, reading = readings[case]
    assert reading.how == "refused", reading
    assert str(path) in reading.message and "\n" not in reading.message
    assert len(reading.message) < 1500, reading.message[:1500]
    size = path.stat().st_size if path.is_file() else 0
    assert reading.peak < PEAK + size / (1 << 20), reading
