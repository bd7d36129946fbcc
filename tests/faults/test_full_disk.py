"""The disk of the store is full, or read-only: on a small file system that is mounted for it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from support.pipeline import SMALL, refused, run_process, start, trial_metrics

from gen_models.core.checksums import check_checksums

CONFIG = ("--features", "pca", *SMALL, "--model.arch", "mlp", "--epochs", "8")
SEARCH = ("search", "vae", *CONFIG, "--trials", "3", "--scheduler", "fifo", "--searcher", "random")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False).returncode:
        pytest.skip("wants to mount a small file system, which only root may")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def make_store(disk: Path, mlflow_database: Path) -> Path:
    store = disk / "runs"
    store.mkdir()
    shutil.copy(mlflow_database, store / "mlflow.db")
    return store


def fill(disk: Path, leave: int) -> Path:
    """Write a file that leaves `leave` bytes of the disk."""
    path = disk / "fill"
    path.write_bytes(bytes(shutil.disk_usage(disk).free - leave))
    return path


def fails(args: list[str], log: Path) -> str:
    """Run a command that fails on the full disk; return its log."""
    process = start(args, log)
    process.communicate(timeout=400)
    text = log.read_text()
    assert process.returncode == 1, text
    assert "Traceback" not in text
    assert text.count(": error: [Errno 28] no space left (0.") == 1, text
    assert "make room there" in text
    return text


def test_a_search_on_a_full_disk_goes_on_when_there_is_room(
    disk: Path, tmp_path: Path, mlflow_database: Path
) -> None:
    command = [*SEARCH, "--execution", "in_turn"]
    expected = tmp_path / "runs"
    expected.mkdir()
    run_process([*command, "--store", str(expected)], tmp_path / "expected.log")

    store, log = make_store(disk, mlflow_database), tmp_path / "full.log"
    filled = fill(disk, 1_200_000)
    text = fails([*command, "--store", str(store)], log)
    (folder,) = (store / "searches").iterdir()
    assert f"--resume {folder.name}" in text
    checkpoints = list(folder.glob("trials/*/checkpoint_*"))
    assert checkpoints
    for checkpoint in checkpoints:
        check_checksums(checkpoint)  # those that were written are whole
    assert trial_metrics(store) != trial_metrics(expected)
    filled.unlink()
    resume = ["search", "vae", "--store", str(store), "--resume", folder.name]
    result = run_process(resume, tmp_path / "resumed.log")
    assert result["outcome"] == "completed"
    assert trial_metrics(store) == trial_metrics(expected)


def test_training_on_a_full_disk_goes_on_when_there_is_room(
    disk: Path, tmp_path: Path, mlflow_database: Path
) -> None:
    store = make_store(disk, mlflow_database)
    command = ["train", "vae", *CONFIG, "--name", "a", "--store", str(store)]
    filled = fill(disk, 700_000)
    assert "resumes" in fails(command, tmp_path / "full.log")
    kept = list((store / "runs/a").glob("checkpoint_*"))
    assert kept
    for checkpoint in kept:
        check_checksums(checkpoint)
    filled.unlink()
    result = run_process(command, tmp_path / "resumed.log")
    assert (result["outcome"], result["epoch"]) == ("completed", 8)


@pytest.mark.parametrize("command", [("train", "vae"), ("search", "vae")])
def test_a_read_only_store_is_refused_before_ray_starts(
    command: tuple[str, str],
    disk: Path,
    mlflow_database: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = make_store(disk, mlflow_database)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    text = refused([*command, "--store", str(store)], capsys)
    assert f"store = '{store}': expected a writable folder" in text
    assert not ray.is_initialized()
