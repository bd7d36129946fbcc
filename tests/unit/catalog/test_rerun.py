"""A recorded run that is repeated: fused trials, population based training, from the store, from
MLflow alone."""

import json
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.search import make_search

import pipelines
from gen_models.core.errors import InputError
from gen_models.training.cpu import cpu_thread_settings
from pipelines.catalog.rerun import rerun
from pipelines.cli.main import main
from pipelines.config.serialization import to_dict
from pipelines.data import load
from pipelines.store.layout import Store
from pipelines.tracking.base import find_backend
from pipelines.tracking.queue import DeliveryQueue
from pipelines.training.payload import SharedDataset, TrainingPayload
from pipelines.tuning.fused.marks import WorkerMarks
from pipelines.tuning.fused.requests import TrialRequest
from pipelines.tuning.fused.resident import ResidentTrials
from pipelines.tuning.recorder import TrialEnded, TrialStarted
from pipelines.tuning.search_run import SearchRun
from pipelines.tuning.strategy.space import widest_settings


@pytest.fixture(autouse=True)
def thread_settings() -> Iterator[None]:
    """Restore what a worker's process sets for good."""
    threads = torch.get_num_threads()
    with cpu_thread_settings():
        yield
    torch.set_num_threads(threads)


def settings(latent_dim: int, lr: float = 1e-3) -> dict[str, Any]:
    return {"model": {"latent_dim": latent_dim}, "optim": {"lr": lr}}


def make_trials(search: SearchRun) -> ResidentTrials:
    """Return the trials of a search as a fused worker of a new process has them."""
    dataset = search.context.dataset
    parts = dataset.part("train"), dataset.part("validation")
    shared = SharedDataset(*parts, dataset.num_classes, search.context.extractor)
    marks = search.folder.workers
    marks.mkdir(parents=True, exist_ok=True)
    folder, content = str(search.folder.path), to_dict(search.run)
    widest = widest_settings(search.run, dataset.spec)
    payload = TrainingPayload(content, folder, (None,), False, None, widest)  # type: ignore[arg-type]
    return ResidentTrials(payload, shared, 4, 1, WorkerMarks(marks))


def train(trials: ResidentTrials, configs: Mapping[str, Any], epoch: int | None = None) -> None:
    """Train trials for an epoch, those that can be together."""
    replies: dict[Future[Any], TrialRequest] = {
        Future(): TrialRequest(name, config, epoch) for name, config in configs.items()
    }
    trials.run_epochs(replies)
    for reply in replies:
        reply.result(timeout=0)


def close(search: SearchRun, name: str, config: Mapping[str, Any], epochs: int) -> None:
    """Record the beginning and the end of a trial."""
    search.handle(TrialStarted(name, config, 0))
    search.handle(TrialEnded(name, epochs, epochs, diverged=False))


@pytest.mark.parametrize("execution", ["in_turn", "vectorised"])
def test_a_fused_trial_is_equal_alone(execution: str, tmp_path: Path) -> None:
    search = make_search(tmp_path, execution=execution)
    configs = {"a": settings(2), "b": settings(12, 5e-3), "c": settings(32, 1e-2)}
    trials = make_trials(search)
    for name in configs:
        search.handle(TrialStarted(name, configs[name], 0))
    for epoch in (None, 1, 2):
        train(trials, configs, epoch)
    for name in configs:
        search.handle(TrialEnded(name, 3, 3, diverged=False))
    result = rerun("b", store=tmp_path)
    assert result.equal and result.exit_code == 0, result
    assert (result.epochs, result.digests, result.different_values) == (3, 3, 0)
    assert result.values >= 3 * 4 and result.circumstances == {}
    tags = json.loads((search.folder.trial("b").journal.outcome_file).read_text())["tags"]
    assert tags["execution"] == execution and tags["device"] == "cpu"
    assert len(tags["weights_digest"]) == 16 and tags["processor"]


def test_what_differs_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search = make_search(tmp_path)
    train(make_trials(search), {"a": settings(2)})
    close(search, "a", settings(2), 1)
    folder = search.folder.trial("a")
    path = folder.journal.record_file(1)
    content = json.loads(path.read_text())
    content["metrics"]["val/nll/iw8"] += 1.0
    content["context"] |= {"weights": "0" * 16, "processor": "another"}
    path.write_text(json.dumps(content))
    info = folder.journal.folder / "identity.json"
    info.write_text(info.read_text().replace(version("torch"), "2.0"))
    installed = version("torch")
    code = main(["rerun", "a", "--store", str(tmp_path)])
    out = capsys.readouterr().out
    assert code == 1
    assert "a: differs" in out and "1 of 1 digests of weights differ" in out
    assert "val/nll/iw8 at epoch 1: " in out
    assert "processor: another is recorded" in out
    assert f"version.torch: 2.0 is recorded, {installed} here" in out


def test_data_that_were_moved_are_given(tmp_path: Path) -> None:
    before, after = tmp_path / "before/some.npz", tmp_path / "after/some.npz"
    before.parent.mkdir()
    digits = load("digits", Path()).part("train")
    assert digits.labels is not None
    np.savez(before, images=digits.images[:600], labels=digits.labels[:600])
    search = make_search(tmp_path, data=f"npz:{before}", features="pca")
    train(make_trials(search), {"a": settings(2)})
    close(search, "a", settings(2), 1)
    before.parent.rename(after.parent)
    with pytest.raises(InputError, match="the new one is given by --data npz:PATH"):
        rerun("a", store=tmp_path)
    args = ["rerun", "a", "--store", str(tmp_path), "--data", f"npz:{after}"]
    assert main(args) == 0


def test_other_data_are_not_trained_on(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    train(make_trials(search), {"a": settings(2)})
    close(search, "a", settings(2), 1)
    info = search.folder.trial("a").journal.folder / "identity.json"
    digest = search.context.dataset.digest
    info.write_text(info.read_text().replace(digest, "f" * len(digest)))
    result = rerun("a", store=tmp_path)
    assert not result.equal and result.epochs == 0
    assert result.circumstances["data_digest"].here == digest


def test_an_unknown_run_is_an_error(tmp_path: Path) -> None:
    make_search(tmp_path)
    with pytest.raises(pipelines.InputError, match="folder in which runs are recorded"):
        rerun("../a", store=tmp_path / "nothing")


def population(search: SearchRun) -> None:
    """Train two trials; `b` copies `a`, of another structure, after its second epoch, and again
    after its fourth."""
    trials = make_trials(search)
    good, bad = settings(5), settings(2)
    search.handle(TrialStarted("a", good, 0))
    search.handle(TrialStarted("b", bad, 0))
    for epoch in (None, 1):
        train(trials, {"a": good, "b": bad}, epoch)
    for epoch, lr in ((2, 2e-3), (4, 4e-3)):
        state = trials.save(TrialRequest("a", good, epoch))
        asked = TrialRequest("b", settings(5, lr))
        assert trials.copy(asked, state) == epoch
        search.handle(TrialStarted("b", asked.config, epoch))
        for each in (epoch, epoch + 1):
            train(trials, {"a": good, "b": asked.config}, each)
    for name in "ab":
        search.handle(TrialEnded(name, 6, 6, diverged=False))


def make_population(root: Path) -> SearchRun:
    return make_search(root, scheduler="pbt", searcher="random", epochs=6)


def test_population_based_training_is_repeated_by_its_schedule(tmp_path: Path) -> None:
    search = make_population(tmp_path)
    population(search)
    result = rerun("b", store=tmp_path)
    # Its own first epochs, those after its first copy, and those after its second one.
    assert result.equal and (result.epochs, result.digests) == (6, 6), result
    outcome = search.folder.trial("b").journal.outcome()
    assert outcome
    best = json.loads(outcome.tags["best_settings"])
    assert best["model.latent_dim"] == 5
    assert outcome.tags["rerun"] == "genpipe rerun b"
    ranked = {each.trial_id: each for each in search.ranking()}
    assert ranked["b"].config == {**ranked["b"].config, **best}


def test_a_run_is_repeated_from_mlflow_alone(
    tmp_path: Path, mlflow_database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search = make_population(tmp_path)
    shutil.copy(mlflow_database, tmp_path / "mlflow.db")
    population(search)
    store = Store.at(tmp_path)
    uri = f"sqlite:///{store.database}"
    with DeliveryQueue(find_backend(uri), uri, store) as queue:
        for name in "ab":
            queue.sync(search.folder.trial(name).journal)
        assert queue.flush(60)
    shutil.rmtree(store.searches)
    result = rerun("b", store=tmp_path)
    assert result.source.startswith("MLflow's run ")
    assert result.equal and (result.epochs, result.digests) == (6, 1), result
    # `best` shows the settings of the best epoch, and the command that repeats it.
    (first, *_) = pipelines.best("vae", store=tmp_path, metric="val/nll/iw8").ranking
    assert first.rerun == f"genpipe rerun {first.name} --store {tmp_path}"
    assert first.params["model.latent_dim"] == "5"
