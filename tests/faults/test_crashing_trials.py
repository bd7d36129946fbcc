"""A trial that kills the fused worker that trains it, each time: it fails, and no other does."""

from pathlib import Path

import pytest
from support.brittle_family import DEADLY, write_brittle_family
from support.pipeline import last_json, start

pytestmark = pytest.mark.usefixtures("prepared_store")
SEARCH = (
    *("search", "brittle", "--searcher", "grid", "--scheduler", "fifo", "--epochs", "4"),
    *("--batch-size", "256", "--precision", "fp32", "--features", "pca", "--optim.lr", "0.01"),
)


@pytest.mark.parametrize(
    ("execution", "ending"), [("in_turn", "segfault"), ("vectorised", "exit")]
)
def test_a_trial_that_kills_its_worker_fails_and_its_neighbours_are_what_they_are_without_it(
    execution: str, ending: str, tmp_path: Path
) -> None:
    path, store, log = write_brittle_family(tmp_path), tmp_path / "runs", tmp_path / "log"
    args = [*SEARCH, "--store", str(store), "--execution", execution, "--json"]
    process = start(args, log, PYTHONPATH=path, BRITTLE=ending)
    out, _ = process.communicate(timeout=500)
    assert process.returncode == 1, log.read_text()
    (reason,) = last_json(out)["failures"]
    assert "the fused worker died while it trained epoch 1 of this trial" in reason
    found = {each["config"]["model.latent_dim"]: each for each in last_json(out)["ranking"]}
    assert {dim: trial["outcome"] for dim, trial in found.items()} == {
        **dict.fromkeys((2, 4, 5), "completed"),
        DEADLY: "failed",
    }
    # To the last bit what it is without neighbours and deaths.
    rerun = ["rerun", found[4]["trial_id"], "--store", str(store), "--json"]
    out, _ = start(rerun, log, PYTHONPATH=path).communicate(timeout=300)
    result = last_json(out)
    assert result["equal"] and result["epochs"] == result["digests"] == 4, result
