"""A run of fused trials in this process, that says in its own trace what is durable by now."""

import os
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from support.power_loss import MARK
from support.training import small_dataset, small_run

from pipelines.config.search import Search
from pipelines.config.serialization import to_dict
from pipelines.store.journal import Outcome
from pipelines.store.layout import SearchFolder
from pipelines.training.payload import TrainingPayload
from pipelines.training.run import open_run
from pipelines.tuning.fused.marks import WorkerMarks
from pipelines.tuning.fused.requests import TrialRequest
from pipelines.tuning.fused.resident import ResidentTrials

EPOCHS = 5


def mark(text: str) -> None:
    os.access(f"{MARK}{text}", os.F_OK)


def main(root: Path, scratch: Path, *, synced: bool) -> None:
    """Train a trial in the search's folder `root`. `synced`: False leaves out every fsync."""
    from support.journals import run_info  # light: after the tracer has seen this file

    if not synced:
        os.fsync = lambda file: None  # type: ignore[assignment]
    run = small_run(Search, trials=1, epochs=EPOCHS, grace_period=1, execution="in_turn")
    dataset = small_dataset(scratch)
    marks = scratch / "workers"
    marks.mkdir()
    mark("start")
    payload = TrainingPayload(to_dict(run), str(root), (None,), False, None)  # type: ignore[arg-type]
    trials = ResidentTrials(payload, dataset, 1, 1, WorkerMarks(marks))
    folder = SearchFolder.at(root).trial("a")
    open_run(folder, run, run_info("a", kind="trial", trial_id="a"))  # type: ignore[arg-type]
    mark("opened")
    for epoch in range(EPOCHS):
        reply = Future[Any]()
        trials.run_epochs({reply: TrialRequest("a", {"optim": {"lr": 0.01}}, epoch or None)})
        reply.result(timeout=0)
        mark(f"epoch {epoch + 1}")
        if epoch == 2:  # the same checkpoint again, which replaces the first
            trials.outputs.save(trials._trials["a"], {}, diverged=False)
            mark("epoch 3")
    folder.journal.close(Outcome("completed", EPOCHS))
    mark("closed")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), synced=sys.argv[3] == "synced")
