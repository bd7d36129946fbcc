"""A store in which files of one run are damaged: the others are listed, ranked and delivered."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.tracking import MemoryServer

from pipelines.catalog.runs import best, runs
from pipelines.catalog.sync import sync
from pipelines.store.journal import Journal
from pipelines.store.layout import Store

URI = "memory://test"


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "garbage": lambda path: path.write_bytes(bytes(range(256))),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "list": lambda path: path.write_text("[]"),
    "null": lambda path: path.write_text("null"),
    "wrong types": lambda path: path.write_text('{"epoch": [], "name": 1, "ending": {}}'),
    "missing": lambda path: path.unlink(),
}
FILES = ("identity.json", "reports/000001.json", "outcome.json", "delivered.json")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("kind", DAMAGE)
def test_the_other_runs_are_listed_ranked_and_delivered(
    kind: str,
    file: str,
    memory_server: MemoryServer,
    store: Store,
    record: Callable[..., Journal],
    caplog: pytest.LogCaptureFixture,
) -> None:
    record("a", 1.0, deliver=False)
    damaged = record("b", 2.0, deliver=file == "delivered.json")
    record("c", 3.0, deliver=False)
    DAMAGE[kind](damaged.folder / file)
    listed = [run.name for run in runs(store=store.root, tracking_uri=URI).runs]
    assert {"a", "c"} <= set(listed) and len(listed) == len(set(listed))
    ranked = best("vae", store=store.root, tracking_uri=URI).ranking
    assert [run.name for run in ranked if run.name != "b"] == ["a", "c"]
    goes_on = (kind, file) == ("missing", "outcome.json")  # nothing says that it has ended
    assert goes_on or "b" in listed or "b" in caplog.text
    memory_server.runs.clear()
    result = sync(store=store.root, tracking_uri=URI)
    assert {"a", "c"} <= {run.row.name for run in memory_server.runs.values()}
    assert [failure.name for failure in result.failed] in ([], ["runs/b"])
