"""The journal of a run and of an evaluation, on a file system and in memory."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.files import MemoryFiles
from support.journals import METRIC, PNG, open_journal, run_info, write_epochs

from gen_models.core.errors import DamagedError
from pipelines.store.files import Files, LocalFiles
from pipelines.store.journal import EVALUATED, EvaluationJournal, Journal, Outcome


@pytest.fixture(params=[LocalFiles, MemoryFiles])
def files(request: pytest.FixtureRequest) -> Files:
    storage: Files = request.param()
    return storage


def test_what_is_recorded_is_read_back(files: Files, tmp_path: Path) -> None:
    folder = tmp_path / "runs/a"
    journal = Journal(folder, files)
    assert journal.info() is None and journal.outcome() is None and journal.last() is None
    assert journal.epochs() == [] and journal.delivered() == {}

    info = run_info("a", tags={"seed": "3"}, search_id="s", parent="../..")
    assert journal.open(info) == info
    write_epochs(journal, 1)
    write_epochs(journal, 2, pictures=True, extra=0.5)
    outcome = Outcome("stopped_early", 2, {"best/val/elbo": -1.0}, {"best_epoch": "1"})
    journal.close(outcome)
    journal.mark_delivered({"run_id": "x"})

    again = Journal(folder, files)
    assert again.info() == info and again.outcome() == outcome
    assert again.epochs() == [1, 2]
    first, second = again.records()
    assert (first.epoch, first.metrics, first.pictures) == (1, {"train/loss": 1, METRIC: -1}, {})
    assert second.metrics["extra"] == 0.5
    assert files.read(second.pictures["samples"]) == PNG
    assert again.last() == second and again.record(2) == second
    assert again.delivered() == {"run_id": "x", "key": info.key}
    assert again.started_ms() > 1_600_000_000_000


def test_records_are_those_after_and_up_to_an_epoch(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    write_epochs(journal, 10, 2, 1, *range(3, 10))
    assert [record.epoch for record in journal.records()] == list(range(1, 11))
    assert [record.epoch for record in journal.records(after=8)] == [9, 10]
    assert [record.epoch for record in journal.records(after=1, upto=3)] == [2, 3]
    with pytest.raises(FileNotFoundError):
        journal.record(11)


DAMAGE: dict[str, str] = {
    "empty": "",
    "cut short": '{"epoch": 2, "metr',
    "garbled": "\x00\x93\x17",
    "no object": "[1, 2]",
    "another object": '{"x": 1}',
    "text for numbers": '{"epoch": 2, "metrics": {"val/elbo": "x"}, "pictures": []}',
    "a picture elsewhere": '{"epoch": 2, "metrics": {}, "pictures": ["../../../x"]}',
    "deeply nested": "[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_record_is_named_and_ends_what_is_whole(
    damage: str, files: Files, tmp_path: Path
) -> None:
    journal = open_journal(tmp_path, files)
    write_epochs(journal, 1, 2, 3)
    files.write(journal.record_file(2), DAMAGE[damage])
    with pytest.raises(DamagedError, match=r"000002.json: damaged"):
        list(journal.records())
    with pytest.raises(DamagedError, match=r"000002.json: damaged"):
        journal.record(2)
    assert [record.epoch for record in journal.records(after=2)] == [3]
    assert [record.epoch for record in journal.whole_records()] == [1]
    assert journal.whole_until() == 1
    last = journal.last()
    assert last and last.epoch == 3


def test_a_record_that_is_missing_before_another_is_noticed(files: Files, tmp_path: Path) -> None:
    journal = open_journal(tmp_path, files)
    write_epochs(journal, 1, 2, 4)
    with pytest.raises(DamagedError, match=r"000003.json: missing, though later epochs"):
        list(journal.records())
    assert journal.whole_until() == 2


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", ["identity.json", "outcome.json"])
def test_a_damaged_info_or_outcome_is_named(
    file: str, damage: str, files: Files, tmp_path: Path
) -> None:
    journal = open_journal(tmp_path, files)
    journal.close(Outcome("completed", 0))
    read = {"identity.json": journal.info, "outcome.json": journal.outcome}[file]
    assert read()
    files.write(journal.folder / file, DAMAGE[damage])
    with pytest.raises(DamagedError, match=f"{file}: damaged"):
        read()


def test_values_of_other_types_are_damage(files: Files, tmp_path: Path) -> None:
    journal = open_journal(tmp_path, files)
    known = json.loads(files.read(journal.folder / "identity.json"))
    for field, value in (("name", 3), ("params", "x"), ("kind", "picnic"), ("tags", [])):
        files.write(journal.folder / "identity.json", json.dumps({**known, field: value}))
        with pytest.raises(DamagedError, match=f"damaged: {field} = "):
            journal.info()


def test_a_run_whose_info_is_damaged_keeps_its_key(files: Files, tmp_path: Path) -> None:
    journal = open_journal(tmp_path, files)
    info = journal.info()
    assert info
    journal.mark_delivered({"uri": "x", "run_id": "y"})
    files.write(journal.folder / "identity.json", "")
    assert journal.open(replace(info, key="another")) == info
    assert journal.info() == info


def test_what_was_delivered_is_nothing_if_the_file_is_damaged(
    files: Files, tmp_path: Path
) -> None:
    journal = open_journal(tmp_path, files)
    journal.mark_delivered({"uri": "x", "run_id": "y"})
    files.write(journal.folder / "delivered.json", "{")
    assert journal.delivered() == {} == journal.delivered("x")
    journal.mark_delivered({"uri": "x", "run_id": "y"})
    assert journal.delivered("x")["run_id"] == "y"


def test_a_reopened_run_keeps_its_info_and_loses_its_outcome(files: Files, tmp_path: Path) -> None:
    journal = open_journal(tmp_path, files)
    info = journal.info()
    assert info
    write_epochs(journal, 1)
    journal.close(Outcome("interrupted", 1))
    later = replace(info, name="later", key="other")
    assert Journal(tmp_path, files).open(later) == info
    assert journal.info() == info and journal.outcome() is None and journal.epochs() == [1]


def test_each_run_has_a_key_of_its_own() -> None:
    assert run_info("a").key != run_info("a").key


def test_an_epoch_whose_json_is_missing_does_not_count(files: Files, tmp_path: Path) -> None:
    journal = open_journal(tmp_path, files)
    write_epochs(journal, 1, 2, pictures=True)
    files.remove(journal.record_file(2))  # as if killed before it was written
    assert journal.epochs() == [1]
    assert [record.epoch for record in journal.records()] == [1]
    assert (last := journal.last()) and last.epoch == 1


def test_the_json_file_of_an_epoch_is_written_last(tmp_path: Path) -> None:
    class Recording(MemoryFiles):
        def __init__(self) -> None:
            super().__init__()
            self.written: list[str] = []

        def write(self, path: Path, content: bytes | str) -> None:
            super().write(path, content)
            self.written.append(path.name)

    files = Recording()
    write_epochs(Journal(tmp_path, files), 1, pictures=True)
    assert files.written == ["000001.samples.png", "000001.json"]


def test_an_epoch_that_is_trained_again_takes_the_place_of_its_record(
    files: Files, tmp_path: Path
) -> None:
    journal = open_journal(tmp_path, files)
    write_epochs(journal, 1, pictures=True)
    write_epochs(journal, 1, extra=2.0)
    (record,) = journal.records()
    assert record.metrics["extra"] == 2.0 and record.pictures == {}


def test_names_and_content_of_the_files(tmp_path: Path) -> None:
    """They are the format that other versions read."""
    journal = open_journal(tmp_path)
    write_epochs(journal, 5, pictures=True)
    journal.close(Outcome("completed", 5))
    found = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert found == [
        "journal/identity.json",
        "journal/outcome.json",
        "journal/reports/000005.json",
        "journal/reports/000005.samples.png",
    ]
    assert json.loads((tmp_path / "journal/reports/000005.json").read_text()) == {
        "epoch": 5,
        "metrics": {"train/loss": 0.2, "val/elbo": -5.0},
        "pictures": ["samples"],
    }
    assert json.loads((tmp_path / "journal/outcome.json").read_text()) == {
        "ending": "completed",
        "last_epoch": 5,
        "summary": {},
        "tags": {},
        "artifacts": {},
        "checkpoint": "",
        "register": "",
        "champion": {},
    }


# -- evaluations ---------------------------------------------------------------------------------
def test_an_evaluation_is_read_back_and_one_of_other_weights_takes_its_place(
    files: Files, tmp_path: Path
) -> None:
    journal = EvaluationJournal(tmp_path / "x", files)
    assert journal.record() is None and not journal.is_delivered("here")
    journal.write("run", {"test/fd": 1.0}, {"test_digest": "d"}, {"samples": PNG})
    record = EvaluationJournal(tmp_path / "x", files).record()
    assert record and (record.run_id, record.metrics) == ("run", {"test/fd": 1.0})
    assert record.tags == {"test_digest": "d"}
    assert files.read(record.pictures["samples"]) == PNG
    journal.write("run", {"test/kd": 2.0, "test/fd": 1.5}, {"collapsed": "no"}, {})
    record = journal.record()
    assert record and record.metrics == {"test/fd": 1.5, "test/kd": 2.0}
    assert record.tags == {"test_digest": "d", "collapsed": "no"}
    assert record.pictures.keys() == {"samples"}
    journal.write("run", {"test/fd": 2.0}, {EVALUATED: "other"}, {})
    record = journal.record()
    assert record and record.metrics == {"test/fd": 2.0} and record.pictures == {}
    files.write(journal.record_file, "{")
    journal.write("run", {"test/fd": 3.0}, {}, {})  # a damaged record is replaced
    record = journal.record()
    assert record and record.metrics == {"test/fd": 3.0}


def test_an_evaluation_is_delivered_to_one_place_until_it_is_made_again(
    files: Files, tmp_path: Path
) -> None:
    journal = EvaluationJournal(tmp_path, files)
    journal.write("run", {"test/fd": 1.0}, {}, {})
    assert not journal.is_delivered("here")
    journal.mark_delivered("here")
    assert journal.is_delivered("here") and not journal.is_delivered("there")
    journal.write("run", {"test/fd": 1.0}, {}, {})  # the same numbers, and yet another evaluation
    assert not journal.is_delivered("here")
