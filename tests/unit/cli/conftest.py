"""Fixtures of the tests of the command line."""

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Run a test in a new folder, without settings of this machine; it may not start Ray."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("GENPIPE_DATA_ROOT", raising=False)
    yield
    import ray

    assert not ray.is_initialized()
