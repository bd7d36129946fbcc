"""A store with an empty MLflow database, and MLflow's client as the pipeline sets it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.store.layout import Store
from pipelines.tracking.base import tracking_uri
from pipelines.tracking.mlflow import BACKEND


@pytest.fixture
def store(tmp_path: Path, mlflow_database: Path) -> Store:
    shutil.copy(mlflow_database, tmp_path / "mlflow.db")
    return Store.at(tmp_path)


@pytest.fixture
def uri(store: Store) -> Iterator[str]:
    with BACKEND.settings():
        yield tracking_uri(store)
