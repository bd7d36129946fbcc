"""Trials that reside on a device, with real learners, journals and checkpoints, without Ray."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import SPEC
from support.training import small_dataset, small_run

import gen_models
from gen_models.core.checkpoint import load_checkpoint
from gen_models.core.data import DataSpec
from gen_models.core.errors import InputError
from gen_models.fused.learners import structure_name
from gen_models.fused.trainer import Choice, Execution, FusedTrainer
from gen_models.training.cpu import cpu_thread_settings
from gen_models.training.learner import Learner
from pipelines.config.run import as_train
from pipelines.config.search import Search
from pipelines.config.serialization import to_dict, with_settings
from pipelines.store.checkpoints import checkpoint_folder, damaged_epochs, saved_epochs
from pipelines.store.journal import Journal, Segment
from pipelines.store.layout import SearchFolder
from pipelines.training.payload import SharedDataset, TrainingPayload
from pipelines.tuning.fused.choices import RecordedChoices
from pipelines.tuning.fused.marks import WorkerMarks
from pipelines.tuning.fused.requests import TrialRequest
from pipelines.tuning.fused.resident import ResidentTrials
from pipelines.tuning.strategy.space import widest_settings

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
    widest = widest_settings(run, SPEC)
    content = to_dict(run)
    payload = TrainingPayload(content, str(folder), (None,), False, None, widest)  # type: ignore[arg-type]
    marks = folder / "workers"
    marks.mkdir(parents=True, exist_ok=True)
    return ResidentTrials(payload, dataset, capacity, 1, WorkerMarks(marks))


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


def test_a_worker_imports_neither_tune_nor_torch_s_compiler() -> None:
    """They take seconds, before the first epoch."""
    code = (
        "import sys, gen_models, pipelines.tuning.fused.resident\n"
        "for name in gen_models.names(): gen_models.family(name)\n"
        "sys.exit(bool({'ray.tune', 'torch._dynamo', 'mlflow'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


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

    def fail(trainer: FusedTrainer, learners: Any) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(FusedTrainer, "run_epoch", fail)
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
    assert saved_epochs(tmp_path / "trials" / "a") == sorted({*best, 5, 6})  # two new ones


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


@pytest.mark.parametrize("execution", ["in_turn", "vectorised"])
def test_what_lost_its_newest_checkpoints_is_trained_again_to_the_bit(
    execution: Any, dataset: SharedDataset, tmp_path: Path
) -> None:
    run = replace(RUN, execution=execution)
    trials = make_trials(dataset, tmp_path, run)
    expected = run_to(trials, "a", 5)
    folder = tmp_path / "trials" / "a"
    digest = Journal(folder).record(5).context.weights
    for path in folder.glob("checkpoint_*"):
        shutil.rmtree(path)
    # Tune has the report of epoch 4; nothing is left to go on from.
    (report,) = run_epochs(make_trials(dataset, tmp_path, run), request("a", 4))
    assert report["epoch"] == 5 and report[METRIC] == expected[4]
    assert Journal(folder).record(5).context.weights == digest
    assert [each.metrics[METRIC] for each in Journal(folder).records()] == expected


def test_a_report_that_was_lost_is_repeated(dataset: SharedDataset, tmp_path: Path) -> None:
    values = run_to(make_trials(dataset, tmp_path), "a", 3)
    (report,) = run_epochs(make_trials(dataset, tmp_path), request("a", 2))
    assert report["epoch"] == 3 and report[METRIC] == values[2]
    assert Journal(tmp_path / "trials" / "a").epochs() == [1, 2, 3]


# -- how they are trained -------------------------------------------------------------------------
def choose(folder: Path, execution: Execution) -> None:
    """Keep a choice for the structure of `RUN`, as an earlier worker of the search has."""
    model = gen_models.family("vae").Model(RUN.model, DataSpec((1, 8, 8), 10))
    name = structure_name(Learner(model, RUN.optim, seed=0, steps_per_epoch=3))
    RecordedChoices(SearchFolder.at(folder)).keep(name, Choice(execution, "it was faster"))


@pytest.mark.parametrize("execution", ["in_turn", "vectorised"])
def test_what_was_measured_first_holds_for_every_worker_of_a_search(
    execution: Execution, dataset: SharedDataset, tmp_path: Path
) -> None:
    choose(tmp_path, execution)
    for name in ("a", "b"):  # b's worker is another one
        trials = make_trials(dataset, tmp_path)
        run_to(trials, name, 1)
        assert "it was faster" in trials.describe()
        assert Journal(tmp_path / "trials" / name).record(1).context.execution == execution
    assert len(list((tmp_path / "execution").iterdir())) == 1


def test_the_first_trial_of_a_structure_is_measured_before_its_first_epoch(
    dataset: SharedDataset, tmp_path: Path
) -> None:
    trials = make_trials(dataset, tmp_path)
    run_to(trials, "a", 1)  # alone: another may come while it is at its second epoch
    (path,) = (tmp_path / "execution").iterdir()
    kept = json.loads(path.read_text())
    assert "a step of 4 takes" in kept["reason"]
    assert Journal(tmp_path / "trials" / "a").record(1).context.execution == kept["execution"]


@pytest.mark.parametrize("execution", ["in_turn", "vectorised"])
def test_values_do_not_depend_on_which_trials_are_beside_a_trial(
    execution: Any, dataset: SharedDataset, tmp_path: Path
) -> None:
    run = replace(RUN, execution=execution)
    widths = {"a": 2, "b": 12, "c": 32}  # the space has up to 32

    def ask(name: str, epoch: int | None) -> TrialRequest:
        return TrialRequest(name, {"model": {"latent_dim": widths[name]}}, epoch)

    together = make_trials(dataset, tmp_path / "together", run)
    run_epochs(together, *(ask(name, None) for name in widths))
    run_epochs(together, ask("a", 1), ask("b", 1))
    for name in ("a", "b"):
        alone = make_trials(dataset, tmp_path / "alone", run)
        run_epochs(alone, ask(name, None))
        run_epochs(make_trials(dataset, tmp_path / "alone", run), ask(name, 1))
        for epoch in (1, 2):
            records = [
                Journal(tmp_path / where / "trials" / name).record(epoch)
                for where in ("together", "alone")
            ]
            assert records[0].context == records[1].context
            values = [
                {k: v for k, v in each.metrics.items() if k.startswith(("train/", "val/"))}
                for each in records
            ]
            assert values[0] == values[1]


DAMAGE: dict[str, Callable[[Path], object]] = {
    "one bit of the weights": lambda folder: flip_bit(folder / "weights.safetensors"),
    "one bit of the optimizers": lambda folder: flip_bit(folder / "optimizers.pt"),
    "the weights cut short": lambda folder: cut(folder / "weights.safetensors"),
    "an empty description": lambda folder: (folder / "model.json").write_text(""),
    "a file is gone": lambda folder: (folder / "optimizers.pt").unlink(),
    "no checksums": lambda folder: (folder / "SHA256SUMS").write_text(""),
}


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 8
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def values_of(folder: Path, epochs: int) -> list[dict[str, float]]:
    """Return the metrics of a trial's epochs, without those of its pace."""
    pace = {"epoch_seconds", "images_per_second"}
    records = [Journal(folder).record(epoch).metrics for epoch in range(1, epochs + 1)]
    return [{k: v for k, v in metrics.items() if k not in pace} for metrics in records]


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    ("num", "execution"), [(1, "in_turn"), (2, "vectorised"), (9, "in_turn"), (9, "vectorised")]
)
def test_a_damaged_checkpoint_costs_time_and_no_digit(
    damage: str, num: int, execution: Execution, dataset: SharedDataset, tmp_path: Path
) -> None:
    """`num`: how many of the newest checkpoints are damaged; with 9, all."""
    run = replace(RUN, execution=execution)
    run_to(make_trials(dataset, tmp_path / "undisturbed", run), "a", 6)
    run_to(make_trials(dataset, tmp_path / "damaged", run), "a", 4)
    folder, expected = (tmp_path / name / "trials" / "a" for name in ("damaged", "undisturbed"))
    damaged = saved_epochs(folder)[-num:]
    for epoch in damaged:
        DAMAGE[damage](checkpoint_folder(folder, epoch))
    again = make_trials(dataset, tmp_path / "damaged", run)
    for epoch in (4, 5):
        (report,) = run_epochs(again, request("a", epoch))
        assert report["epoch"] == epoch + 1
    assert values_of(folder, 6) == values_of(expected, 6)
    newest = [checkpoint_folder(each, 6) / "weights.safetensors" for each in (folder, expected)]
    assert newest[0].read_bytes() == newest[1].read_bytes()
    assert damaged_epochs(folder) == damaged


def test_a_checkpoint_of_other_networks_is_not_taken_for_a_damaged_one(
    dataset: SharedDataset, tmp_path: Path
) -> None:
    run_to(make_trials(dataset, tmp_path), "a", 2)
    other = make_trials(dataset, tmp_path, with_settings(RUN, {"model": {"latent_dim": 3}}))
    with pytest.raises(InputError, match="a broken checkpoint"):
        run_epochs(other, request("a", 2))
    assert damaged_epochs(tmp_path / "trials" / "a") == []


@pytest.mark.parametrize("damage", ["", "{", None])
def test_a_damaged_record_is_trained_again(
    damage: str | None, dataset: SharedDataset, tmp_path: Path
) -> None:
    run = replace(RUN, execution="in_turn")
    run_to(make_trials(dataset, tmp_path / "undisturbed", run), "a", 5)
    run_to(make_trials(dataset, tmp_path / "damaged", run), "a", 4)
    folder, expected = (tmp_path / name / "trials" / "a" for name in ("damaged", "undisturbed"))
    path = Journal(folder).record_file(2)
    path.unlink() if damage is None else path.write_text(damage)
    (report,) = run_epochs(make_trials(dataset, tmp_path / "damaged", run), request("a", 4))
    assert report["epoch"] == 5
    assert values_of(folder, 5) == values_of(expected, 5)


def test_a_damaged_state_of_tune_is_not_loaded(dataset: SharedDataset, tmp_path: Path) -> None:
    run = replace(RUN, execution="in_turn")
    trials = make_trials(dataset, tmp_path, run)
    expected = run_to(make_trials(dataset, tmp_path / "undisturbed", run), "a", 3)
    run_to(trials, "a", 2)
    state = bytearray(trials.save(request("a", 2)))
    state[len(state) // 2] ^= 1
    for epoch in saved_epochs(tmp_path / "trials" / "a"):
        flip_bit(checkpoint_folder(tmp_path / "trials" / "a", epoch) / "optimizers.pt")
    again = make_trials(dataset, tmp_path, run)
    assert again.load(request("a", 2), bytes(state)) == 2
    (report,) = run_epochs(again, request("a", 2))
    assert report["epoch"] == 3 and report[METRIC] == expected[-1]


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
def test_a_trial_goes_on_from_what_tune_saved_only_if_its_folder_is_older(
    dataset: SharedDataset, tmp_path: Path
) -> None:
    trials = make_trials(dataset, tmp_path)
    run_to(trials, "a", 2)
    state = trials.save(request("a", 2))
    (expected,) = run_epochs(trials, request("a", 2))
    assert trials.load(request("a", 2), state) == 3  # Tune has missed a report
    (again,) = run_epochs(trials, request("a"))
    assert again == expected
    for epoch in (3, 2):
        shutil.rmtree(tmp_path / "trials" / "a" / f"checkpoint_{epoch:06d}", ignore_errors=True)
    assert trials.load(request("a", 2), state) == 2
    (again,) = run_epochs(trials, request("a", 2))
    assert again[METRIC] == expected[METRIC]


# -- population based training --------------------------------------------------------------------
PBT = replace(RUN, scheduler="pbt", searcher="random")


def settings(latent_dim: int, lr: float) -> dict[str, Any]:
    return {"model": {"latent_dim": latent_dim}, "optim": {"lr": lr}}


def copied_trial(dataset: SharedDataset, folder: Path) -> tuple[ResidentTrials, bytes]:
    """Train `good` for three epochs, and `bad`, of another structure, for two; return the state of
    `good`."""
    trials = make_trials(dataset, folder, PBT)
    for name, latent_dim, epochs in (("good", 5, 3), ("bad", 2, 2)):
        epoch = None
        for _ in range(epochs):
            asked = TrialRequest(name, settings(latent_dim, 1e-3), epoch)
            (report,) = run_epochs(trials, asked)
            epoch = report["epoch"]
    return trials, trials.save(TrialRequest("good", settings(5, 1e-3), 3))


def test_a_copied_state_brings_its_settings_and_all_that_led_to_it(
    dataset: SharedDataset, tmp_path: Path
) -> None:
    trials, state = copied_trial(dataset, tmp_path)
    # Tune's settings of `good` are older than its state: the weights decide about shapes.
    assert trials.copy(TrialRequest("bad", settings(3, 2e-3)), state) == 2
    (report,) = run_epochs(trials, TrialRequest("bad", settings(3, 2e-3), 2))
    assert report["epoch"] == 3 and report["config/optim.lr"] == 2e-3
    record = Journal(tmp_path / "trials" / "bad").record(3)
    assert record.context.schedule == (
        Segment(3, {"model.latent_dim": 5, "optim.lr": 1e-3}, "good"),
        Segment(1, {"model.latent_dim": 5, "optim.lr": 2e-3}, "bad"),
    )
    loaded = load_checkpoint(tmp_path / "trials" / "bad" / "checkpoint_000003")
    assert (loaded.model.config.latent_dim, loaded.optim.lr) == (5, 2e-3)


def test_a_trial_goes_on_with_the_settings_of_its_weights_whatever_tune_saved_last(
    dataset: SharedDataset, tmp_path: Path
) -> None:
    trials, state = copied_trial(dataset, tmp_path)
    trials.copy(TrialRequest("bad", settings(5, 2e-3)), state)
    (expected,) = run_epochs(trials, TrialRequest("bad", settings(5, 2e-3), 2))
    # The search was killed; Tune's newest snapshot is older than the copy.
    resumed = make_trials(dataset, tmp_path, PBT)
    (again,) = run_epochs(resumed, TrialRequest("bad", settings(2, 1e-3)))
    assert again == expected
    (report,) = run_epochs(resumed, TrialRequest("bad", settings(2, 1e-3), 3))
    assert report["epoch"] == 4 and report["config/optim.lr"] == 2e-3


def test_a_copy_that_tune_repeats_after_a_kill_is_not_made_twice(
    dataset: SharedDataset, tmp_path: Path
) -> None:
    trials, state = copied_trial(dataset, tmp_path)
    asked = TrialRequest("bad", settings(5, 2e-3))
    trials.copy(asked, state)
    (expected,) = run_epochs(trials, replace(asked, epoch=2))
    resumed = make_trials(dataset, tmp_path, PBT)
    assert resumed.copy(asked, state) is None
    (again,) = run_epochs(resumed, asked)
    assert again == expected
    # With other settings it is another copy.
    assert resumed.copy(TrialRequest("bad", settings(5, 5e-3)), state) == 3


@pytest.mark.parametrize("kept", [2, 0])
def test_a_trial_that_lost_checkpoints_repeats_its_schedule(
    kept: int, dataset: SharedDataset, tmp_path: Path
) -> None:
    trials, state = copied_trial(dataset, tmp_path)
    asked = TrialRequest("bad", settings(5, 2e-3))
    trials.copy(asked, state)
    for epoch in (2, 3, 4):
        run_epochs(trials, replace(asked, epoch=epoch))
    folder = tmp_path / "trials" / "bad"
    expected = {each.epoch: each for each in Journal(folder).records()}
    for path in folder.glob("checkpoint_*"):
        if int(path.name[-6:]) > kept:
            shutil.rmtree(path)
    Journal(folder).record_file(5).unlink()
    # Tune has saved neither the copy nor its settings.
    resumed = make_trials(dataset, tmp_path, PBT)
    old = TrialRequest("bad", settings(2, 1e-3))
    (report,) = run_epochs(resumed, old)
    assert report["epoch"] == 4
    (report,) = run_epochs(resumed, replace(old, epoch=4))
    assert report["epoch"] == 5
    assert Journal(folder).record(5).context == expected[5].context
    assert report[METRIC] == expected[5].metrics[METRIC]


def test_a_copy_is_kept_in_memory_until_an_epoch_has_saved_it(
    dataset: SharedDataset, tmp_path: Path
) -> None:
    trials, state = copied_trial(dataset, tmp_path)
    trials.capacity = 1
    trials.copy(TrialRequest("bad", settings(5, 2e-3)), state)
    for name in "abcd":
        run_epochs(trials, TrialRequest(name, settings(2, 1e-3)))
    run_epochs(trials, TrialRequest("bad", settings(5, 2e-3), 2))
    assert len(Journal(tmp_path / "trials" / "bad").record(3).context.schedule) == 2
    assert len(trials._trials) == 2


def test_a_trial_of_population_based_training_records_its_settings(
    dataset: SharedDataset, tmp_path: Path
) -> None:
    run = replace(RUN, scheduler="pbt", searcher="random")
    (report,) = run_epochs(make_trials(dataset, tmp_path, run), request("a", lr=0.25))
    assert report["config/optim.lr"] == 0.25
    (other,) = run_epochs(make_trials(dataset, tmp_path / "asha"), request("a", lr=0.25))
    assert not any(name.startswith("config/") for name in other)


def test_pictures_are_drawn_of_a_trial_that_is_the_best_so_far_at_an_epoch(
    dataset: SharedDataset, tmp_path: Path
) -> None:
    """Though another one has trained further."""
    trials = make_trials(dataset, tmp_path)
    for name, epochs, lr in (("first", 6, 1e-3), ("bad", 6, 1e-6), ("best", 5, 1e-2)):
        run_to(trials, name, epochs, lr=lr)
    drawn = {
        name: [r.epoch for r in Journal(tmp_path / "trials" / name).records() if r.pictures]
        for name in ("first", "bad", "best")
    }
    assert drawn == {"first": [1, 5, 6], "bad": [], "best": [1, 5]}


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
