"""Commands as tests run them, in this process or in one of their own, and what they record."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from gen_models.training.batches import TrainingImages
from pipelines.cli.main import main
from pipelines.cli.parsing import parse_run
from pipelines.config.run import Train
from pipelines.data import load
from pipelines.data.batches import as_batch
from pipelines.evaluation.feature_spaces import make_extractor
from pipelines.evaluation.validation import Evaluator
from pipelines.store.layout import Store
from pipelines.training.loop import make_learner

ROOT = Path(__file__).parents[2]

SMALL = ("--model.hidden", "32", "--batch-size", "256", "--precision", "fp32")
"""A VAE or an autoencoder of arch mlp that trains an epoch of the digits in milliseconds."""

Capture = pytest.CaptureFixture[str]


def refused(args: list[str], capsys: Capture) -> str:
    """Run a command that exits with 2; return its message, in one line."""
    try:
        code = main(args)
    except SystemExit as stop:  # tyro exits by itself
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    text = " ".join((captured.err + captured.out).replace("│", " ").split())
    assert code == 2, text
    assert "Traceback" not in text
    return text


def last_json(out: str) -> dict[str, Any]:
    """Return the result that a command with `--json` printed last."""
    result: dict[str, Any] = json.loads(out.splitlines()[-1])
    return result


def run_here(args: list[str], capsys: Capture, expect: int = 0) -> tuple[dict[str, Any], str]:
    """Run a command with `--json` in this process; return its result and its log."""
    code = main([*args, "--json"])
    out, log = capsys.readouterr()
    assert code == expect, log + out
    return last_json(out), log


def start(args: list[str], log: Path, **variables: str) -> "subprocess.Popen[str]":
    """Start a command in a process of its own, whose stderr goes to the file `log`."""
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines", *args],
        stdout=subprocess.PIPE,
        stderr=log.open("w"),
        text=True,
        cwd=ROOT,
        env=environment | variables,
    )


def run_process(args: list[str], log: Path, expect: int = 0) -> dict[str, Any]:
    """Run a command with `--json` in a process of its own; return its result."""
    process = start([*args, "--json"], log)
    out, _ = process.communicate(timeout=400)
    assert process.returncode == expect, log.read_text() + out
    result: dict[str, Any] = json.loads(out)  # and nothing else
    return result


def kill(process: "subprocess.Popen[str]") -> None:
    """Kill a command with SIGKILL, and Ray's agents, which outlive a driver."""
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(children, timeout=30)
    for child in alive:
        os.kill(child.pid, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=30)


def search_killed_when(
    condition: Callable[[], bool], store: Path, args: Sequence[str], log: Path
) -> Path:
    """Start a search, or resume one, with `search` and `args`, and kill every process of it once a
    condition holds. Return the folder of the search, the only one of its store."""
    process = start(["search", "vae", "--store", str(store), *args], log)
    wait_until(condition)
    kill(process)
    (folder,) = (store / "searches").iterdir()
    return folder


def resume_search(store: Path, search: str, log: Path, *args: str) -> dict[str, Any]:
    """Resume a search in a process of its own, to its end; return its result."""
    return run_process(["search", "vae", "--store", str(store), "--resume", search, *args], log)


def wait_until(condition: Callable[[], bool], seconds: float = 300.0) -> None:
    """Wait until a condition holds; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen within {seconds:.0f} s"
        time.sleep(0.1)


def recorded_epochs(store: Path, epoch: int) -> int:
    """Return how many trials of a store have recorded an epoch."""
    return len(list(store.glob(f"searches/*/trials/*/journal/reports/{epoch:06d}.json")))


def trial_metrics(store: Path) -> dict[str, list[dict[str, float]]]:
    """Return the metrics of every epoch of each trial but for its pace, by the trial's config."""
    pace, found = {"epoch_seconds", "images_per_second"}, {}
    for trial in store.glob("searches/*/trials/*"):
        config = json.loads((trial / "config.json").read_text())["config"]
        paths = sorted(trial.glob("journal/reports/*.json"))
        metrics = [json.loads(path.read_text())["metrics"] for path in paths]
        key = json.dumps([config["model"], config["optim"]], sort_keys=True)
        found[key] = [{k: v for k, v in each.items() if k not in pace} for each in metrics]
    return found


def client(store: Path) -> Any:
    """Return MLflow's client of a store's database."""
    from mlflow import MlflowClient  # light: takes seconds

    return MlflowClient(f"sqlite:///{store}/mlflow.db")


def steps(mlflow: Any, run_id: str, metric: str) -> list[int]:
    """Return the epochs at which MLflow holds a metric of a run, in their order."""
    return [point.step for point in mlflow.get_metric_history(run_id, metric)]


def check_recorded(store: Path, result: dict[str, Any]) -> None:
    """Check that each trial is one MLflow run below its search's, with each epoch once, and that
    its best checkpoint is there."""
    mlflow = client(store)
    ids = [trial["run_id"] for trial in result["ranking"]]
    assert len(set(ids)) == len(ids)
    for trial in result["ranking"]:
        run = mlflow.get_run(trial["run_id"])
        interrupted = trial["outcome"] == "interrupted"
        assert run.info.status == ("KILLED" if interrupted else "FINISHED")
        assert run.data.tags["mlflow.parentRunId"] == result["run_id"]
        epochs = steps(mlflow, trial["run_id"], result["metric"])
        assert epochs == list(range(1, trial["epochs"] + 1))
        assert Path(trial["checkpoint"], "model.json").is_file()
    check_curve(store, result)


def check_curve(store: Path, result: dict[str, Any]) -> None:
    """Check that the search has a curve in MLflow, of a step for each trial that ended: each step
    once, and no value worse than the one before. Its metric is one that should be small."""
    history = client(store).get_metric_history(result["run_id"], "best/curve")
    points = sorted((point.step, point.value) for point in history)
    ended = [trial for trial in result["ranking"] if trial["outcome"] != "interrupted"]
    assert [step for step, _ in points] == list(range(1, len(points) + 1))
    assert len(points) >= len(ended)
    values = [value for _, value in points]
    assert values == sorted(values, reverse=True)
    best = min(trial["value"] for trial in ended)
    assert values[-1] == pytest.approx(best, rel=1e-12)


def kept_epochs(run_folder: Path) -> set[int]:
    """Return the epochs whose checkpoint a run folder holds."""
    return {int(path.name.split("_")[1]) for path in run_folder.glob("checkpoint_[0-9]*")}


def check_kept(store: Path, trial: dict[str, Any], num: int) -> None:
    """Check that a trial that has ended keeps the checkpoints of its `num` best epochs and of its
    newest one. Its metric is one that should be small."""
    (folder,) = store.glob(f"searches/*/trials/{trial['trial_id']}")
    records = {
        int(path.stem): json.loads(path.read_text())["metrics"]
        for path in folder.glob("journal/reports/*.json")
        if int(path.stem) <= trial["epochs"]
    }
    metric = next(name for name in trial["values"])
    best = sorted(records, key=lambda epoch: (records[epoch][metric], epoch))[:num]
    assert kept_epochs(folder) == {*best, trial["epochs"]}


def check_champion(store: Path, result: dict[str, Any]) -> None:
    """Check that the champion's value is what its own command gives, alone and without Ray."""
    champion = result["champion"]
    run = client(store).get_run(champion["run_id"])
    alone = parse_run(Train, "train", run.data.tags["rerun"].split()[2:])
    assert alone and alone.precision == "fp32"
    values = train_alone(alone, store, champion["best_epoch"])
    assert champion["value"] == pytest.approx(values["val/nll/iw8"], rel=1e-4)


def train_alone(run: Train, store: Path, epoch: int | None = None) -> dict[str, float]:
    """Train a config with a learner alone, up to an epoch or to its end; return the validation
    metrics after it."""
    dataset = load(run.data, run.data_root)
    train, validation = as_batch(dataset.part("train")), as_batch(dataset.part("validation"))
    data = TrainingImages(train, run.batch_size, run.drop_last)
    learner = make_learner(run, data, dataset.num_classes)
    for each in range(1, (epoch or run.epochs) + 1):
        for batch, share in data.batches(run.seed, each):
            learner.step(batch, share)
    space = make_extractor(dataset, Store.at(store)).space(validation.images, dataset.num_classes)
    evaluator = Evaluator(train, validation, space)
    return evaluator.metrics([learner.model], [learner.sampling_networks()])[0]
