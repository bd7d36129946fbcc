"""A trial that kills the fused worker that trains it, each time: it fails, and no other does."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.brittle_family import DEADLY, write_brittle_family
from support.pipeline import last_json, start

pytestmark = pytest.mark.usefixtures("prepared_store")
SEARCH = (
    *("search", "brittle", "--searcher", "grid", "--scheduler", "fifo", "--epochs", "4"),
    *("--batch-size", "256", "--precision", "fp32", "--features", "pca", "--optim.lr", "0.01"),
)


def search(store: Path, path: str, execution: str, ending: str) -> dict[int, dict[str, Any]]:
    """Run the search in a process of its own; return its trials by their latent dimension."""
    log = store.with_suffix(".log")
    args = [*SEARCH, "--store", str(store), "--execution", execution, "--json"]
    process = start(args, log, PYTHONPATH=path, BRITTLE=ending)
    out, _ = process.communicate(timeout=500)
    assert out.strip(), log.read_text()
    return {trial["config"]["model.latent_dim"]: trial for trial in last_json(out)["ranking"]}


def recorded(store: Path, trial_id: str) -> list[dict[str, Any]]:
    """Return what is recorded of each epoch of a trial, but for what depends on the time."""
    paths = sorted(store.glob(f"searches/*/trials/{trial_id}/journal/reports/*.json"))
    records = [json.loads(path.read_text()) for path in paths]
    for record in records:
        for name in ("epoch_seconds", "images_per_second"):
            del record["metrics"][name]
        del record["pictures"]  # of those that led when they were drawn
    return records


@pytest.mark.parametrize(
    ("execution", "ending"), [("in_turn", "segfault"), ("vectorised", "exit")]
)
def test_a_trial_that_kills_its_worker_fails_and_its_neighbours_are_what_they_are_without_it(
    execution: str, ending: str, tmp_path: Path
) -> None:
    path = write_brittle_family(tmp_path)
    trials = search(tmp_path / "runs", path, execution, ending)
    assert trials.keys() == {2, DEADLY, 4, 5}
    assert {dim: trial["outcome"] for dim, trial in trials.items()} == {
        **dict.fromkeys((2, 4, 5), "completed"),
        DEADLY: "failed",
    }
    (outcome,) = (tmp_path / "runs").glob(
        f"searches/*/trials/{trials[DEADLY]['trial_id']}/journal/outcome.json"
    )
    message = json.loads(outcome.read_text())["tags"]["message"]
    assert "the fused worker died while it trained epoch 1 of this trial" in message

    undisturbed = search(tmp_path / "undisturbed", path, execution, "never")
    for dim in (2, 4, 5):
        records = recorded(tmp_path / "runs", trials[dim]["trial_id"])
        assert len(records) == 4
        assert records == recorded(tmp_path / "undisturbed", undisturbed[dim]["trial_id"])
