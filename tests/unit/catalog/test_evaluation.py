"""A recorded model is evaluated on the test split; an outage loses nothing of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.evaluation import untrained
from support.tracking import BACKEND, MemoryServer

import pipelines
from gen_models.core.errors import InputError
from pipelines.catalog.evaluation import evaluate
from pipelines.catalog.runs import runs
from pipelines.config.run import Train, defaults
from pipelines.config.serialization import dump_config
from pipelines.data import load
from pipelines.report.results import EvaluationResult
from pipelines.store.journal import Outcome
from pipelines.store.layout import RunFolder, Store
from pipelines.store.lease import holding
from pipelines.training.run_info import run_info

URI = "memory://test"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A data set of 120 images without labels."""
    path = tmp_path / "images.npz"
    np.savez(path, images=np.random.default_rng(0).integers(0, 255, (120, 8, 8), np.uint8))
    return path


@pytest.fixture
def server(memory_server: MemoryServer, store: Store, images: Path) -> MemoryServer:
    """Holds a run `a`, a search, and a run whose data set has another digest."""
    dataset = load(f"npz:{images}", Path())
    run = replace(defaults(Train, "vae"), data=f"npz:{images}", batch_size=8, precision="fp32")
    other = replace(dataset, digest="f" * 16)
    for name, kind, data in (("a", "run", dataset), ("s", "search", dataset), ("b", "run", other)):
        folder = store.run(name)
        store.files.write(folder.config, dump_config(run))
        info = run_info(run, data, kind=kind, name=name, experiment="vae-x")  # type: ignore[arg-type]
        folder.journal.open(info)
        untrained("vae", dataset.spec, folder.path / "best")
        folder.journal.close(Outcome("completed", 0, checkpoint=str(folder.path / "best")))
        BACKEND.writer(URI, store).deliver(folder.journal)
    return memory_server


def evaluate_small(store: Store, model: str = "a", **settings: Any) -> EvaluationResult:
    known = {"num": 12, "importance_samples": 2, "images": 3, "device": "cpu"}
    return evaluate(model, store=store.root, tracking_uri=URI, **{**known, **settings})


def test_the_results_are_returned_and_recorded(server: MemoryServer, store: Store) -> None:
    result = evaluate_small(store)
    row = server.run("a").row
    assert (result.run_id, result.name) == (row.run_id, "a")
    assert result.metrics and all(name.startswith("test/") for name in result.metrics)
    assert result.metrics.items() <= row.metrics.items()
    assert result.tags.items() <= row.tags.items()
    assert set(result.pictures) <= server.run("a").pictures
    assert all(Path(path).is_file() for path in result.pictures.values())
    assert evaluate_small(store).metrics == result.metrics  # the same each time
    assert pipelines.evaluate is evaluate


def test_values_of_other_numbers_of_samples_and_images_stay(
    server: MemoryServer, store: Store
) -> None:
    first = evaluate_small(store)
    second = evaluate_small(store, num=13, images=4)
    shared = {name for name in first.metrics if name in second.metrics}
    assert {name: first.metrics[name] for name in shared} == {
        name: second.metrics[name] for name in shared
    }
    assert {"test/fd/pca-npz-images/12", "test/nll/iw2/3", "test/elbo/mc2/3"} <= (
        first.metrics.keys() - shared
    )
    record = store.evaluation(first.run_id).record()
    assert record and record.metrics == {**first.metrics, **second.metrics}
    assert server.run("a").row.metrics.items() >= record.metrics.items()


def test_values_of_other_weights_are_replaced(server: MemoryServer, store: Store) -> None:
    first = evaluate_small(store)
    journal = store.evaluation(first.run_id)
    journal.write(first.run_id, {"test/x": 1.0}, {"test/weights_digest": "other"}, {})
    record = journal.record()
    assert record and record.metrics == {"test/x": 1.0}


def test_after_an_outage_runs_delivers_the_results(
    server: MemoryServer, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    reads = len(server.requests)

    class DownAfterReads(list[Any]):
        """Ends the service once the run and its checkpoint were read."""

        def append(self, request: Any) -> None:
            super().append(request)
            server.is_down = request[0] != ""

    server.requests = DownAfterReads(server.requests)
    result = evaluate_small(store)
    assert len(server.requests) > reads and server.is_down
    assert "lacks some results; `genpipe runs` delivers them" in caplog.text
    assert not any(name.startswith("test/") for name in server.run("a").row.metrics)

    server.requests, server.is_down = [], False
    runs(store=store.root, tracking_uri=URI)
    row = server.run("a").row
    assert result.metrics and result.metrics.items() <= row.metrics.items()
    assert result.tags.items() <= row.tags.items()


def test_workers_of_two_commands_do_not_share_a_folder(server: MemoryServer, store: Store) -> None:
    folder = store.evaluation(server.run("a").row.run_id).folder
    with holding(RunFolder(folder), "model"):
        with pytest.raises(
            InputError, match=r"model = .* no other command is working on: process"
        ):
            evaluate_small(store, num_workers=2, device="cpu")
        assert evaluate_small(store).metrics  # in one process, which writes at its end only


def test_few_samples_are_warned_of(
    server: MemoryServer, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    evaluate_small(store)
    assert (
        "num = 12: with fewer than 2048 samples the Fréchet distance is too large" in caplog.text
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "c"}, "run = 'c': expected a run's id or name"),
        ({"model": "s"}, "model = 's': expected a run or a trial, and not a search"),
        ({"model": "b"}, "expected the data set that b was trained on"),
        ({"num": 5}, "num = 5: expected at least 6"),
        ({"images": 0}, "images = 0: expected an integer of at least 1"),
        ({"num_workers": 0}, "num_workers = 0: expected an integer of at least 1"),
        ({"features": "lenet"}, "features = 'lenet': expected one of auto, pca"),
    ],
)
def test_wrong_input_is_named(
    settings: dict[str, Any], message: str, server: MemoryServer, store: Store
) -> None:
    with pytest.raises(InputError, match=message):
        evaluate_small(store, **settings)
    assert store.evaluations() == []
