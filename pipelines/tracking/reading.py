"""Back out of MLflow: runs as rows, and a model's checkpoint wherever it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gen_models.core.errors import InputError
from pipelines.tracking.store import connect, without_password

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
    """Ours (`pipelines.journal.Ending`); empty while it runs."""
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
    names = _experiments(client)
    if experiment is not None:
        names = {key: name for key, name in names.items() if name == experiment}
        if not names:
            raise InputError(
                f"experiment = {experiment!r}: expected one of "
                f"{', '.join(sorted(_experiments(client).values())) or 'none: nothing is recorded'}"
            )
    condition = " and ".join(f"tags.`{k}` = {_quoted(v)}" for k, v in (tags or {}).items())
    return [_row(run, names[run.info.experiment_id]) for run in _runs(client, names, condition)]


def resolve_checkpoint(uri: str, model: str, into: Path) -> Path:
    """The checkpoint folder that `model` stands for, fetched under `into` if it is not here.

    `model` is a checkpoint folder, a run's id or name, `models:/NAME/VERSION`,
    `models:/NAME@ALIAS` or `NAME@ALIAS`. Raises `InputError` where nothing or more than one
    thing is meant.
    """
    from mlflow.exceptions import MlflowException

    if (Path(model) / "model.json").is_file():
        return Path(model)
    client = connect(uri)
    try:
        run, digest = _meant(client, model)
        return _checkpoint(client, run, digest, into)
    except MlflowException as error:
        if error.error_code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            raise
        raise _unknown(client, uri, model) from error
    except LookupError as error:
        raise _unknown(client, uri, model) from error


# -- runs -------------------------------------------------------------------------------------
def _experiments(client: MlflowClient) -> dict[str, str]:
    """Their names, by id."""
    pages = _all(lambda token: client.search_experiments(max_results=_PAGE, page_token=token))
    return {found.experiment_id: found.name for found in pages}


def _runs(client: MlflowClient, experiments: Mapping[str, str], condition: str) -> Iterator[Run]:
    return _all(
        lambda token: client.search_runs(
            list(experiments), condition, max_results=_PAGE, page_token=token
        )
    )


def _all(page: Callable[[str | None], PagedList[T]]) -> Iterator[T]:
    """The items of all pages; `page(token)` gets one."""
    token = None
    while True:
        items = page(token)
        yield from items
        if not (token := items.token):
            return


def _row(run: Run, experiment: str) -> RunRow:
    tags = run.data.tags
    return RunRow(
        run_id=run.info.run_id,
        name=run.info.run_name,
        experiment=experiment,
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


def _quoted(text: str) -> str:
    """A string of MLflow's filter language, which has two quotes and no escape."""
    if "'" not in text:
        return f"'{text}'"
    if '"' not in text:
        return f'"{text}"'
    raise InputError(f"{text!r}: expected no more than one kind of quote")


# -- checkpoints ------------------------------------------------------------------------------
def _meant(client: MlflowClient, model: str) -> tuple[Run, str]:
    """The run, and the digest of the checkpoint that is wanted of it, if that is known."""
    if named := re.fullmatch(r"(?:models:/)?([^/@]+)@([^/@]+)", model):
        held = client.get_model_version_by_alias(*named.groups())
    elif named := re.fullmatch(r"models:/([^/@]+)/(\d+)", model):
        held = client.get_model_version(*named.groups())
    else:
        run = _named(client, model)
        return run, run.data.tags.get("checkpoint_digest", "")
    if not held.run_id:
        raise LookupError(model)
    return client.get_run(held.run_id), held.tags.get("checkpoint_digest", "")


def _named(client: MlflowClient, model: str) -> Run:
    """The run of this id or name."""
    if re.fullmatch(r"[0-9a-f]{32}", model):
        return client.get_run(model)
    condition = f"attributes.run_name = {_quoted(model)}"
    found = list(_runs(client, _experiments(client), condition))
    if len(found) > 1:
        ids = ", ".join(run.info.run_id for run in found)
        raise InputError(f"model = {model!r}: expected one run; give an id of {ids}")
    if not found:
        raise LookupError(model)
    return found[0]


def _checkpoint(client: MlflowClient, run: Run, digest: str, into: Path) -> Path:
    """The run's checkpoint of this digest: here, else fetched."""
    here = Path(run.data.tags.get("checkpoint", ""))
    if (here / "model.json").is_file() and _is(here, digest):
        return here
    run_id = run.info.run_id
    if not any(file.path == "checkpoint" for file in client.list_artifacts(run_id)):
        raise InputError(f"run {run.info.run_name} ({run_id}) has no checkpoint in MLflow or here")
    (into / run_id).mkdir(parents=True, exist_ok=True)
    fetched = Path(client.download_artifacts(run_id, "checkpoint", str(into / run_id)))
    if not _is(fetched, digest):
        raise InputError(
            f"run {run.info.run_name} ({run_id}) has gone on since: the checkpoint that is meant "
            "is no longer kept"
        )
    return fetched


def _is(folder: Path, digest: str) -> bool:
    from pipelines.tracking.models import folder_digest

    return not digest or folder_digest(folder) == digest


def _unknown(client: MlflowClient, uri: str, model: str) -> InputError:
    known = [f"models:/{m.name}" for m in client.search_registered_models(max_results=20)]
    return InputError(
        f"model = {model!r}: expected a checkpoint folder, a run's id or name, or a registered "
        f"model; registered at {without_password(uri)}: {', '.join(known) or 'nothing'}"
    )
