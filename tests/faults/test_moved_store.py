"""A store and its data are moved while a search was interrupted: everything goes on there."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from support.pipeline import (
    SMALL,
    check_recorded,
    recorded_epochs,
    refused,
    resume_search,
    run_here,
    run_process,
    search_killed_when,
)

from pipelines.data import load

EPOCHS = 8


def write_data(path: Path) -> None:
    digits = load("digits", Path())
    part = digits.part("train")
    assert part.labels is not None
    path.parent.mkdir(parents=True)
    np.savez(path, images=part.images[:600], labels=part.labels[:600])


def test_a_store_that_was_moved_goes_on(
    tmp_path: Path, mlflow_database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    write_data(before / "data/digits.npz")
    store = before / "runs"
    store.mkdir()
    shutil.copy(mlflow_database, store / "mlflow.db")
    config = ["--data", f"npz:{before}/data/digits.npz", "--features", "pca", *SMALL]
    config += ["--model.arch", "mlp"]
    train = ["train", "vae", *config, "--store", str(store), "--epochs", "2", "--name", "a"]
    run_process(train, tmp_path / "train.log")
    args = [*config, "--trials", "4", "--epochs", str(EPOCHS), "--scheduler", "fifo"]
    folder = search_killed_when(
        lambda: recorded_epochs(store, EPOCHS) >= 1,
        store,
        [*args, "--max-concurrent", "2"],
        tmp_path / "search.log",
    )
    before.rename(after)  # now nothing is where it was
    store = after / "runs"

    for path in store.glob("**/journal/*.json"):
        assert str(before) not in path.read_text() or path.name in (
            "identity.json",
            "delivered.json",
        )
    for path in store.glob("**/config.json"):
        assert str(before / "runs") not in path.read_text()
    listed, _ = run_here(["runs", "--store", str(store)], capsys)
    assert "a" in {run["name"] for run in listed["runs"]}
    best, _ = run_here(["best", "vae", "--store", str(store)], capsys)
    assert best["ranking"]
    out = tmp_path / "a.png"
    run_here(["sample", "a", "--store", str(store), "--out", str(out)], capsys)
    assert out.exists()

    # The data are asked for where they are not found.
    small = ["--num", "2048", "--importance-samples", "8", "--images", "32"]
    evaluate = ["evaluate", "a", "--store", str(store), *small]
    data = f"npz:{after}/data/digits.npz"
    resume = ["search", "vae", "--store", str(store), "--resume", folder.name]
    for command in (evaluate, resume):
        assert "--data npz:PATH" in refused(command, capsys)
    run_here([*evaluate, "--data", data], capsys)

    result = resume_search(store, folder.name, tmp_path / "resumed.log", "--data", data)
    assert result["outcome"] == "completed" and len(result["ranking"]) == 4
    assert Path(result["champion"]["checkpoint"]).is_relative_to(after)
    check_recorded(store, result)
    assert not before.exists()  # nothing was written where the store was
