"""A run's checkpoint as MLflow's model: logged, registered, and perhaps the champion.

The model is exported to a folder before MLflow is told that there is one. So an export that fails
leaves no FAILED model behind, and is told from an outage: what is raised here is MLflow's, and
worth another try. A checkpoint is known by a digest of its files; what was logged of the same
digest is not logged again.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.utils.validation import MAX_METRICS_PER_BATCH

from pipelines.store.journal import Identity, Outcome
from pipelines.tracking.mlflow.checkpoints import CHECKPOINT, DIGEST, folder_digest
from pipelines.tracking.mlflow.connection import reason
from pipelines.tracking.mlflow.runs import KnownRun
from pipelines.tracking.queue import LoadSampler

CHAMPION = "champion"
_CLAIMED = "claimed"
"""The tag of a version that has claimed the alias, won or lost: it does not claim again."""
_EXAMPLE_SIZE = 2  # torch.export takes a batch of one for a constant
_log = logging.getLogger(__name__)


class CheckpointModel:
    """The checkpoint in a run's outcome, on its way to MLflow."""

    def __init__(
        self, client: MlflowClient, run: KnownRun, identity: Identity, outcome: Outcome
    ) -> None:
        self._client, self._run, self._run_id = client, run, run.run_id
        self._identity, self._outcome = identity, outcome
        self._folder = Path(outcome.checkpoint)
        self._digest = folder_digest(self._folder)

    def deliver(self, step: int, load_sampler: LoadSampler | None) -> dict[str, Any]:
        """Copy the checkpoint, log it as a model with the metrics of epoch `step`, register it.

        Returns `{"model_uri", "version", "is_champion"}`, as far as there are such. May be
        repeated. What can't be exported is no error here; the run's tag `model_error` tells.
        """
        self._copy()
        model = self._logged()
        if not model:
            with TemporaryDirectory() as above:
                folder = Path(above) / "model"
                try:
                    description = export(self._folder, folder, load_sampler)
                except Exception as error:
                    _log.warning("%s is not exported as a model: %s", self._folder, reason(error))
                    self._client.set_tag(self._run_id, "model_error", reason(error))
                    return {}
                self._log(folder, description)
            model = self._logged()
            assert model
        self._link(model.model_id, step)
        delivered: dict[str, Any] = {"model_uri": model.model_uri}
        if self._outcome.register:
            number = self._registered(model)
            delivered |= {"version": number, "is_champion": self._claim(number)}
        return delivered

    def _copy(self) -> None:
        """Make the folder itself an artifact, for our own code to rebuild the model from."""
        if self._client.get_run(self._run_id).data.tags.get(DIGEST) == self._digest:
            return
        self._client.log_artifacts(self._run_id, str(self._folder), CHECKPOINT)
        tags = [RunTag(CHECKPOINT, str(self._folder)), RunTag(DIGEST, self._digest)]
        self._client.log_batch(self._run_id, tags=tags)

    # -- the logged model ---------------------------------------------------------------------
    def _logged(self) -> LoggedModel | None:
        """The model logged of this checkpoint. Those begun and not finished are deleted, such as
        one of a request that MLflow's client repeated."""
        mine = f"source_run_id = '{self._run_id}'"
        found = None
        for model in self._client.search_logged_models([self._run.experiment_id], mine):
            if model.status != LoggedModelStatus.READY:
                self._client.delete_logged_model(model.model_id)
            elif model.tags.get(DIGEST) == self._digest:
                found = model
        return found

    def _log(self, folder: Path, description: Model) -> None:
        """Make the exported folder a model of the run."""
        model = self._client.create_logged_model(
            self._run.experiment_id,
            name=re.sub(r"[/:.%\"']", "-", self._identity.name),
            source_run_id=self._run_id,
            tags=self._tags(),
            params={key: str(value) for key, value in self._identity.params.items()},
            model_type=self._identity.tags.get("family"),
        )
        description.run_id, description.model_id = self._run_id, model.model_id
        description.model_uuid = model.model_id
        description.artifact_path = model.artifact_location
        description.save(str(folder / "MLmodel"))
        self._client.log_model_artifacts(model.model_id, str(folder))
        self._client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)

    def _link(self, model_id: str, step: int) -> None:
        """Show the epoch's metrics on the model's page, and the model on the run's."""
        run = self._client.get_run(self._run_id)
        outputs = run.outputs.model_outputs if run.outputs else []
        if any(output.model_id == model_id for output in outputs):
            return
        linked = [  # as MLflow has them: a point of another time would be another point
            Metric(point.key, point.value, point.timestamp, step, model_id=model_id)
            for key in run.data.metrics
            for point in self._client.get_metric_history(self._run_id, key)
            if point.step == step
        ]
        self._client.log_batch(self._run_id, metrics=linked[:MAX_METRICS_PER_BATCH])
        self._client.log_outputs(self._run_id, [LoggedModelOutput(model_id, step)])

    def _tags(self) -> dict[str, str]:
        tags = {
            **{key: str(value) for key, value in self._outcome.champion.items()},
            "data_digest": str(self._identity.dataset.get("digest", "")),
            "run_id": self._run_id,
            "search_id": self._identity.search_id,
            "trial_id": self._identity.trial_id,
            DIGEST: self._digest,
        }
        return {key: value for key, value in tags.items() if value}

    # -- the registry -------------------------------------------------------------------------
    def _registered(self, model: LoggedModel) -> str:
        """The number of the version that this model is, created if need be."""
        name = self._outcome.register
        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        if not self._versions():
            # A database registry looks at the global one.
            with _global_tracking_uri(self._client.tracking_uri):
                self._client.create_model_version(
                    name,
                    model.model_uri,
                    self._run_id,
                    tags=self._tags(),
                    description=self._description(),
                    await_creation_for=0,
                    model_id=model.model_id,
                )
        first, *repeated = self._versions()
        for number in repeated:
            self._client.delete_model_version(name, str(number))
        return str(first)

    def _versions(self) -> list[int]:
        """The versions that are this checkpoint of this run, in order."""
        mine = f"name = '{self._outcome.register}' and run_id = '{self._run_id}'"
        found = self._client.search_model_versions(mine)
        return sorted(int(v.version) for v in found if v.tags.get(DIGEST) == self._digest)

    def _description(self) -> str:
        claim = self._outcome.champion
        ranked = f": {claim['metric']} = {claim['value']} ({claim['mode']})" if claim else ""
        ranked += f", the mean of {claim['seeds']} seeds" if "seeds" in claim else ""
        return (
            f"{self._identity.name}{ranked}. Standard normal noise (N, noise_dim) -> images "
            "(N, C, H, W) in [0, 1]; of a class-conditional model (N, noise_dim + 1), the last "
            "column being the number of the class."
        )

    def _claim(self, number: str) -> bool:
        """Claim the alias, once; whether this version holds it."""
        name = self._outcome.register
        holder = champion(self._client, name)
        mine = self._client.get_model_version(name, number)
        if self._outcome.champion and _CLAIMED not in mine.tags:
            if holder is None or not _beats(holder.tags, mine.tags):
                self._client.set_registered_model_alias(name, CHAMPION, number)
                holder = mine
            self._client.set_model_version_tag(name, number, _CLAIMED, "true")
        return holder is not None and str(holder.version) == number


@contextmanager
def _global_tracking_uri(uri: str) -> Iterator[None]:
    """MLflow's global tracking URI, which it keeps in the environment too, for a while: what this
    process is told next must not be decided by where it recorded last."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]  # None: as if never set


def champion(client: MlflowClient, name: str) -> ModelVersion | None:
    """The version that holds the alias `champion`."""
    held = client.get_registered_model(name).aliases.get(CHAMPION)
    return client.get_model_version(name, str(held)) if held else None


def export(checkpoint: Path, folder: Path, load_sampler: LoadSampler | None) -> Model:
    """Write the checkpoint's sampler into `folder` as a model of MLflow's pytorch flavor."""
    import mlflow.pytorch
    import numpy as np

    module, in_features = (load_sampler or _load_sampler())(checkpoint)
    description = Model()
    mlflow.pytorch.save_model(
        module,
        str(folder),
        mlflow_model=description,
        input_example=np.zeros((_EXAMPLE_SIZE, in_features), np.float32),
        pip_requirements=[f"{name}=={_public(name)}" for name in ("mlflow", "torch", "numpy")],
        serialization_format="pt2",
    )
    return description


def _load_sampler() -> LoadSampler:
    from gen_models.core.checkpoint import load_sampler

    return load_sampler


def _public(package: str) -> str:
    """The version as package indexes know it: without `+cu130`."""
    return version(package).split("+")[0]


def _beats(holder: Mapping[str, str], claimant: Mapping[str, str]) -> bool:
    """Whether the holder, ranked in the same way on the same data, is strictly better. A mean
    over seeds is better than a single value, which may be luck."""
    if any(holder.get(key) != claimant.get(key) for key in ("metric", "mode", "data_digest")):
        return False
    if ("seeds" in holder) != ("seeds" in claimant):
        return "seeds" in holder
    held, claimed = float(holder["value"]), float(claimant["value"])
    return held > claimed if claimant["mode"] == "max" else held < claimed
