"""Runs that are recorded in a tracking system in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.journals import open_journal
from support.tracking import BACKEND

from pipelines.store.journal import Journal, Outcome
from pipelines.store.layout import RunFolder, Store
from pipelines.tracking import queue

URI = "memory://test"
Record = Callable[..., Journal]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue tries again soon, and gives up soon."""
    for name in ("_FIRST_WAIT", "_LONGEST_WAIT", "_HURRIED_WAIT", "_FINISH_SECONDS"):
        monkeypatch.setattr(queue, name, 0.01)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.at(tmp_path / "store")


@pytest.fixture
def record(store: Store) -> Record:
    """Records an ended run and delivers it, unless `deliver` is False."""

    def run(
        name: str,
        value: float | None = None,
        *,
        data: str = "digits",
        metric: str = "val/nll/iw8",
        family: str = "vae",
        mode: str = "min",
        deliver: bool = True,
        folder: RunFolder | None = None,
        summary: dict[str, float] | None = None,
        params: dict[str, Any] | None = None,
        digest: str = "",
        **changes: Any,
    ) -> Journal:
        tags = {"family": family, "metric": metric, "mode": mode, "rerun": f"genpipe {name}"}
        tags["data_digest"] = digest or f"digest of {data}"
        journal = open_journal(
            (folder or store.run(name)).path,
            name=name,
            experiment=f"{family}-{data}",
            params={"data": data, "model.latent_dim": 16, **(params or {})},
            tags=tags,
            **changes,
        )
        metrics = {} if value is None else {metric: value}
        journal.write_epoch(1, metrics, {})
        best = {f"best/{metric}": value} if value is not None else {}
        journal.close(Outcome("completed", 1, summary={**best, **(summary or {})}))
        if deliver:
            BACKEND.writer(URI, store).deliver(journal)
        return journal

    return run
