"""A model's checkpoint, wherever it is: on this machine's disk, else out of MLflow."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gen_models.core.errors import InputError
from pipelines.tracking.mlflow.connection import connect, without_password
from pipelines.tracking.mlflow.reader import RunRow, as_row, experiment_names, quoted, search_runs

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

CHECKPOINT = "checkpoint"
"""The tag with the folder's path, and the artifact folder that is a copy of it."""
DIGEST = "checkpoint_digest"
"""The tag, of a run and of a registered version, that tells one checkpoint from another."""
_NAMES = "a run's id or name, or a registered model"


def resolve_checkpoint(uri: str, model: str, into: Path) -> Path:
    """The checkpoint folder that `model` stands for, fetched under `into` if it is not here.

    `model` is a checkpoint folder, a run's id or name, `models:/NAME/VERSION`,
    `models:/NAME@ALIAS` or `NAME@ALIAS`. Raises `InputError` where nothing or more than one
    thing is meant.
    """
    if (Path(model) / "model.json").is_file():
        return Path(model)
    client = connect(uri)
    with _unknown_is_wrong(client, uri, "model", model, f"a checkpoint folder, {_NAMES}"):
        run, digest = _meant(client, model)
        return _checkpoint(client, run, digest, into)


def resolve_run(uri: str, model: str) -> RunRow:
    """The run that `model` stands for, as in `resolve_checkpoint`, but for a folder.

    Raises `InputError` where nothing or more than one run is meant.
    """
    client = connect(uri)
    with _unknown_is_wrong(client, uri, "run", model, _NAMES):
        run, _ = _meant(client, model)
    return as_row(run, experiment_names(client))


def folder_digest(folder: Path) -> str:
    """Of the names and contents of a folder's files."""
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        whole.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return whole.hexdigest()[:16]


def _meant(client: MlflowClient, model: str) -> tuple[Run, str]:
    """The run; for a registered version also the digest, for the run may have gone on since."""
    if named := re.fullmatch(r"(?:models:/)?([^/@]+)@([^/@]+)", model):
        held = client.get_model_version_by_alias(named[1], named[2])
    elif named := re.fullmatch(r"models:/([^/@]+)/(\d+)", model):
        held = client.get_model_version(named[1], named[2])
    else:
        return _named(client, model), ""
    if not held.run_id:
        raise LookupError(model)
    return client.get_run(held.run_id), held.tags.get(DIGEST, "")


def _named(client: MlflowClient, model: str) -> Run:
    """The run of this id or name."""
    if re.fullmatch(r"[0-9a-f]{32}", model):
        return client.get_run(model)
    condition = f"attributes.run_name = {quoted(model)}"
    found = list(search_runs(client, experiment_names(client), condition))
    if len(found) > 1:
        ids = ", ".join(run.info.run_id for run in found)
        raise InputError(f"model = {model!r}: expected one run; give an id of {ids}")
    if not found:
        raise LookupError(model)
    return found[0]


def _checkpoint(client: MlflowClient, run: Run, digest: str, into: Path) -> Path:
    """The run's checkpoint, of this digest if one is given: here, else fetched."""
    here = Path(run.data.tags.get(CHECKPOINT, ""))
    if (here / "model.json").is_file() and (not digest or folder_digest(here) == digest):
        return here
    run_id, name = run.info.run_id, run.info.run_name
    if not any(file.path == CHECKPOINT for file in client.list_artifacts(run_id)):
        raise InputError(f"run {name} ({run_id}) has no checkpoint, neither here nor in MLflow")
    (into / run_id).mkdir(parents=True, exist_ok=True)
    fetched = Path(client.download_artifacts(run_id, CHECKPOINT, str(into / run_id)))
    if digest and folder_digest(fetched) != digest:
        raise InputError(
            f"run {name} ({run_id}) has gone on since, and the checkpoint that is meant is no "
            "longer kept"
        )
    return fetched


@contextmanager
def _unknown_is_wrong(
    client: MlflowClient, uri: str, field: str, value: str, expected: str
) -> Iterator[None]:
    """Where MLflow knows nothing of that name, say what there is."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, LookupError) as error:
        code = getattr(error, "error_code", "RESOURCE_DOES_NOT_EXIST")
        if code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            raise
        known = [f"models:/{m.name}" for m in client.search_registered_models(max_results=20)]
        raise InputError(
            f"{field} = {value!r}: expected {expected}; registered at {without_password(uri)}: "
            f"{', '.join(known) or 'nothing'}"
        ) from error
