"""Marks of what a worker's process was training when it died."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.pipeline import ROOT

from pipelines.tuning.fused.marks import WorkerMarks, deaths, trials_when_died

WORKER = """
import sys, time
from pipelines.tuning.fused.marks import WorkerMarks
marks = WorkerMarks(sys.argv[1])
print(marks.process, flush=True)
with marks.training(["a"]):
    pass
with marks.training(["b", "c"]):
    print("training", flush=True)
    time.sleep(60)
"""


def test_a_process_that_is_killed_leaves_the_trials_that_it_trained(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert worker.stdout
    process = worker.stdout.readline().strip()
    assert worker.stdout.readline() == "training\n"
    os.kill(worker.pid, signal.SIGKILL)
    worker.communicate()
    assert deaths(tmp_path) == []  # nobody has noticed it yet
    for _ in range(2):  # each of its trials asks
        assert trials_when_died(tmp_path, process) == ["b", "c"]
    assert deaths(tmp_path) == [["b", "c"]]


def test_a_process_that_was_idle_died_of_no_trial(tmp_path: Path) -> None:
    marks = WorkerMarks(tmp_path)
    with marks.training(["a"]):
        pass
    with pytest.raises(MemoryError), marks.training(["a"]):
        raise MemoryError  # the trial is answered with the error, and the process lives
    assert trials_when_died(tmp_path, marks.process) == []
    assert trials_when_died(tmp_path, "unknown") == []
    assert deaths(tmp_path) == []


def test_processes_have_marks_of_their_own(tmp_path: Path) -> None:
    first, second = WorkerMarks(tmp_path), WorkerMarks(tmp_path)
    with first.training(["a"]), second.training(["b"]):
        assert trials_when_died(tmp_path, first.process) == ["a"]
        assert trials_when_died(tmp_path, second.process) == ["b"]
    assert sorted(deaths(tmp_path)) == [["a"], ["b"]]
