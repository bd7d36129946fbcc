"""The cache of journals: each file is read once, and what may change is read again."""

from pathlib import Path

import pytest
from support.files import CountingFiles, MemoryFiles
from support.journals import open_journal, read_run, write_checkpoint, write_epochs, write_run

from pipelines.store.files import LOCAL
from pipelines.store.journal import Outcome
from pipelines.store.layout import RunFolder, SearchFolder, Store
from pipelines.store.scan import JournalCache


@pytest.fixture(params=["disk", "memory"])
def files(request: pytest.FixtureRequest) -> CountingFiles:
    return CountingFiles(LOCAL if request.param == "disk" else MemoryFiles())


def test_a_file_is_read_once(files: CountingFiles, tmp_path: Path) -> None:
    cache, folder = JournalCache(), RunFolder(tmp_path, files)
    journal = open_journal(tmp_path, files)
    write_epochs(journal, 1, 2)
    for _ in range(3):
        record = cache.read(folder)
        assert list(record.epochs) == [1, 2] and record.last_epoch == 2
    assert record.info == folder.journal.info() and record.outcome is None
    write_epochs(journal, 3)
    write_checkpoint(tmp_path, 3, files)
    record = cache.read(folder)
    assert list(record.epochs) == [1, 2, 3] and record.saved == (3,)
    for epoch in (1, 2, 3):
        assert files.reads[f"00000{epoch}.json"] == 1
    assert files.reads["identity.json"] == 2  # by the cache once, and by this test


def test_nothing_is_read_of_a_run_that_has_ended(files: CountingFiles, tmp_path: Path) -> None:
    cache, folder = JournalCache(), write_run(tmp_path, [-3.0, -2.0], files=files)
    first = cache.read(folder)
    assert first.outcome == Outcome("completed", 2) and first.saved == (1, 2)
    files.reads.clear()
    assert all(cache.read(folder) is first for _ in range(5))
    assert not files.reads


def test_a_run_that_goes_on_is_read_again_after_invalidate(
    files: CountingFiles, tmp_path: Path
) -> None:
    cache, folder = JournalCache(), write_run(tmp_path, [-3.0], files=files)
    assert cache.read(folder).outcome
    journal = open_journal(tmp_path, files)
    write_epochs(journal, 2)
    files.remove(tmp_path / "checkpoint_000001")
    cache.invalidate(folder)
    files.reads.clear()
    record = cache.read(folder)
    assert record.outcome is None and list(record.epochs) == [1, 2] and record.saved == ()
    assert files.reads == {"000002.json": 1}
    journal.close(Outcome("stopped_early", 1))
    assert [each.epoch for each in cache.read(folder).counted()] == [1]
    cache.invalidate(RunFolder(tmp_path / "unknown"))


def test_a_run_that_never_started_has_an_empty_record(tmp_path: Path) -> None:
    record = JournalCache().read(RunFolder(tmp_path))
    assert (record.info, record.outcome, record.saved) == (None, None, ())
    assert record.last_epoch == 0 and record.counted() == []


def test_epochs_count_up_to_the_outcome_s_last(tmp_path: Path) -> None:
    folder = write_run(tmp_path, [-3.0, -2.0, -1.0], last_epoch=2)
    record = JournalCache().read(folder)
    assert record.last_epoch == 3 and [each.epoch for each in record.counted()] == [1, 2]


def test_the_trials_of_a_search_are_read_by_name(files: CountingFiles, tmp_path: Path) -> None:
    search = Store(tmp_path, files).search("vae-1")
    for name in ("b", "a"):
        write_run(search.path / "trials" / name, [-1.0], files=files)
    files.write(search.path / "trials/empty/config.json", "{}")
    cache = JournalCache()
    assert [record.folder.name for record in cache.read_trials(search)] == ["a", "b"]
    write_run(search.path / "trials/c", [-1.0], files=files)
    files.reads.clear()
    assert [record.folder.name for record in cache.read_trials(search)] == ["a", "b", "c"]
    assert files.reads == {"identity.json": 1, "000001.json": 1, "outcome.json": 1}
    assert SearchFolder(tmp_path / "none", files).trials() == []


def test_a_damaged_run_says_what_is_damaged_until_it_is_mended(
    files: CountingFiles, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache, folder = JournalCache(), write_run(tmp_path / "a", [-4.0, -3.0, -2.0], files=files)
    journal = folder.journal
    content = files.read(journal.record_file(2))
    files.write(journal.record_file(2), "")
    files.write(journal.folder / "identity.json", "x")
    for _ in range(2):
        record = cache.read(folder)
        assert record.damage.keys() == {"000002.json", "identity.json"}
        assert record.info is None and list(record.epochs) == [1, 3] and record.has_ended
    (warning,) = caplog.messages  # once
    assert warning.startswith("a is set aside: ") and "identity.json: damaged" in warning
    files.write(journal.record_file(2), content)
    assert cache.read(folder).damage.keys() == {"identity.json"}
    assert list(cache.read(folder).epochs) == [1, 2, 3]


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_an_epoch_that_is_missing_is_noticed(
    epoch: int, files: CountingFiles, tmp_path: Path
) -> None:
    folder = write_run(tmp_path / "a", [-4.0, -3.0, -2.0], files=files)
    files.remove(folder.journal.record_file(epoch))
    record = JournalCache().read(folder)
    assert list(record.damage) == [f"00000{epoch}.json"]
    assert "missing" in record.damage[f"00000{epoch}.json"]


def test_a_damaged_outcome_is_an_end(files: CountingFiles, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", [-4.0], files=files)
    files.write(folder.journal.outcome_file, "{}")
    record = JournalCache().read(folder)
    assert record.has_ended and record.outcome is None and list(record.damage) == ["outcome.json"]


def test_a_damaged_outcome_s_last_epoch_may_be_any_number(tmp_path: Path) -> None:
    record = read_run(write_run(tmp_path / "a", [1.0, 2.0], last_epoch=10**15))
    assert len(record.damage) == 20 and "000003.json" in record.damage
