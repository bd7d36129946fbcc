"""Data that changed between the start of a run and its next start are refused, with both digests,
before Ray starts."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
from support.pipeline import Capture, refused

from pipelines.cli.parsing import parse_run
from pipelines.config.run import Train
from pipelines.config.search import Search
from pipelines.store.layout import Store
from pipelines.training.preflight import preflight
from pipelines.training.run import open_run
from pipelines.training.run_info import run_info
from pipelines.tuning.search import resolve_search
from pipelines.tuning.search_run import SearchRun

SMALL = ["--batch-size", "8", "--features", "pca", "--epochs", "2"]


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    yield
    assert not ray.is_initialized()


def write_images(path: Path, seed: int) -> str:
    """Write an archive of images that follow from `seed`; return the data set's name."""
    images = np.random.default_rng(seed).integers(0, 256, (60, 8, 8), np.uint8)
    np.savez(path, images=images)
    return f"npz:{path}"


def refused_digests(args: list[str], capsys: Capture) -> tuple[str, str]:
    """Return the recorded digest and that of the data, as the refusal names them."""
    said = refused(args, capsys)
    found = re.search("was trained on, of digest ([0-9a-f]{32}), and not ([0-9a-f]{32})", said)
    assert found, said
    return found[1], found[2]


def test_a_run_of_the_same_name_goes_on_with_the_same_data_only(
    tmp_path: Path, capsys: Capture
) -> None:
    data = write_images(tmp_path / "x.npz", seed=0)
    args = ["vae", "--data", data, *SMALL, "--name", "one", "--store", str(tmp_path / "runs")]
    parsed = parse_run(Train, "train", args)
    assert parsed
    context = preflight(parsed)
    info = run_info(
        context.run, context.dataset, kind="run", name="one", experiment=context.experiment
    )
    open_run(context.store.run("one"), context.run, info)
    write_images(tmp_path / "x.npz", seed=1)
    before, now = refused_digests(["train", *args], capsys)
    assert before == context.dataset.digest != now


def test_a_search_is_resumed_with_the_same_data_only(tmp_path: Path, capsys: Capture) -> None:
    data = write_images(tmp_path / "x.npz", seed=0)
    store = Store.at(tmp_path / "runs")
    parsed = parse_run(Search, "search", ["vae", "--data", data, *SMALL, "--grace-period", "1"])
    assert parsed
    context = preflight(resolve_search(parsed, set()))

    class NoTracker:
        def sync(self, *args: object) -> None:
            pass

    search = SearchRun(context, store.search("s"), NoTracker(), [])  # type: ignore[arg-type]
    search.start(context.run)
    write_images(tmp_path / "x.npz", seed=1)
    args = ["search", "vae", "--resume", "s", "--store", str(store.root)]
    before, now = refused_digests(args, capsys)
    assert before == context.dataset.digest != now
