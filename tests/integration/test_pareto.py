"""A search with several objectives, from its trials to its page and its MLflow run."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from support.pipeline import Capture, client, last_json

from pipelines.cli.main import main
from pipelines.cli.parsing import parse_run
from pipelines.config.search import Search
from pipelines.store.journal import Journal

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prepared_store")]

ERROR, FD = "val/squared_error", "val/fd/lenet-digits/2k"


def test_a_search_for_a_front(tmp_path: Path, capsys: Capture) -> None:
    # Nobody wants a large distance, but so the two contradict each other.
    metrics = ["--metric", ERROR, "--metric", "val/fd", "--mode=min", "--mode=max"]
    size = ["--trials", "6", "--epochs", "2", "--model.hidden", "32"]
    args = ["search", "autoencoder", "--store", str(tmp_path), *metrics, *size]
    code = main([*args, "--json"])
    out, log = capsys.readouterr()
    assert code == 0, log
    result = last_json(out)
    check_front(result)
    check_recorded(tmp_path, result)
    (report,) = tmp_path.glob("searches/*/report.html")
    text = report.read_text()
    assert "Pareto front" in text and text.count("<img ") >= 4

    # Its command means the same objectives, and so does resuming it.
    rerun = shlex.split(client(tmp_path).get_run(result["run_id"]).data.tags["rerun"])
    again = parse_run(Search, "search", rerun[2:])
    assert again and [(o.metric, o.mode) for o in again.objectives] == [
        (ERROR, "min"),
        (FD, "max"),
    ]
    assert main([*args[:4], "--resume", result["search_id"], "--json"]) == 0
    assert last_json(capsys.readouterr().out) == result


def check_front(result: dict[str, Any]) -> None:
    """Check that the front is what brute force finds, and that values are of the best epoch."""
    assert result["objectives"] == [
        {"metric": ERROR, "mode": "min"},
        {"metric": FD, "mode": "max"},
    ]
    costs = {t["trial_id"]: (t["values"][ERROR], -t["values"][FD]) for t in result["ranking"]}
    front = [trial["trial_id"] for trial in result["pareto"]]
    assert len(costs) == 6 and len(front) > 1
    expected = [
        name
        for name, (error, fd) in costs.items()
        if not any(e <= error and f <= fd and (e, f) != (error, fd) for e, f in costs.values())
    ]
    assert front == sorted(expected, key=costs.__getitem__)
    assert result["champion"]["trial_id"] == front[0]
    for trial in result["ranking"]:
        assert trial["values"][ERROR] == trial["value"]
        records = Journal(Path(trial["checkpoint"]).parent).records()
        best = min(records, key=lambda record: record.metrics[ERROR])
        assert {metric: best.metrics[metric] for metric in (ERROR, FD)} == trial["values"]
        assert trial["outcome"] == "completed"  # by default nothing stops them


def check_recorded(store: Path, result: dict[str, Any]) -> None:
    """Check what MLflow holds of the front."""
    mlflow = client(store)
    search = mlflow.get_run(result["run_id"])
    assert search.data.tags["objectives"] == f"{ERROR} (min), {FD} (max)"
    assert search.data.params["scheduler"] == "fifo"
    tagged = mlflow.search_runs([search.info.experiment_id], "tags.pareto_front = 'true'")
    assert {run.info.run_id for run in tagged} == {trial["run_id"] for trial in result["pareto"]}
