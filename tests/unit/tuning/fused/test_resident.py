"""Trials that reside on a device, with real learners, journals and checkpoints, without Ray."""

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.training import small_dataset, small_run

from gen_models.training.cpu import cpu_thread_settings
from pipelines.config.run import as_train
from pipelines.config.search import Search
from pipelines.config.serialization import to_dict, with_settings
from pipelines.store.checkpoints import saved_epochs
from pipelines.store.journal import Journal
from pipelines.training.payload import SharedDataset, TrainingPayload
from pipelines.tuning.fused.requests import TrialRequest
from pipelines.tuning.fused.resident import ResidentTrials

METRIC = "val/nll/iw8"
RUN = small_run(Search, trials=4, epochs=6, grace_period=1, keep_checkpoints=2)


@pytest.fixture(autouse=True)
def thread_settings() -> Iterator[None]:
    """Restore what a worker's process sets for good."""
    threads = torch.get_num_threads()
    with cpu_thread_settings():
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> SharedDataset:
    return small_dataset(tmp_path_factory.mktemp("store"))


def make_trials(
    dataset: SharedDataset, folder: Path, run: Search = RUN, capacity: int = 4
) -> ResidentTrials:
    payload = TrainingPayload(to_dict(run), str(folder), (None,), False)  # type: ignore[arg-type]
    return ResidentTrials(payload, dataset, capacity, 1)


def request(name: str, epoch: int | None = None, lr: float = 1e-3) -> TrialRequest:
    return TrialRequest(name, {"optim": {"lr": lr}}, epoch)


def run_epochs(trials: ResidentTrials, *requests: TrialRequest) -> list[dict[str, Any]]:
    """Run an epoch of each; return the reports."""
    replies: list[Future[dict[str, Any]]] = [Future() for _ in requests]
    trials.run_epochs(dict(zip(replies, requests, strict=True)))
    return [reply.result(timeout=0) for reply in replies]


def run_to(trials: ResidentTrials, name: str, epochs: int, lr: float = 1e-3) -> list[float]:
    """Run a trial to an epoch from its beginning; return its values."""
    values, epoch = [], None
    for _ in range(epochs):
        (report,) = run_epochs(trials, request(name, epoch, lr))
        epoch = report["epoch"]
        values.append(report[METRIC])
    assert epoch == epochs
    return values


# -- epochs ---------------------------------------------------------------------------------------
def test_an_epoch_is_recorded_and_saved(dataset: SharedDataset, tmp_path: Path) -> None:
    (report,) = run_epochs(make_trials(dataset, tmp_path), request("a"))
    assert report["epoch"] == 1 and report["diverged"] == 0
    folder = tmp_path / "trials" / "a"
    assert Journal(folder).record(1).metrics[METRIC] == report[METRIC]
    assert saved_epochs(folder) == [1]


def test_trials_do_not_depend_on_those_beside_them(dataset: SharedDataset, tmp_path: Path) -> None:
    rates = {"a": 1e-3, "b": 5e-3, "c": 1e-2}
    together = make_trials(dataset, tmp_path / "together")
    epochs: dict[str, int | None] = dict.fromkeys(rates)
    values: dict[str, list[float]] = {name: [] for name in rates}
    for _ in range(3):
        reports = run_epochs(together, *(request(n, epochs[n], rates[n]) for n in rates))
        for name, report in zip(rates, reports, strict=True):
            values[name].append(report[METRIC])
            epochs[name] = report["epoch"]
    for name, rate in rates.items():
        alone = run_to(make_trials(dataset, tmp_path / name), name, 3, rate)
        assert values[name] == pytest.approx(alone, rel=1e-5)
    assert len({tuple(each) for each in values.values()}) == 3


def test_a_config_that_is_wrong_fails_its_own_trial_alone(
    dataset: SharedDataset, tmp_path: Path
) -> None:
    trials = make_trials(dataset, tmp_path)
    wrong, right = Future[Any](), Future[Any]()
    bad = TrialRequest("bad", {"optim": {"lr": -1.0}})
    trials.run_epochs({wrong: bad, right: request("a")})
    assert right.result(timeout=0)["epoch"] == 1
    with pytest.raises(ValueError, match=r"lr = -1.0: expected a number above 0"):
        wrong.result(timeout=0)


def test_a_group_whose_epoch_fails_is_answered_and_forgotten(
    dataset: SharedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = make_trials(dataset, tmp_path)
    run_to(trials, "a", 1)

    def fail(learners: Any) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(trials.trainer, "run_epoch", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            run_epochs(trials, request("a", 1))
    (report,) = run_epochs(trials, request("a", 1))  # from its checkpoint
    assert report["epoch"] == 2
    undisturbed = run_to(make_trials(dataset, tmp_path / "undisturbed"), "a", 2)
    assert report[METRIC] == pytest.approx(undisturbed[1], rel=1e-6)


def test_a_trial_that_diverges_has_no_checkpoint_of_that_epoch(
    dataset: SharedDataset, tmp_path: Path
) -> None:
    tiny = {"likelihood": "gaussian", "decoder_std": 1e-25}
    trials = make_trials(dataset, tmp_path, with_settings(RUN, {"model": tiny}))
    (report,) = run_epochs(trials, request("a"))
    assert report["diverged"] == 1 and report[METRIC] == 1e30
    assert saved_epochs(tmp_path / "trials" / "a") == []
    assert Journal(tmp_path / "trials" / "a").epochs() == [1]


# -- checkpoints ----------------------------------------------------------------------------------
@pytest.mark.parametrize("num", [1, 2, 4])
def test_the_best_and_the_newest_checkpoints_are_kept(
    num: int, dataset: SharedDataset, tmp_path: Path
) -> None:
    run = replace(RUN, keep_checkpoints=num)
    values = run_to(make_trials(dataset, tmp_path, run), "a", 6, lr=0.1)
    best = sorted(range(1, 7), key=lambda epoch: values[epoch - 1])[:num]
    assert saved_epochs(tmp_path / "trials" / "a") == sorted({*best, 6})


def test_a_trial_goes_on_elsewhere_from_its_checkpoint(
    dataset: SharedDataset, tmp_path: Path
) -> None:
    expected = run_to(make_trials(dataset, tmp_path / "straight"), "a", 4)
    run_to(make_trials(dataset, tmp_path / "moved"), "a", 2)
    other = make_trials(dataset, tmp_path / "moved")
    values = []
    for epoch in (2, 3):
        (report,) = run_epochs(other, request("a", epoch))
        values.append(report[METRIC])
    assert values == pytest.approx(expected[2:], rel=1e-6)


def test_a_restarted_trial_first_repeats_its_last_report(
    dataset: SharedDataset, tmp_path: Path
) -> None:
    trials = make_trials(dataset, tmp_path)
    run_to(trials, "a", 2)
    (last,) = run_epochs(trials, request("a", 2))
    (again,) = run_epochs(trials, request("a"))
    assert again == last and last["epoch"] == 3
    assert Journal(tmp_path / "trials" / "a").epochs() == [1, 2, 3]


def test_a_checkpoint_that_is_gone_is_an_error_that_names_the_trial(
    dataset: SharedDataset, tmp_path: Path
) -> None:
    trials = make_trials(dataset, tmp_path)
    run_to(trials, "a", 1)
    with pytest.raises(RuntimeError, match="trial a is at epoch 5, its checkpoint at 1"):
        run_epochs(trials, request("a", 5))


def test_as_many_trials_are_kept_in_memory_as_run_at_a_time(
    dataset: SharedDataset, tmp_path: Path
) -> None:
    trials = make_trials(dataset, tmp_path, capacity=2)
    for name in ("a", "b", "c", "d"):
        run_to(trials, name, 1)
    assert list(trials._trials) == ["b", "c", "d"]  # and one more, which may come next
    trials.forget("c")
    assert list(trials._trials) == ["b", "d"]
    trials.forget("unknown")
    (report,) = run_epochs(trials, request("a", 1))
    assert report["epoch"] == 2


# -- states ---------------------------------------------------------------------------------------
def test_a_state_that_is_saved_and_loaded_continues_exactly(
    dataset: SharedDataset, tmp_path: Path
) -> None:
    trials = make_trials(dataset, tmp_path)
    run_to(trials, "a", 2)
    state = trials.save(request("a", 2))
    (expected,) = run_epochs(trials, request("a", 2))
    assert trials.load(request("a", 2), state) == 2
    (again,) = run_epochs(trials, request("a", 2))
    assert again[METRIC] == pytest.approx(expected[METRIC], rel=1e-6)


def test_a_trial_that_copies_another_counts_its_own_epochs(
    dataset: SharedDataset, tmp_path: Path
) -> None:
    trials = make_trials(dataset, tmp_path)
    run_to(trials, "good", 3)
    run_to(trials, "bad", 1, lr=1e-5)
    state = trials.save(request("good", 3))
    assert trials.load(request("bad", None, lr=2e-3), state) == 1
    (report,) = run_epochs(trials, request("bad", 1, lr=2e-3))
    assert report["epoch"] == 2
    assert trials._trials["bad"].learner.epoch == 4.0  # it has the weights of the third


def test_a_trial_of_population_based_training_records_its_settings(
    dataset: SharedDataset, tmp_path: Path
) -> None:
    run = replace(RUN, scheduler="pbt", searcher="random")
    (report,) = run_epochs(make_trials(dataset, tmp_path, run), request("a", lr=0.25))
    assert report["config/optim.lr"] == 0.25
    (other,) = run_epochs(make_trials(dataset, tmp_path / "asha"), request("a", lr=0.25))
    assert not any(name.startswith("config/") for name in other)


def test_pictures_are_drawn_of_a_trial_that_is_the_best_so_far(
    dataset: SharedDataset, tmp_path: Path
) -> None:
    trials = make_trials(dataset, tmp_path)
    run_to(trials, "good", 3, lr=1e-2)
    run_to(trials, "bad", 1, lr=1e-6)
    drawn = {
        name: [r.epoch for r in Journal(tmp_path / "trials" / name).records() if r.pictures]
        for name in ("good", "bad")
    }
    assert drawn["good"][0] == 1 and drawn["bad"] == []


def test_the_execution_is_described_once_there_was_a_choice(
    dataset: SharedDataset, tmp_path: Path
) -> None:
    trials = make_trials(dataset, tmp_path)
    assert trials.describe() == "" and trials.vectorised is False
    run_epochs(trials, request("a"), request("b", lr=2e-3))
    assert "ms in turn" in trials.describe()
    assert ("as one" in trials.describe()) is trials.vectorised


def test_a_trial_s_config_is_the_search_s_with_its_own_settings(
    dataset: SharedDataset, tmp_path: Path
) -> None:
    trials = make_trials(dataset, tmp_path)
    run_to(trials, "a", 1, lr=0.25)
    run = trials._trials["a"].run
    assert run == as_train(with_settings(RUN, {"optim": {"lr": 0.25}}))
