"""A search while it runs: what it records of Tune's events, its champion and its end."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.hooks import hook
from support.search import METRIC, RecordingTracker, finish_tune, make_search, run_trial

from pipelines.config.objectives import Objective
from pipelines.config.search import Search
from pipelines.config.serialization import load_config
from pipelines.report.console import show_search
from pipelines.report.notices import notices_of
from pipelines.store.checkpoints import damaged_epochs, saved_epochs
from pipelines.store.journal import Outcome
from pipelines.store.secrets import hide_notice_url
from pipelines.store.stop_request import ask_to_stop, withdraw_request
from pipelines.tuning.recorder import Closed, TrialEnded, TrialStarted
from pipelines.tuning.result import search_result
from pipelines.tuning.search import run_search
from pipelines.tuning.search_run import SearchRun


def outcome(search: SearchRun, trial_id: str) -> Outcome:
    found = search.folder.trial(trial_id).journal.outcome()
    assert found
    return found


def synced(search: SearchRun) -> list[tuple[str, int | None]]:
    assert isinstance(search.tracker, RecordingTracker)
    return search.tracker.synced


# -- trials -----------------------------------------------------------------------------------
def test_a_search_that_starts_is_recorded_with_its_config(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    config = load_config(search.folder.config.read_bytes(), "config.json")
    assert isinstance(config, Search)
    assert replace(config, store=search.run.store) == search.run  # which is not recorded
    info = search.folder.journal.info()
    assert info and info.kind == "search" and info.search_id == "search-1"
    assert info.params["searched"] == "model.latent_dim model.kl_weight optim.lr"
    assert synced(search) == [("search-1", None)]
    assert search.status == "interrupted"


def test_a_trial_is_recorded_from_its_start_to_its_end(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    run_trial(search, "t1", [5.0, 3.0, 4.0, 3.5], {"optim": {"lr": 0.25}})
    info = search.folder.trial("t1").journal.info()
    assert info and (info.kind, info.trial_id, info.parent) == ("trial", "t1", "../..")
    assert info.params["optim.lr"] == 0.25
    config = load_config(search.folder.trial("t1").config.read_bytes(), "config.json")
    assert config.optim.lr == 0.25 and not isinstance(config, Search)
    found = outcome(search, "t1")
    assert (found.ending, found.last_epoch) == ("completed", 4)
    assert found.summary[f"best/{METRIC}"] == 3.0 and found.tags["best_epoch"] == "2"
    assert synced(search)[1:] == [
        *[("t1", None), ("t1", 1), ("t1", 2), ("t1", 3), ("t1", 4), ("t1", None)],
        ("search-1", None),
    ]


@pytest.mark.parametrize(
    ("num", "values", "kept"),
    [
        (1, [5.0, 3.0, 4.0, 3.5], [2, 4]),
        (2, [5.0, 3.0, 4.0, 3.5], [2, 4]),
        (2, [2.0, 3.0, 4.0, 9.0], [1, 2, 4]),
        (9, [2.0, 3.0, 4.0, 9.0], [1, 2, 3, 4]),
        (1, [9.0, 8.0, 7.0], [3]),
    ],
)
def test_an_ended_trial_keeps_its_best_checkpoints_and_the_newest(
    num: int, values: list[float], kept: list[int], tmp_path: Path
) -> None:
    search = make_search(tmp_path, keep_checkpoints=num)
    run_trial(search, "t1", values)
    assert saved_epochs(search.folder.trial("t1").path) == kept


def test_epochs_after_a_stopped_trial_s_last_report_do_not_count(tmp_path: Path) -> None:
    """A worker may train on before it learns that its trial was stopped."""
    search = make_search(tmp_path)
    run_trial(search, "t1", [5.0, 4.0, 1.0], end=False)
    search.handle(TrialEnded("t1", reported_epoch=2, recorded_epoch=3, diverged=False))
    found = outcome(search, "t1")
    assert (found.ending, found.last_epoch) == ("stopped_early", 2)
    assert found.summary[f"best/{METRIC}"] == 4.0
    assert saved_epochs(search.folder.trial("t1").path) == [2]


def test_a_failed_trial_keeps_its_checkpoints_and_its_reason(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    run_trial(search, "t1", [5.0, 1.0, 4.0], error="CUDA out of memory")
    assert outcome(search, "t1").tags["message"] == "CUDA out of memory"
    assert outcome(search, "t1").ending == "failed"
    assert saved_epochs(search.folder.trial("t1").path) == [1, 2, 3]  # it may be taken up again


def test_a_trial_that_tune_lost_is_superseded_and_not_ranked(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    run_trial(search, "t1", [5.0])
    run_trial(search, "t2", [4.0], end=False)
    resumed = SearchRun(search.context, search.folder, search.tracker, search.searched)
    resumed.start(search.run)
    resumed.tune_ended(["t1"])
    assert outcome(resumed, "t2").ending == "superseded"
    assert [result.trial_id for result in resumed.ranking()] == ["t1"]


def test_a_search_that_is_cut_off_is_resumed_where_it_stood(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    run_trial(search, "t1", [5.0, 2.0, 3.0, 4.0])
    run_trial(search, "t2", [4.0], end=False)
    search.close_open_trials()
    assert outcome(search, "t2").ending == "interrupted"
    assert search.folder.journal.outcome() == Outcome("interrupted", 1)
    resumed = SearchRun(search.context, search.folder, search.tracker, search.searched)
    resumed.start(search.run)
    assert resumed.folder.journal.outcome() is None
    assert resumed.state.best == ("t1", 2.0)
    assert resumed.state.ended == {"t1": "completed", "t2": "interrupted"}
    resumed.handle(TrialStarted("t2", {"optim": {"lr": 0.003}}, 1))
    assert resumed.folder.trial("t2").journal.outcome() is None
    resumed.handle(Closed({"t2": 1}))
    assert outcome(resumed, "t2").ending == "interrupted"


def test_closing_a_search_that_never_started_writes_nothing(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    other = SearchRun(
        search.context, search.context.store.search("other"), search.tracker, search.searched
    )
    other.close_open_trials()
    assert not other.has_started and not other.folder.path.exists()


# -- the end ------------------------------------------------------------------------------------
def complete(root: Path, register: bool = True) -> SearchRun:
    search = make_search(root)
    for name, values in (("t1", [5.0, 3.0]), ("t2", [4.0, 2.0, 2.5]), ("t3", [9.0, 8.0])):
        run_trial(search, name, values)
    finish_tune(search)
    search.finish(register=register)
    return search


def test_a_search_is_complete_when_every_trial_has_ended(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    run_trial(search, "t1", [5.0])
    run_trial(search, "t2", [4.0])
    finish_tune(search)
    assert search.status == "interrupted"
    search.finish(register=True)
    assert not search.folder.table.exists() and not outcome(search, "t2").checkpoint
    run_trial(search, "t3", [3.0], error="died")
    assert search.status == "completed"


def test_nothing_is_left_for_tune_once_every_trial_has_ended(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    run_trial(search, "t1", [5.0])
    run_trial(search, "t2", [4.0, 3.0, 2.0, 1.0])
    assert not search.is_over
    run_trial(search, "t3", [3.0], error="died")
    assert not search.is_over  # it is tried again
    search.handle(TrialStarted("t3", {"optim": {"lr": 0.25}}, 1))
    search.handle(TrialEnded("t3", reported_epoch=1, recorded_epoch=1, diverged=False))
    assert search.is_over
    search.folder.trial("t3").journal.outcome_file.write_text("{")
    assert not SearchRun(search.context, search.folder, search.tracker, []).is_over


# -- an end before all trials have ended --------------------------------------------------------
def ended_before(root: Path, **settings: object) -> SearchRun:
    """A search of three trials that was asked to stop: one has ended, one was running."""
    search = make_search(root, **settings)
    run_trial(search, "t1", [5.0, 3.0, 4.0, 3.5])
    run_trial(search, "t2", [4.0, 2.0], end=False)
    search.step(0.0, lambda: ["t2"])
    ask_to_stop(search.folder)
    search.step(10.0, lambda: ["t2"])
    assert search.ended_by.startswith("stopped by genpipe stop on ") and not search.may_end
    run_trial(search, "t2", [4.0, 2.0, 2.5], end=False)  # it reports its running epoch
    assert search.may_end
    search.tune_ended(["t1", "t2"])
    search.close_open_trials()
    return search


def test_a_search_that_was_asked_to_stop_is_complete_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search = ended_before(tmp_path)
    assert search.status == "completed" and not search.is_over
    assert (outcome(search, "t2").ending, outcome(search, "t2").last_epoch) == ("interrupted", 3)
    assert outcome(search, "t2").tags["message"] == search.ended_by
    search.finish(register=True)
    whole = search.folder.journal.outcome()
    assert whole and whole.ending == "completed" and whole.tags == {"ended_by": search.ended_by}
    assert whole.summary["hours"] == search.control.usage.hours > 10 / 3600 - 1e-9
    # The epochs of the running trial count: it is the best.
    assert outcome(search, "t2").register == "vae-digits"
    result = search_result(search, {})
    assert result.champion and result.champion.trial_id == "t2" and result.exit_code == 0
    assert result.ended_by == search.ended_by
    show_search(result, "runs")
    assert f"ended before all trials had: {search.ended_by}" in capsys.readouterr().out
    assert "stopped by genpipe stop" in search.folder.report.read_text()


def test_a_search_that_was_stopped_goes_on_when_it_is_resumed(tmp_path: Path) -> None:
    search = ended_before(tmp_path)
    search.finish(register=True)
    withdraw_request(search.folder)  # as the command that resumes it does
    resumed = SearchRun(search.context, search.folder, search.tracker, search.searched)
    resumed.start(search.run)
    assert not resumed.is_over and not resumed.ended_by
    resumed.step(0.0, lambda: [])
    assert not resumed.ended_by and not resumed.may_end
    run_trial(resumed, "t2", [4.0, 2.0, 2.5, 1.0])
    run_trial(resumed, "t3", [9.0])
    finish_tune(resumed)
    resumed.finish(register=True)
    whole = resumed.folder.journal.outcome()
    assert whole and whole.ending == "completed" and whole.tags == {}
    assert outcome(resumed, "t2").ending == "completed"


@pytest.mark.parametrize(
    ("uri", "page"),
    [
        ("http://ada@host:5000/", "http://host:5000/#/experiments/7/runs/r1"),
        ("sqlite:///a.db", ""),
    ],
)
def test_a_notice_says_what_the_search_has_found(uri: str, page: str, tmp_path: Path) -> None:
    search = make_search(tmp_path)
    search.context = replace(search.context, uri=uri)
    delivered = {"uri": uri, "run_id": "r1", "experiment_id": "7"}
    search.folder.journal.mark_delivered(delivered)
    with hook() as server, notices_of(hide_notice_url(server.url)) as search._notices:
        search.notify("failed", "no room")
        run_trial(search, "t1", [5.0, 3.0])
        search.notify("ended")
    first, *_, last = server.received
    assert (first["event"], first["value"], first["trials"]) == ("failed", None, 0)
    assert first["text"] == "search-1: failed; no value yet; 0 of 3 trials ended; no room"
    assert (last["event"], last["value"], last["metric"]) == ("ended", 3.0, METRIC)
    assert last["text"] == f"search-1: ended; {METRIC} 3 (trial t1); 1 of 3 trials ended"
    assert last["url"] == page and "--resume search-1" in last["resume"]
    assert (last["search"], last["family"], last["trials"]) == ("search-1", "vae", 1)


def test_a_search_that_was_stopped_before_it_had_a_value_is_interrupted(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    ask_to_stop(search.folder)
    search.step(0.0, lambda: [])
    assert search.may_end
    search.tune_ended([])
    search.close_open_trials()
    assert search.status == "interrupted" and search_result(search, {}).exit_code == 130


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"max_hours": 0.001}, "--max-hours 0.001 is used up"),
        ({"max_device_hours": 0.001, "fuse": "off"}, "--max-device-hours 0.001 is used up"),
        ({"stop_when_flat": 1}, "--stop-when-flat 1: 1 trials ended without"),
    ],
)
def test_a_budget_that_is_used_up_ends_a_search_and_starts_no_ray_again(
    settings: dict[str, object], reason: str, tmp_path: Path
) -> None:
    search = make_search(tmp_path, **settings)
    search.step(0.0, lambda: [])
    run_trial(search, "t1", [5.0, 3.0], end=False)
    search.step(1.0, lambda: [])
    search.step(2.0, lambda: [])
    assert not search.ended_by
    search.handle(TrialEnded("t1", 2, 2, diverged=False))
    run_trial(search, "t2", [9.0])
    search.step(6.0, lambda: [])
    assert search.ended_by.startswith(reason) and search.may_end
    finish_tune(search)
    search.finish(register=True)
    assert search.status == "completed" and search.is_over
    nowhere = replace(search.run, resume="search-1", address="127.0.0.1:1")
    result = run_search(nowhere)
    assert result.outcome == "completed" and result.ended_by.startswith(reason)
    name = next(iter(settings))
    larger = replace(search.context, run=replace(search.run, **{name: 100}))
    assert not SearchRun(larger, search.folder, search.tracker, search.searched).is_over


def test_resuming_a_search_that_has_ended_starts_no_ray(tmp_path: Path) -> None:
    search = complete(tmp_path)
    nowhere = replace(search.run, resume="search-1", address="127.0.0.1:1")
    result = run_search(nowhere)
    assert result.outcome == "completed" and result.run_id
    assert result.champion and result.champion.trial_id == "t2" and result.champion.run_id
    whole = search.folder.journal.outcome()
    assert whole and whole.ending == "completed"


@pytest.mark.parametrize("register", [True, False])
def test_the_best_trial_becomes_the_champion(register: bool, tmp_path: Path) -> None:
    search = complete(tmp_path, register)
    found = outcome(search, "t2")
    assert found.checkpoint == "checkpoint_000002"  # in its own folder, wherever that is
    assert found.register == ("vae-digits" if register else "")
    claim = {"metric": METRIC, "mode": "min", "value": 2.0} if register else {}
    assert dict(found.champion) == claim
    assert not outcome(search, "t1").checkpoint
    assert search.folder.champion_samples.read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader(search.folder.table.read_text().splitlines()))
    assert [row["trial_id"] for row in rows] == ["t2", "t1", "t3"]
    assert "t2" in search.folder.report.read_text()
    whole = search.folder.journal.outcome()
    assert whole and whole.ending == "completed"
    assert whole.artifacts.keys() == {"search", "samples", "best", "report"}
    assert whole.summary["trials/stopped_early"] == 3.0
    assert whole.summary[f"best/{METRIC}"] == 2.0


def test_the_best_trials_are_shown_by_samples_of_their_best_epochs(tmp_path: Path) -> None:
    search = complete(tmp_path)
    names = sorted(path.name for path in search.folder.best_samples.iterdir())
    ranked = [(result.trial_id, result.best) for result in search.ranking()]
    assert len(ranked) == 3
    for (trial_id, best), name in zip(ranked, names, strict=True):
        assert best and name.endswith(f", epoch {best.epoch}, {best.value:.5g}.png")
        trial = search.folder.trial(trial_id)
        drawn = (search.folder.best_samples / name).read_bytes()
        assert drawn.startswith(b"\x89PNG")
        assert trial.samples_at(best.epoch).read_bytes() == drawn
        assert outcome(search, trial_id).artifacts["samples"] == trial.samples_at(best.epoch).name
    first = search.folder.best_samples / names[0]
    other = search.folder.trial(ranked[0][0]).samples_at(7)  # of a best epoch that it once had
    search.folder.trial(ranked[0][0]).samples_at(ranked[0][1].epoch).rename(other)
    search.finish(register=False)
    assert not other.exists()
    assert first.read_bytes() == search.folder.champion_samples.read_bytes()


def test_a_search_whose_trials_all_failed_has_failed(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    for number in range(3):
        run_trial(search, f"t{number}", [], error="no memory")
    finish_tune(search)
    assert search.status == "failed"
    found = search.folder.journal.outcome()
    assert found and found.ending == "failed" and found.summary["trials/failed"] == 3
    result = search_result(search, {})
    assert (result.outcome, result.champion, result.exit_code) == ("failed", None, 1)
    assert result.failures == {"no memory": 3}


def test_reasons_of_failed_trials_are_grouped(tmp_path: Path) -> None:
    search = make_search(tmp_path, trials=5)
    errors = [f"worker {n}c{n}f died in epoch {n}" for n in range(3)] + ["no memory"]
    for number, error in enumerate(errors):
        run_trial(search, f"t{number}", [], error=error)
    run_trial(search, "t4", [5.0, 4.0])
    finish_tune(search)
    search.finish(register=True)
    result = search_result(search, {})
    assert result.outcome == "completed" and result.exit_code == 1
    first, *others = result.failures.items()
    assert first[0] in errors[:3] and first[1] == 3 and others == [("no memory", 1)]
    assert result.champion and result.champion.trial_id == "t4"


def test_a_search_without_a_value_has_no_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search = make_search(tmp_path)
    for number in range(3):  # as where a trial's records do not reach this process
        run_trial(search, f"t{number}", [])
    finish_tune(search)
    search.finish(register=True)
    result = search_result(search, {})
    assert result.champion is None and result.exit_code == 1
    show_search(result, "runs")
    said = capsys.readouterr().out
    assert f"NO RESULT: no trial has a value of {METRIC}: 3 stopped early" in said


def test_an_error_after_the_trials_leaves_the_search_interrupted(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    for number in range(3):
        run_trial(search, f"t{number}", [5.0, 4.0, 3.0, 2.0])
    assert search.status == "completed"
    search.close_open_trials(ended=False)
    found = search.folder.journal.outcome()
    assert found and found.ending == "interrupted"


def test_a_page_that_cannot_be_written_leaves_the_search_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("pipelines.report.html.write_report", fail)
    search = complete(tmp_path)
    whole = search.folder.journal.outcome()
    assert whole and whole.ending == "completed" and "report" not in whole.artifacts
    assert "the report of search-1 could not be written" in caplog.text


def test_the_result_of_a_search(tmp_path: Path) -> None:
    search = complete(tmp_path)
    result = search_result(search, {})
    assert result.outcome == "completed" and result.exit_code == 0
    assert result.champion and result.champion.trial_id == "t2"
    assert [row.trial_id for row in result.ranking] == ["t2", "t1", "t3"]
    assert [row.value for row in result.ranking] == [2.0, 3.0, 8.0]
    assert result.champion.run_id == "id-of-t2" and result.pareto == ()
    assert json.loads(result.to_json())["champion"]["metrics"][METRIC] == 2.0


def test_a_champion_without_a_model_fails_the_search(tmp_path: Path) -> None:
    search = complete(tmp_path)
    journal = search.folder.trial("t2").journal
    journal.mark_delivered({"uri": "x", "run_id": "1", "model_error": "cannot be exported"})
    result = search_result(search, {})
    assert result.champion and result.champion.model_error == "cannot be exported"
    assert result.outcome == "completed" and result.exit_code == 1
    # A model that nobody asked for fails nothing.
    other = search.folder.trial("t1").journal
    journal.mark_delivered({"uri": "x", "run_id": "1"})
    other.mark_delivered({"uri": "x", "run_id": "2", "model_error": "cannot be exported"})
    assert search_result(search, {}).exit_code == 0


def test_the_trials_of_the_pareto_front_are_marked(tmp_path: Path) -> None:
    further = Objective("val/kl", "max")
    search = make_search(tmp_path, further=((further.metric, further.mode),))
    assert search.run.chosen_scheduler == "fifo"
    for name, value, second in (("t1", 5.0, 9.0), ("t2", 4.0, 8.0), ("t3", 4.5, 7.0)):
        run_trial(search, name, [value], metrics={further.metric: second})
    finish_tune(search)
    search.finish(register=False)
    assert [result.trial_id for result in search.pareto()] == ["t2", "t1"]
    marked = [n for n in ("t1", "t2", "t3") if "pareto_front" in outcome(search, n).tags]
    assert marked == ["t1", "t2"]
    result = search_result(search, {})
    assert [row.trial_id for row in result.pareto] == ["t2", "t1"]
    assert result.objectives == (Objective(METRIC, "min"), further)


# -- damage -------------------------------------------------------------------------------------
FILES: dict[str, str] = {
    "identity": "journal/identity.json",
    "a record": "journal/reports/000001.json",
    "the best epoch's record": "journal/reports/000002.json",
}


@pytest.mark.parametrize("file", FILES)
def test_a_trial_with_a_damaged_file_is_set_aside_and_the_search_completes(
    file: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    search = make_search(tmp_path)
    for trial_id, best in (("t1", 3.0), ("t2", 1.0), ("t3", 2.0)):
        run_trial(search, trial_id, [5.0, best, 4.0, 4.5])
    path = search.folder.trial("t2").path / FILES[file]
    path.write_text("")
    again = resumed(search)
    finish_tune(again)
    again.finish(register=True)
    assert again.status == "completed"
    assert [result.trial_id for result in again.ranking()] == ["t3", "t1"]
    assert outcome(again, "t3").register == "vae-digits"
    whole = again.folder.journal.outcome()
    assert whole and whole.ending == "completed"
    assert whole.summary["trials/damaged"] == 1 and whole.summary["trials/completed"] == 2
    assert any(f"t2 is set aside: {path}" in message for message in caplog.messages)


@pytest.mark.parametrize("epochs", [2, 4])
def test_a_damaged_outcome_is_recorded_anew_on_resume(epochs: int, tmp_path: Path) -> None:
    search = make_search(tmp_path)
    for trial_id in ("t1", "t2", "t3"):
        run_trial(search, trial_id, [5.0, 3.0, 4.0, 4.5][:epochs])
    known = outcome(search, "t2")
    search.folder.trial("t2").journal.outcome_file.write_text("{")
    again = resumed(search)
    assert len(again.ranking()) == 2
    finish_tune(again)
    assert outcome(again, "t2") == known
    assert known.ending == ("completed" if epochs == 4 else "stopped_early")
    assert len(again.ranking()) == 3 and again.status == "completed"


def test_a_champion_whose_checkpoint_is_damaged_is_the_best_that_is_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    search = make_search(tmp_path)
    for trial_id, best in (("t1", 3.0), ("t2", 1.0), ("t3", 2.0)):
        run_trial(search, trial_id, [5.0, best, 4.0, 4.5])
    finish_tune(search)
    trial = search.folder.trial("t2")
    weights = trial.path / "checkpoint_000002" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    search.finish(register=True)
    assert [result.trial_id for result in search.ranking()] == ["t3", "t1", "t2"]
    assert outcome(search, "t3").checkpoint and not outcome(search, "t2").checkpoint
    assert outcome(search, "t2").tags["best_epoch"] == "4"  # the one that is left
    assert damaged_epochs(trial.path) == [2]
    assert any("damaged" in message and "t2" in message for message in caplog.messages)


def resumed(search: SearchRun) -> SearchRun:
    """Return the search in another process."""
    again = SearchRun(search.context, search.folder, RecordingTracker(), search.searched)
    again.start(search.run)
    return again
