"""Power is lost at any moment of a run: what was recorded before is there, and nothing is half
written. On a recorded trace of the run's system calls, of which all that was not synced is dropped
(`support.power_loss`)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from support.durable_run import EPOCHS
from support.power_loss import CALLS, Disk, replay

from gen_models.core.checksums import check_checksums
from pipelines.config.serialization import load_config
from pipelines.store.checkpoints import checkpoint_folder, saved_epochs
from pipelines.store.layout import RunFolder
from pipelines.training.restoring import newest_whole

ROOT = Path(__file__).parents[2]


def record(tmp_path: Path, mode: str) -> tuple[Path, Path]:
    """Record the calls of a run; return the trace and the run's folder."""
    if not shutil.which("strace"):
        pytest.skip("wants strace")
    trace, root, scratch = (tmp_path / name for name in ("trace", "search", "scratch"))
    root.mkdir()
    scratch.mkdir()
    strace = ["strace", "-f", "-y", "-xx", "-s", "10000000", "-o", str(trace), "-e", CALLS]
    run = [sys.executable, "-m", "support.durable_run", str(root), str(scratch), mode]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    result = subprocess.run(
        [*strace, *run],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if "ptrace" in result.stderr and result.returncode:
        pytest.skip(f"strace may not trace here: {result.stderr}")
    assert result.returncode == 0, result.stderr
    return trace, root


def problems_after(folder: Path, reached: set[str]) -> list[str]:
    """Return what is wrong with a trial's folder. `reached`: what the run had said was done."""
    run, problems = RunFolder(folder), []
    last = max((int(each.split()[1]) for each in reached if each.startswith("epoch")), default=0)
    if "opened" in reached:
        load_config(run.config.read_bytes(), "config.json")
        assert run.journal.info()
    if "closed" in reached:
        outcome = run.journal.outcome()
        assert outcome and outcome.last_epoch == EPOCHS
    if run.journal.whole_until() < last:
        problems.append(f"epoch {last} was recorded, and {run.journal.whole_until()} are left")
    epochs = [each.epoch for each in run.journal.records()]  # raises at one that is half written
    for epoch in saved_epochs(folder):  # none is half written, and none half removed
        check_checksums(checkpoint_folder(folder, epoch))
    restored = newest_whole(folder, lambda epoch, path: (check_checksums(path), epoch)[1]) or 0
    if restored < last or restored not in (*epochs, 0):
        problems.append(f"epoch {last} was saved, and {restored} is left")
    return problems


def lose_power(trace: Path, root: Path, into: Path) -> tuple[int, list[str]]:
    """Lose power after each call of a run, in four ways; return how often, and what was wrong."""
    disk, reached, tried, found = Disk(root), set[str](), 0, []
    draw = Random(0)
    started = False
    for text in replay(trace, disk):
        if text:
            reached.add(text)
            started = True
        if not started:
            continue
        for names, contents in ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5)):
            disk.write_after_loss(into, draw, names=names, contents=contents)
            tried += 1
            try:
                problems = problems_after(into / "trials" / "a", reached)
            except Exception as error:
                problems = [f"{type(error).__name__}: {error}"]
            found += [f"after call {tried // 4}, {sorted(reached)}: {each}" for each in problems]
    assert "closed" in reached
    return tried, found


def test_a_power_loss_at_any_call_loses_nothing_that_was_recorded(tmp_path: Path) -> None:
    trace, root = record(tmp_path, "synced")
    tried, found = lose_power(trace, root, tmp_path / "after")
    assert not found, found[:5]
    assert tried > 400
    print(f"{tried} power losses")


def test_without_syncing_a_power_loss_loses_what_was_recorded(tmp_path: Path) -> None:
    """The test above notices it."""
    trace, root = record(tmp_path, "not-synced")
    _, found = lose_power(trace, root, tmp_path / "after")
    assert any("JSON" in each or "damaged" in each for each in found)  # empty files
    assert any("No such file" in each for each in found)
