"""Journals that are delivered to MLflow, and what MLflow then holds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from support.journals import DIGEST, METRIC, open_journal, write_epochs
from torch import nn

from pipelines.store.journal import Journal, Outcome, RunStatus
from pipelines.store.layout import Store
from pipelines.tracking.base import RunRow
from pipelines.tracking.mlflow.connection import connect
from pipelines.tracking.mlflow.reader import MlflowReader
from pipelines.tracking.mlflow.writer import MlflowWriter


class Noise(nn.Module):
    """A sampler: noise (N, 3) -> images (N, 1, 4, 4) in [0, 1]."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 16)
        nn.init.constant_(self.linear.weight, scale)
        nn.init.zeros_(self.linear.bias)

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.linear(noise)).reshape(-1, 1, 4, 4)


def load_noise(folder: Path) -> tuple[nn.Module, int]:
    """Load the sampler of a folder that `write_noise` wrote."""
    return Noise(json.loads((folder / "model.json").read_text())["scale"]).eval(), 3


def write_noise(folder: Path, scale: float = 1.0) -> Path:
    """Write a checkpoint folder that is exported in a moment."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").write_text(json.dumps({"scale": scale}))
    return folder


def close(
    journal: Journal, last_epoch: int, status: RunStatus = "completed", **outcome: Any
) -> None:
    """Close a journal; `outcome` are fields of its `Outcome`."""
    journal.close(Outcome(status, last_epoch, **outcome))


def writer(uri: str, store: Store) -> MlflowWriter:
    """Return a writer as a new process has it."""
    return MlflowWriter(uri, store, load_noise)


def deliver(uri: str, store: Store, journal: Journal, upto: int | None = None) -> str:
    """Deliver as a new process would; return the run's id."""
    writer(uri, store).deliver(journal, upto)
    return str(journal.delivered()["run_id"])


def list_runs(uri: str, store: Store, *arguments: Any) -> list[RunRow]:
    """Return the recorded runs."""
    return MlflowReader(uri, store).list_runs(*arguments)


def steps(uri: str, run_id: str, key: str = METRIC) -> list[int]:
    """Return the epochs of a metric's points, in order of time."""
    history = connect(uri).get_metric_history(run_id, key)
    assert all(point.value == -point.step for point in history) or key != METRIC
    return [point.step for point in sorted(history, key=lambda p: p.timestamp)]


def histories(uri: str, run_id: str) -> dict[str, list[tuple[int, float, int]]]:
    """Return all points of a run by metric: step, value and time, in order."""
    client = connect(uri)
    return {
        name: sorted(
            (point.step, point.value, point.timestamp)
            for point in client.get_metric_history(run_id, name)
        )
        for name in client.get_run(run_id).data.metrics
    }


def pictures(uri: str, run_id: str) -> list[str]:
    """Return the names under images/, without what is random in them."""
    files = [Path(file.path).name for file in connect(uri).list_artifacts(run_id, "images")]
    return sorted(re.sub(r"timestamp\+\d+\+[-0-9a-f]{36}", "_", name) for name in files)


def deliver_claim(
    uri: str,
    store: Store,
    name: str,
    value: float,
    digest: str = DIGEST,
    params: Mapping[str, Any] | None = None,
    **claim: Any,
) -> tuple[str, bool]:
    """Deliver a run that claims the alias; return the version, and whether it holds the alias of
    what it can be compared with."""
    journal = open_journal(
        store.run(name).path,
        dataset={"name": "digits", "digest": digest},
        tags={"family": "vae", "data_digest": digest},
        params=params or {},
        search_id=f"search-{name}",
    )
    write_epochs(journal, 1)
    close(
        journal,
        1,
        checkpoint=str(write_noise(store.run(name).path / "best", value)),
        register="vae-digits",
        champion={"metric": METRIC, "mode": "max", "value": value, **claim},
    )
    deliver(uri, store, journal)
    return journal.delivered()["version"], journal.delivered()["is_champion"]


def lose_answer(monkeypatch: pytest.MonkeyPatch, method: str, which: int = 1) -> list[int]:
    """Let the `which`-th call of a client's method succeed and then raise; count the calls."""
    calls: list[int] = []
    real: Callable[..., Any] = getattr(MlflowClient, method)

    def lossy(self: MlflowClient, *args: Any, **kwargs: Any) -> Any:
        answer = real(self, *args, **kwargs)
        calls.append(len(calls) + 1)
        if len(calls) == which:
            raise ConnectionError("the answer was lost")
        return answer

    monkeypatch.setattr(MlflowClient, method, lossy)
    return calls


def deliver_until_done(client: MlflowWriter, journal: Journal) -> int:
    """Deliver until it succeeds; return how often it did not."""
    for failures in range(20):
        try:
            client.deliver(journal)
        except ConnectionError:
            for path in journal.folder.rglob("*.*"):
                path.touch()  # so that MLflow's own comparison of points does not help
        else:
            return failures
    raise AssertionError("never delivered")
