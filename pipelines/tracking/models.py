"""A run's checkpoint as MLflow's model: logged, registered, and perhaps the champion.

The model is exported to a folder before MLflow is told that there is one, so an export that
fails leaves no FAILED model behind, and an outage finds the export's errors already sorted out:
what is raised here is MLflow's and worth another try. A checkpoint is known by a digest of its
files; what was logged of the same digest is not logged again.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow.pytorch
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from pipelines.journal import Identity, Outcome
from pipelines.tracking.store import reason
from pipelines.tracking.tracker import LoadSampler

CHAMPION = "champion"
CHECKPOINT = "checkpoint"
"""The artifact folder that holds the checkpoint itself, for our own code to rebuild the model."""
DIGEST = "checkpoint_digest"

_LOGGED = "logged_model"
_CLAIMED = "claimed"
_EXAMPLE_SIZE = 2  # torch.export takes a batch of one for a constant
_log = logging.getLogger(__name__)


def deliver_model(
    client: MlflowClient,
    run_id: str,
    identity: Identity,
    outcome: Outcome,
    step: int,
    metrics: list[Metric],
    load_sampler: LoadSampler | None,
) -> dict[str, Any]:
    """Log the outcome's checkpoint with the `metrics` of epoch `step`, and register it.

    Returns `{"model_uri", "version", "is_champion"}`, as far as there are such. May be repeated.
    A checkpoint that cannot be exported is told in the run's tag `model_error`.
    """
    folder = Path(outcome.checkpoint)
    digest = folder_digest(folder)
    tags = client.get_run(run_id).data.tags
    if tags.get(DIGEST) != digest:
        client.log_artifacts(run_id, str(folder), CHECKPOINT)
        client.log_batch(run_id, tags=[RunTag(CHECKPOINT, str(folder)), RunTag(DIGEST, digest)])
    model = _logged(client, run_id, digest)
    if not model:
        with TemporaryDirectory() as exported:
            try:
                description = _export(folder, Path(exported) / "model", load_sampler)
            except Exception as error:
                _log.warning("%s could not be exported as a model: %s", folder, reason(error))
                client.set_tag(run_id, "model_error", reason(error))
                return {}
            model = _log_model(
                client, run_id, identity, outcome, digest, description, Path(exported) / "model"
            )
    _link(client, run_id, model.model_id, step, metrics)
    delivered: dict[str, Any] = {"model_uri": model.model_uri}
    if outcome.register:
        number = _registered(client, run_id, identity, outcome, model, digest)
        delivered |= {"version": number, "is_champion": _claimed(client, outcome, number)}
    return delivered


def folder_digest(folder: Path) -> str:
    """Of the names and contents of a folder's files."""
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        whole.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return whole.hexdigest()[:16]


# -- the logged model -------------------------------------------------------------------------
def _logged(client: MlflowClient, run_id: str, digest: str) -> LoggedModel | None:
    """The model logged of this checkpoint; models that were begun and not finished are deleted."""
    experiment_id = client.get_run(run_id).info.experiment_id
    found = None
    for model in client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'"):
        if model.status != LoggedModelStatus.READY:
            client.delete_logged_model(model.model_id)
        elif model.tags.get(DIGEST) == digest:
            found = model
    return found


def _export(checkpoint: Path, folder: Path, load_sampler: LoadSampler | None) -> Model:
    """Write the checkpoint's sampler as MLflow's model files."""
    import numpy as np

    if load_sampler is None:
        from gen_models.core.checkpoint import load_sampler
    module, noise_dim = load_sampler(checkpoint)
    description = Model()
    mlflow.pytorch.save_model(
        module,
        str(folder),
        mlflow_model=description,
        input_example=np.zeros((_EXAMPLE_SIZE, noise_dim), np.float32),
        pip_requirements=[f"{name}=={_public(name)}" for name in ("mlflow", "torch", "numpy")],
        serialization_format="pt2",
    )
    return description


def _public(package: str) -> str:
    """The version as package indexes know it: without `+cu130`."""
    return version(package).split("+")[0]


def _log_model(
    client: MlflowClient,
    run_id: str,
    identity: Identity,
    outcome: Outcome,
    digest: str,
    description: Model,
    folder: Path,
) -> LoggedModel:
    """Make the exported folder a model of the run."""
    told = {**_version_tags(run_id, identity, outcome), DIGEST: digest}
    model = client.create_logged_model(
        client.get_run(run_id).info.experiment_id,
        name=re.sub(r"[/:.%\"']", "-", identity.name),
        source_run_id=run_id,
        tags=told,
        params={key: str(value) for key, value in identity.params.items()},
        model_type=identity.tags.get("family"),
    )
    description.run_id, description.model_id = run_id, model.model_id
    description.model_uuid, description.artifact_path = model.model_id, model.artifact_location
    description.save(str(folder / "MLmodel"))
    client.log_model_artifacts(model.model_id, str(folder))
    return client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def _link(
    client: MlflowClient, run_id: str, model_id: str, step: int, metrics: list[Metric]
) -> None:
    """Show the model on the run's page, and the metrics on the model's."""
    outputs = client.get_run(run_id).outputs
    if not any(known.model_id == model_id for known in (outputs.model_outputs if outputs else [])):
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step)])
    linked = [Metric(m.key, m.value, m.timestamp, m.step, model_id=model_id) for m in metrics]
    client.log_batch(
        run_id, metrics=linked[:999], tags=[RunTag(_LOGGED, model_id)]
    )  # a batch holds 1000 things


# -- the registry -----------------------------------------------------------------------------
def _registered(
    client: MlflowClient,
    run_id: str,
    identity: Identity,
    outcome: Outcome,
    model: LoggedModel,
    digest: str,
) -> str:
    """The number of the version that this model is, created if need be."""
    name = outcome.register
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    for known in client.search_model_versions(f"name = '{name}'"):
        if known.source == model.model_uri:
            return str(known.version)
    made = client.create_model_version(
        name,
        model.model_uri,
        run_id,
        tags={**_version_tags(run_id, identity, outcome), DIGEST: digest},
        description=_description(identity, outcome),
        await_creation_for=0,
        model_id=model.model_id,
    )
    return str(made.version)


def _version_tags(run_id: str, identity: Identity, outcome: Outcome) -> dict[str, str]:
    tags = {
        **{key: str(value) for key, value in outcome.champion.items()},
        "data_digest": str(identity.dataset.get("digest", "")),
        "run_id": run_id,
        "search_id": identity.search_id,
        "trial_id": identity.trial_id,
    }
    return {key: value for key, value in tags.items() if value}


def _description(identity: Identity, outcome: Outcome) -> str:
    claim = outcome.champion
    ranked = f": {claim['metric']} = {claim['value']} ({claim['mode']})" if claim else ""
    return f"{identity.name}{ranked}. Standard normal noise (N, noise_dim) -> images in [0, 1]."


# -- the champion -----------------------------------------------------------------------------
def _claimed(client: MlflowClient, outcome: Outcome, number: str) -> bool:
    """Whether this version holds the alias, after it has claimed it for once."""
    name, holder = outcome.register, champion_of(client, outcome.register)
    mine = client.get_model_version(name, number)
    if outcome.champion and _CLAIMED not in mine.tags:
        if holder is None or not _beats(holder.tags, mine.tags):
            client.set_registered_model_alias(name, CHAMPION, number)
            holder = mine
        client.set_model_version_tag(name, number, _CLAIMED, "true")
    return holder is not None and str(holder.version) == number


def champion_of(client: MlflowClient, name: str) -> ModelVersion | None:
    """The version that holds the alias `champion`."""
    held = client.get_registered_model(name).aliases.get(CHAMPION)
    return client.get_model_version(name, held) if held else None


def _beats(holder: Mapping[str, str], claimant: Mapping[str, str]) -> bool:
    """Whether the holder, ranked in the same way on the same data, is strictly better."""
    if any(holder.get(key) != claimant.get(key) for key in ("metric", "mode", "data_digest")):
        return False
    held, claimed = float(holder["value"]), float(claimant["value"])
    return held > claimed if claimant["mode"] == "max" else held < claimed
