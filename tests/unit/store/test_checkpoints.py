"""THE rule of which checkpoints a run keeps: the N best, and the newest."""

from pathlib import Path

import pytest
from support.files import MemoryFiles
from support.journals import write_checkpoint

from pipelines.store.checkpoints import (
    checkpoint_folder,
    damaged_epochs,
    epochs_to_keep,
    prune_checkpoints,
    saved_epochs,
    set_aside_damaged,
)
from pipelines.store.files import LOCAL, Files

COSTS = {1: 3.0, 2: 1.0, 3: 2.0, 4: 5.0}
SAVED = [1, 2, 3, 4]

CASES: dict[str, tuple[list[int], dict[int, float], int, set[int]]] = {
    "the best and the newest": (SAVED, COSTS, 1, {2, 4}),
    "two best and the newest": (SAVED, COSTS, 2, {2, 3, 4}),
    "the newest is among the best": ([1, 2, 3], COSTS, 2, {2, 3}),
    "the newest is the best": ([1, 2], COSTS, 1, {2}),
    "more than there are": (SAVED, COSTS, 9, {1, 2, 3, 4}),
    "of equal ones the earlier": ([1, 2, 3, 4], {1: 1.0, 2: 0.0, 3: 0.0, 4: 1.0}, 1, {2, 4}),
    "ties at the edge of N": ([1, 2, 3, 4], {1: 1.0, 2: 0.0, 3: 1.0, 4: 1.0}, 2, {1, 2, 4}),
    "all equal": ([1, 2, 3], {1: 0.0, 2: 0.0, 3: 0.0}, 1, {1, 3}),
    "an epoch without a cost": ([1, 2, 3], {1: 2.0, 3: 1.0}, 2, {1, 3}),
    "the newest without a cost": ([1, 2, 3], {1: 1.0, 2: 2.0}, 1, {1, 3}),
    "no cost at all": ([1, 2, 3], {}, 2, {3}),
    "a cost whose checkpoint is gone": ([1, 3], COSTS, 1, {3}),
    "its checkpoint is gone, and the next best counts": ([1, 3, 4], COSTS, 1, {3, 4}),
    "in any order": ([4, 1, 3, 2], COSTS, 1, {2, 4}),
    "one": ([7], {}, 1, {7}),
    "none": ([], COSTS, 3, set()),
}


@pytest.mark.parametrize("case", CASES)
def test_the_n_best_and_the_newest_are_kept(case: str) -> None:
    saved, costs, num, expected = CASES[case]
    assert epochs_to_keep(saved, costs, num) == expected


def test_a_run_that_goes_on_keeps_the_newest_but_one() -> None:
    assert epochs_to_keep(SAVED, COSTS, 1, newest=2) == {2, 3, 4}
    assert epochs_to_keep([1], COSTS, 1, newest=2) == {1}
    assert epochs_to_keep([], COSTS, 1, newest=2) == set()


@pytest.fixture(params=["disk", "memory"])
def files(request: pytest.FixtureRequest) -> Files:
    return LOCAL if request.param == "disk" else MemoryFiles()


def write_checkpoints(folder: Path, files: Files, *epochs: int) -> None:
    for epoch in epochs:
        write_checkpoint(folder, epoch, files)
        files.write(checkpoint_folder(folder, epoch) / "networks.safetensors", "x")


@pytest.mark.parametrize("case", CASES)
def test_the_others_are_removed(case: str, files: Files, tmp_path: Path) -> None:
    saved, costs, num, expected = CASES[case]
    write_checkpoints(tmp_path, files, *saved)
    prune_checkpoints(tmp_path, costs, num, files=files)
    assert saved_epochs(tmp_path, files) == sorted(expected)
    folders = {path.name for path in files.list(tmp_path, "checkpoint_*")}
    assert folders == {f"checkpoint_{epoch:06d}" for epoch in expected}
    prune_checkpoints(tmp_path, costs, num, files=files)
    assert saved_epochs(tmp_path, files) == sorted(expected)


def test_a_damaged_checkpoint_is_set_aside_and_not_removed(files: Files, tmp_path: Path) -> None:
    write_checkpoints(tmp_path, files, *SAVED)
    for _ in range(2):  # the second time there is another one of that epoch
        set_aside_damaged(tmp_path, 4, files)
        assert saved_epochs(tmp_path, files) == [1, 2, 3]
        assert damaged_epochs(tmp_path, files) == [4]
        assert files.read(tmp_path / "damaged_checkpoint_000004/networks.safetensors") == b"x"
        write_checkpoints(tmp_path, files, 4)
    prune_checkpoints(tmp_path, COSTS, 1, files=files)
    assert damaged_epochs(tmp_path, files) == [4]


@pytest.mark.parametrize(
    ("last_epoch", "expected"), [(2, [2]), (3, [2, 3]), (1, [1]), (9, [2, 4]), (0, [])]
)
def test_checkpoints_beyond_the_last_epoch_are_removed(
    last_epoch: int, expected: list[int], files: Files, tmp_path: Path
) -> None:
    write_checkpoints(tmp_path, files, *SAVED)
    prune_checkpoints(tmp_path, COSTS, 1, last_epoch=last_epoch, files=files)
    assert saved_epochs(tmp_path, files) == expected


def test_the_best_beyond_the_last_epoch_takes_no_place(files: Files, tmp_path: Path) -> None:
    write_checkpoints(tmp_path, files, *SAVED)
    prune_checkpoints(tmp_path, COSTS | {4: 0.0}, 2, last_epoch=3, files=files)
    assert saved_epochs(tmp_path, files) == [2, 3]


def test_a_folder_without_a_model_is_no_checkpoint(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1)
    (tmp_path / "checkpoint_000002").mkdir()
    (tmp_path / ".checkpoint_000003.partial").mkdir()
    (tmp_path / ".checkpoint_000003.partial/model.json").write_text("{}")
    assert saved_epochs(tmp_path) == [1]
    assert saved_epochs(tmp_path / "none") == []
