"""Back out of MLflow: its runs, as rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from gen_models.core.errors import InputError
from pipelines.tracking.mlflow.connection import connect

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.store.entities import PagedList

T = TypeVar("T")
_PAGE = 1000


@dataclass(frozen=True)
class RunRow:
    """A run as MLflow knows it."""

    run_id: str
    name: str
    experiment: str
    kind: str
    search_id: str
    trial_id: str
    status: str
    """MLflow's: RUNNING, FINISHED, KILLED or FAILED."""
    outcome: str
    """Ours (`pipelines.store.journal.Ending`); empty while it runs."""
    epoch: int
    metrics: Mapping[str, float]
    """The latest value of each."""
    params: Mapping[str, str]
    tags: Mapping[str, str]
    start_time: datetime


def list_runs(
    uri: str, experiment: str | None = None, tags: Mapping[str, str] | None = None
) -> list[RunRow]:
    """The runs recorded at `uri`, newest first: of one experiment or all, with these tags.

    Raises `InputError` where there is no such experiment.
    """
    client = connect(uri)
    known = experiment_names(client)
    names = {key: name for key, name in known.items() if experiment in (None, name)}
    if experiment is not None and not names:
        raise InputError(
            f"experiment = {experiment!r}: expected one of {', '.join(sorted(known.values()))}"
        )
    condition = " and ".join(f"tags.`{k}` = {quoted(v)}" for k, v in (tags or {}).items())
    return [as_row(run, names) for run in search_runs(client, names, condition)]


def experiment_names(client: MlflowClient) -> dict[str, str]:
    """The experiments' names, by id."""
    found = _all(lambda token: client.search_experiments(max_results=_PAGE, page_token=token))
    return {experiment.experiment_id: experiment.name for experiment in found}


def search_runs(
    client: MlflowClient, experiments: Mapping[str, str], condition: str
) -> Iterator[Run]:
    """The runs of these experiments, by id, for which the condition holds."""
    return _all(
        lambda token: client.search_runs(
            list(experiments), condition, max_results=_PAGE, page_token=token
        )
    )


def quoted(text: str) -> str:
    """A string of MLflow's filter language, which has two quotes and no escape."""
    if "'" not in text:
        return f"'{text}'"
    if '"' not in text:
        return f'"{text}"'
    raise InputError(f"{text!r}: expected no more than one kind of quote")


def _all(page: Callable[[str | None], PagedList[T]]) -> Iterator[T]:
    """The items of all pages; `page(token)` gets one."""
    token = None
    while True:
        items = page(token)
        yield from items
        if not (token := items.token):
            return


def as_row(run: Run, names: Mapping[str, str]) -> RunRow:
    """A run as a row; `names`: the experiments', by id."""
    tags = run.data.tags
    return RunRow(
        run_id=run.info.run_id,
        name=run.info.run_name,
        experiment=names[run.info.experiment_id],
        kind=tags.get("kind", ""),
        search_id=tags.get("search_id", ""),
        trial_id=tags.get("trial_id", ""),
        status=run.info.status,
        outcome=tags.get("outcome", ""),
        epoch=int(run.data.metrics.get("epoch", 0)),
        metrics=dict(run.data.metrics),
        params=dict(run.data.params),
        tags=dict(tags),
        start_time=datetime.fromtimestamp(run.info.start_time / 1000).astimezone(),
    )
