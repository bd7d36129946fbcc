"""Names of Tune's state files, of which Tune reads the latest."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from ray.tune.execution.experiment_state import _find_newest_experiment_checkpoint

from pipelines.store.layout import SearchFolder, Store
from pipelines.tuning.tuner import _STATE_FILES, _STATE_TIME, _order_by_clock


def write_states(folder: SearchFolder, *hours: int) -> None:
    """Write Tune's state as sessions did that began so many hours from now."""
    for each in hours:
        time = (datetime.now() + timedelta(hours=each)).strftime(_STATE_TIME)
        for kind in _STATE_FILES:
            folder.files.write(folder.tune / kind.format(time), f"{each}")


def states(folder: SearchFolder) -> dict[str, list[str]]:
    """Return the states of each kind in the order of their names."""
    return {
        kind: [path.read_text() for path in folder.files.list(folder.tune, kind.format("*"))]
        for kind in _STATE_FILES
    }


@pytest.fixture
def folder(tmp_path: Path) -> SearchFolder:
    return Store.at(tmp_path).search("s")


def test_a_session_after_the_clock_was_set_back_is_the_newest(folder: SearchFolder) -> None:
    write_states(folder, -1, 1, 2)
    _order_by_clock(folder)
    assert states(folder) == {kind: ["2"] for kind in _STATE_FILES}
    write_states(folder, 0)  # of the session that goes on from it
    newest = _find_newest_experiment_checkpoint(str(folder.tune))
    assert newest and Path(newest).read_text() == "0"


def test_states_of_the_past_are_left_as_they_are(folder: SearchFolder) -> None:
    write_states(folder, -2, -1)
    _order_by_clock(folder)
    assert states(folder) == {kind: ["-2", "-1"] for kind in _STATE_FILES}


def test_a_kill_between_two_files_loses_none(folder: SearchFolder) -> None:
    """What was renamed is left alone the next time."""
    write_states(folder, 1)
    kind = _STATE_FILES[0]
    (path,) = folder.files.list(folder.tune, kind.format("*"))
    earlier = (datetime.now() - timedelta(seconds=5)).strftime(_STATE_TIME)
    path.rename(folder.tune / kind.format(earlier))
    _order_by_clock(folder)
    assert states(folder) == {kind: ["1"] for kind in _STATE_FILES}
    assert (folder.tune / kind.format(earlier)).exists()
