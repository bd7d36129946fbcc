"""How far runs and searches are, and the request to stop one, from journals and leases."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support.journals import open_journal, write_epochs, write_run
from support.pipeline import ROOT, Capture, last_json

from gen_models.core.errors import InputError
from pipelines.analysis.budgets import budget_left
from pipelines.catalog import status as module
from pipelines.catalog.status import status
from pipelines.catalog.stop import stop
from pipelines.cli.main import main
from pipelines.report.console import show_status, show_stop
from pipelines.report.results import RunProgress
from pipelines.store.journal import Outcome, as_json
from pipelines.store.layout import RunFolder, SearchFolder, Store
from pipelines.store.lease import holding
from pipelines.store.stop_request import find_request
from pipelines.store.usage import Usage, write_usage

METRIC = "val/elbo"
TAGS = {"rerun": "genpipe search vae --trials 10", "metric": METRIC, "mode": "max"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.at(tmp_path / "runs")


def begin(folder: RunFolder, kind: str, **config: Any) -> None:
    """Write the config of a run or a search, and open its journal."""
    content = {"metric": METRIC, "mode": "max", "epochs": 10, **config}
    folder.files.write(folder.config, as_json({"format": 1, "config": content}))
    open_journal(folder.path, kind=kind, tags=TAGS)


def make_search(store: Store, search_id: str = "s", **config: Any) -> SearchFolder:
    """A search of ten trials: two have ended after 4 and 8 epochs, one has failed, one runs."""
    folder = store.search(search_id)
    begin(folder, "search", trials=10, **config)
    for name, epochs, ending, best in (
        ("t1", 4, "stopped_early", -3.0),
        ("t2", 8, "completed", -2.0),
        ("t3", 1, "failed", None),
    ):
        trial = write_run(folder.trial(name).path, [-9.0] * epochs)
        summary = {} if best is None else {f"best/{METRIC}": best}
        trial.journal.close(Outcome(ending, epochs, summary))  # type: ignore[arg-type]
    write_run(folder.trial("t4").path, [-5.0, -1.5, -4.0], status=None)
    return folder


def _set_time(path: Path, seconds: float) -> None:
    os.utime(path, (seconds, seconds))


def only(result: Any) -> RunProgress:
    (found,) = result.runs
    assert isinstance(found, RunProgress)
    return found


def test_what_a_search_that_runs_has_done(store: Store) -> None:
    folder = make_search(store)
    write_usage(folder, Usage(seconds=1800.0, device_seconds=7200.0, devices=4))
    with holding(folder, "resume"):
        found = only(status(store=store.root))
    assert found.running and found.process and found.since and not found.outcome
    assert (found.trials, found.trials_done, found.trials_running, found.trials_left) == (
        *(10, 3, 1, 6),
    )
    assert found.epochs == 4 + 8 + 3 and (found.metric, found.value) == (METRIC, -1.5)
    assert found.best_trial == "t4"
    assert (found.hours, found.device_hours) == (0.5, 2.0)
    assert found.hours_left is None and found.resume == ""


def test_the_rate_and_the_estimate(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_search(store)
    write_usage(folder, Usage(devices=2))
    trials = {name: folder.trial(name).journal for name in ("t1", "t2", "t3", "t4")}
    for number, journal in enumerate(trials.values()):
        for epoch in journal.epochs():
            metrics = {METRIC: -9.0, "epoch_seconds": 3.0}
            journal.write_epoch(epoch, metrics, {})
            _set_time(journal.record_file(epoch), 1000.0 + 100.0 * number + epoch)
        if journal.outcome():
            _set_time(journal.outcome_file, 1000.0 + 100.0 * number + 10)
    monkeypatch.setattr(module.time, "time", lambda: 1400.0)
    monkeypatch.setattr(module, "seems_held", lambda folder: True)
    found = only(status("s", store=store.root))
    # Within 300 s: the 8 epochs of t2 and the 3 of t4; a failed trial is looked at too.
    assert found.epochs_per_minute == pytest.approx(60.0 * 12 / 300)
    assert found.device_share == pytest.approx(12 * 3.0 / (2 * 300))
    rest = 6 * 6 + (6 - 3)  # trials that ended took 6 epochs on average
    assert found.seconds_left == pytest.approx(60.0 * rest / (60.0 * 12 / 300))
    assert found.until and found.assumes == (
        "trials take 6 epochs, as those that have ended, at this rate"
    )


def test_a_budget_ends_a_search_sooner(store: Store) -> None:
    folder = make_search(store, max_hours=1.0, max_device_hours=2.5, stop_when_flat=9)
    usage = Usage(seconds=1800.0, device_seconds=7200.0, devices=4, flat_trials=3)
    write_usage(folder, usage)
    time.sleep(0.01)
    with holding(folder, "resume"):
        found = only(status(store=store.root))
    assert (found.hours_left, found.device_hours_left, found.flat_trials_left) == (0.5, 0.5, 6)
    left = budget_left({"max_hours": 1.0, "max_device_hours": 2.5, "stop_when_flat": 9}, usage)
    trials = module._Trials(done_epochs=[4, 8])
    seconds, assumes = module._estimate(trials, 10, 10, 0.5, 4, left)
    assert (seconds, assumes) == (450.0, "--max-device-hours ends it, with 4 devices")
    left["max_hours"] = 0.1
    assert module._estimate(trials, 10, 10, 0.5, 4, left) == (360.0, "--max-hours ends it")
    assert module._estimate(trials, 10, 10, None, 4, left) == (None, "")


def test_a_run_of_train_is_shown_too(store: Store) -> None:
    folder = store.run("a")
    begin(folder, "run")
    write_epochs(folder.journal, 1, 2)
    with holding(folder, "name"):
        found = only(status(store=store.root))
    assert (found.name, found.trials, found.trials_running, found.epochs) == ("a", 1, 1, 2)
    assert found.value == -1.0


def test_what_does_not_run_is_shown_by_its_name_only(store: Store, capsys: Capture) -> None:
    folder = make_search(store)
    folder.journal.close(Outcome("completed", 0, tags={"ended_by": "--max-hours 1 is used up"}))
    with holding(folder, "resume"):
        pass
    assert status(store=store.root).runs == ()
    found = only(status("s", store=store.root))
    assert not found.running and found.outcome == "completed"
    assert found.ended_by == "--max-hours 1 is used up"
    assert "--resume s" in found.resume
    show_status(status(store=store.root), "runs")
    assert "nothing runs in runs" in capsys.readouterr().out
    show_status(status("s", store=store.root), "runs")
    out = capsys.readouterr().out
    assert "s does not run; go on with it:  genpipe search vae --resume s" in out
    assert "val/elbo -1.5" in out and "3/10 done" in out


def test_damaged_files_hide_no_other_trial(store: Store) -> None:
    folder = make_search(store)
    folder.trial("t1").journal.outcome_file.write_text("{")
    folder.trial("t4").journal.record_file(2).write_text("")
    folder.usage.write_text("{")
    folder.config.write_text("{")
    with holding(folder, "resume"):
        found = only(status(store=store.root))
    assert (found.trials_done, found.trials_running) == (3, 1)


def test_status_takes_no_lease_and_imports_neither_torch_nor_ray_nor_mlflow(store: Store) -> None:
    folder = make_search(store)
    code = (
        "import sys; from pipelines.cli.main import main; "
        f"assert main(['status', 's', '--store', {str(store.root)!r}]) == 0; "
        "print(sorted({'torch', 'ray', 'mlflow'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert not folder.leases.exists()


# -- the commands -------------------------------------------------------------------------------
def test_the_status_as_json_and_again_while_it_runs(
    store: Store, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_search(store)
    with holding(folder, "resume"):
        assert main(["status", "--store", str(store.root), "--json"]) == 0
        assert last_json(capsys.readouterr().out)["runs"][0]["trials_done"] == 3
        waits = []

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 2:
                raise KeyboardInterrupt

        monkeypatch.setattr("pipelines.cli.commands.status.time.sleep", sleep)
        assert main(["status", "--watch", "0.5", "--store", str(store.root), "--json"]) == 130
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert waits == [0.5, 0.5] and [json.loads(line)["runs"][0]["name"] for line in lines] == [
        *("s", "s")
    ]


def test_a_search_that_runs_is_asked_to_stop(store: Store, capsys: Capture) -> None:
    folder = make_search(store)
    with holding(folder, "resume"):
        assert main(["stop", "s", "--store", str(store.root), "--json"]) == 0
        request = find_request(folder)
        found = only(status(store=store.root))
    result = last_json(capsys.readouterr().out)
    assert request and result["asked"] == request.describe() == found.ended_by
    assert (result["outcome"], result["ended_by"]) == ("", "")
    assert "--resume s" in result["resume"]


def test_stop_waits_for_the_end(store: Store, capsys: Capture) -> None:
    folder, began = make_search(store), threading.Event()

    def run() -> None:
        with holding(folder, "resume"):
            began.set()
            while not (request := find_request(folder)):
                time.sleep(0.01)
            folder.journal.close(Outcome("completed", 0, tags={"ended_by": request.describe()}))

    thread = threading.Thread(target=run)
    thread.start()
    began.wait()
    result = stop("s", store=store.root, wait=True)
    thread.join()
    assert result.outcome == "completed" and result.ended_by == result.asked
    show_stop(result)
    assert f"s: completed; {result.ended_by}" in capsys.readouterr().out


def test_stopping_what_does_not_run_says_so(store: Store) -> None:
    make_search(store)
    run = store.run("a")
    begin(run, "run")
    run.journal.close(Outcome("completed", 3))
    with pytest.raises(InputError, match="expected one that is running: no process works") as err:
        stop("s", store=store.root)
    assert "it is interrupted; `genpipe search vae --resume s --store" in str(err.value)
    with pytest.raises(InputError, match="it is completed"):
        stop("a", store=store.root)
    with holding(run, "name"), pytest.raises(InputError, match="did you mean 'a'"):
        stop("aa", store=store.root)
