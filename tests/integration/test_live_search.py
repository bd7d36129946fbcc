"""What MLflow shows of a search while it runs, after a kill, and when all is recorded anew."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from support.mlflow_runs import histories
from support.pipeline import SMALL, check_recorded, client, resume_search, search_killed_when

from pipelines.catalog.sync import sync
from pipelines.store.layout import RunFolder, Store

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.usefixtures("prepared_store")]
ARGS = (*SMALL, "--trials", "6", "--epochs", "6", "--searcher", "random", "--scheduler", "fifo")


def curve(store: Path) -> list[tuple[int, float]]:
    """Return the curve of the search that runs, as MLflow shows it: step and best value."""
    try:
        mlflow = client(store)
        ids = [experiment.experiment_id for experiment in mlflow.search_experiments()]
        running = mlflow.search_runs(ids, "tags.kind = 'search' and attributes.status = 'RUNNING'")
        points = [mlflow.get_metric_history(run.info.run_id, "best/curve") for run in running]
    except MlflowException:  # while its tables are made
        return []
    return [(point.step, point.value) for each in points for point in each]


def first_chart(names: Iterable[str]) -> str:
    """Return the metric of the first chart of MLflow's page: sections are sorted, and each has the
    metrics with one beginning before the last slash. That of names without one comes last."""

    def position(name: str) -> tuple[bool, str, str]:
        section, _, title = name.rpartition("/")
        return not section, section, title

    return min((name for name in names if not name.startswith("system/")), key=position)


def run_id(folder: RunFolder, uri: str) -> str:
    """Return the id that MLflow at a URI has given a run."""
    return str(folder.journal.delivered(uri)["run_id"])


def test_a_search_has_a_curve_while_it_runs_and_after_a_kill(
    tmp_path: Path, mlflow_database: Path
) -> None:
    store, log = tmp_path / "runs", tmp_path / "log"
    seen: list[tuple[int, float]] = []

    def is_shown() -> bool:
        seen[:] = curve(store)
        return bool(seen)

    folder = search_killed_when(is_shown, store, [*ARGS, "--fuse", "1"], log)
    result: dict[str, Any] = resume_search(store, folder.name, log)
    assert len(result["ranking"]) == 6
    check_recorded(store, result)
    uri = f"sqlite:///{store}/mlflow.db"
    points = histories(uri, result["run_id"])
    assert first_chart(points) == "best/curve"
    assert first_chart(histories(uri, result["champion"]["run_id"])) == "best/curve"
    assert [point[:2] for point in points["best/curve"]][: len(seen)] == seen

    shutil.copy(mlflow_database, tmp_path / "new.db")
    elsewhere = f"sqlite:///{tmp_path}/new.db"
    assert not sync(store=store, tracking_uri=elsewhere).failed
    assert histories(elsewhere, run_id(Store.at(store).search(folder.name), elsewhere)) == points
    for trial in Store.at(store).search(folder.name).trials():
        # An epoch that was trained again after the kill has another time, and another pace.
        before, after = (
            [p[:2] for p in histories(at, run_id(trial, at))["best/curve"]]
            for at in (uri, elsewhere)
        )
        assert before == after  # also of one that Tune had not saved, which was tried again
