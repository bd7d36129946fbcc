"""A fused worker that cannot start, as on a device without room for the images."""

from pathlib import Path

import pytest
from support.pipeline import SMALL, client, last_json, start

pytestmark = pytest.mark.slow

BROKEN = """\
import sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "pipelines.tuning.fused.resident":
            raise MemoryError("no room for the images")

sys.meta_path.insert(0, Finder())
"""


def test_its_trials_fail_and_the_search_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(BROKEN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    store, log = tmp_path / "runs", tmp_path / "log"
    args = ["--trials", "2", "--epochs", "1", "--scheduler", "fifo", "--searcher", "random"]
    command = ["search", "vae", "--store", str(store), *SMALL, *args, "--features", "pca"]
    process = start([*command, "--json"], log)
    out, _ = process.communicate(timeout=300)
    said = log.read_text()
    assert process.returncode == 1, said
    assert "no room for the images" in said and "every trial failed" in said
    result = last_json(out)
    assert result["outcome"] == "failed" and result["champion"] is None
    assert [row["outcome"] for row in result["ranking"]] == ["failed", "failed"]
    ((reason, num),) = result["failures"].items()
    assert "no room for the images" in reason and num == 2
    assert client(store).get_run(result["run_id"]).info.status == "FAILED"
