"""Logs a run's checkpoint as an MLflow model, registers it, and claims the alias `champion`.

The model is exported to a folder before MLflow hears of it. So an export that fails leaves no
FAILED model behind and is told apart from an outage: what is raised here comes from MLflow, and
another attempt may succeed. A checkpoint is known by a digest of its files; one that was logged is
not logged again.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import (
    LoggedModel,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Run,
    RunTag,
)
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS
from mlflow.utils.validation import MAX_METRICS_PER_BATCH
from torch import nn

from gen_models.core import checkpoint as checkpoints
from pipelines.analysis.champion import Claim
from pipelines.analysis.comparability import KEY, comparison_key, short
from pipelines.store.journal import Outcome, RunInfo
from pipelines.tracking.mlflow.runs import (
    CHECKPOINT,
    DIGEST,
    KnownRun,
    folder_digest,
    split_params,
)
from pipelines.tracking.queue import reason

LoadSampler = Callable[[Path], tuple[nn.Module, int]]
"""Checkpoint folder -> a module from noise (N, F) to images, and F."""

CHAMPION = "champion"
_ERROR = "model_error"
"""Tag of a run whose checkpoint could not be exported, with the reason."""
_CLAIMED = "claimed"
"""Tag of a version that has claimed the alias, with or without success: it claims only once."""
_EXAMPLE_SIZE = 2  # torch.export takes a batch of one for a constant
_log = logging.getLogger(__name__)


class CheckpointModel:
    """Delivers the checkpoint that a run's outcome names."""

    def __init__(
        self,
        client: MlflowClient,
        run: KnownRun,
        info: RunInfo,
        outcome: Outcome,
        run_folder: Path,
    ) -> None:
        self._client, self._run, self._run_id = client, run, run.run_id
        self._info, self._outcome = info, outcome
        self._folder = run_folder / outcome.checkpoint
        self._digest = folder_digest(self._folder)

    def deliver(
        self, step: int, load_sampler: LoadSampler | None, claiming: AbstractContextManager[None]
    ) -> dict[str, Any]:
        """Copy the checkpoint, log it as a model with the metrics of epoch `step`, register it.

        `claiming`: held while the alias is claimed, because MLflow cannot compare and set it.

        Returns `{"model_uri", "version", "is_champion", "alias"}`, as far as there are such; of a
        model that cannot be exported `{"model_error": reason}`, which the run has as a tag too.
        May be repeated.
        """
        self._copy()
        model = self._logged()
        if not model:
            with TemporaryDirectory() as above:
                folder = Path(above) / "model"
                try:
                    description = export(self._folder, folder, load_sampler)
                except Exception as error:
                    _log.warning(
                        "%s: the export as a model failed: %s", self._folder, reason(error)
                    )
                    self._client.set_tag(self._run_id, _ERROR, reason(error))
                    return {"model_error": reason(error)}
                self._log(folder, description)
            model = self._logged()
            assert model
            if _ERROR in self._client.get_run(self._run_id).data.tags:
                self._client.delete_tag(self._run_id, _ERROR)
        self._link(model.model_id, step)
        delivered: dict[str, Any] = {"model_uri": model.model_uri}
        if self._outcome.register:
            number = self._registered(model)
            self._show_version(model, number)
            with claiming:
                alias = self._claim(number)
            delivered |= {"version": number, "is_champion": bool(alias)}
            delivered |= {"alias": alias} if alias else {}
        return delivered

    def _copy(self) -> None:
        """Upload the checkpoint folder, from which genpipe can rebuild the model."""
        if self._client.get_run(self._run_id).data.tags.get(DIGEST) == self._digest:
            return
        self._client.log_artifacts(self._run_id, str(self._folder), CHECKPOINT)
        tags = [RunTag(CHECKPOINT, self._folder.name), RunTag(DIGEST, self._digest)]
        self._client.log_batch(self._run_id, tags=tags)

    # -- the logged model ---------------------------------------------------------------------
    def _logged(self) -> LoggedModel | None:
        """Return the model that was logged of this checkpoint, or None. Unfinished ones are
        deleted, such as that of a request which MLflow's client repeated."""
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
            name=re.sub(r"[/:.%\"']", "-", self._info.name),
            source_run_id=self._run_id,
            tags=self._tags(),
            params=split_params(self._info)[0],
            model_type=self._info.tags.get("family"),
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
            "data_digest": str(self._info.dataset.get("digest", "")),
            KEY: self._key(),
            "run_id": self._run_id,
            "search_id": self._info.search_id,
            "trial_id": self._info.trial_id,
            DIGEST: self._digest,
        }
        return {key: value for key, value in tags.items() if value}

    def _key(self) -> str:
        """Return the comparison key of the value that the model claims with."""
        metric = str(self._outcome.champion.get("metric", ""))
        tags = {"data_digest": str(self._info.dataset.get("digest", "")), **self._info.tags}
        return comparison_key(self._info.params, tags, metric) if metric else ""

    # -- the registry -------------------------------------------------------------------------
    def _registered(self, model: LoggedModel) -> str:
        """Return the number of the model's version; register it if need be."""
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

    def _show_version(self, model: LoggedModel, number: str) -> None:
        """Set the tag by which MLflow's pages know that a logged model is registered."""
        version = {"name": self._outcome.register, "version": number}
        known = json.dumps([version])
        if model.tags.get(MLFLOW_MODEL_VERSIONS) != known:
            self._client.set_logged_model_tags(model.model_id, {MLFLOW_MODEL_VERSIONS: known})

    def _versions(self) -> list[int]:
        """Return the numbers of the versions of this checkpoint of this run, ascending."""
        mine = f"name = '{self._outcome.register}' and run_id = '{self._run_id}'"
        found = self._client.search_model_versions(mine)
        return sorted(int(v.version) for v in found if v.tags.get(DIGEST) == self._digest)

    def _description(self) -> str:
        claim = self._outcome.champion
        ranked = f": {claim['metric']} = {claim['value']} ({claim['mode']})" if claim else ""
        ranked += f", the mean of {claim['seeds']} seeds" if "seeds" in claim else ""
        return (
            f"{self._info.name}{ranked}. Standard normal noise (N, noise_dim) -> images "
            "(N, C, H, W) in [0, 1]; of a class-conditional model (N, noise_dim + 1), the last "
            "column being the number of the class."
        )

    def _claim(self, number: str) -> str:
        """Claim the aliases, once; return the one by which this version is known: `champion`, or
        that of its comparison key, or "" if it holds neither."""
        name = self._outcome.register
        mine = self._client.get_model_version(name, number)
        claim = Claim.from_tags(mine.tags)
        of_key = f"{CHAMPION}-{short(claim.comparable)}" if claim and claim.comparable else ""
        if claim and self._outcome.champion and _CLAIMED not in mine.tags:
            general = self._claim_of(self._holder(CHAMPION))
            own = self._claim_of(self._holder(of_key)) if of_key else None
            if own is None and general and claim.is_comparable(general):
                own = general  # an older version gave no alias of its own to a key
            if claim.takes_alias_from(own):
                for alias, free in ((of_key, True), (CHAMPION, claim.takes_alias_from(general))):
                    if alias and free:
                        self._client.set_registered_model_alias(name, alias, number)
            self._client.set_model_version_tag(name, number, _CLAIMED, "true")
        held = (alias for alias in (CHAMPION, of_key) if alias and self._holds(alias, number))
        return next(held, "")

    def _holder(self, alias: str) -> ModelVersion | None:
        return holder(self._client, self._outcome.register, alias)

    def _holds(self, alias: str, number: str) -> bool:
        version = self._holder(alias)
        return version is not None and str(version.version) == number

    def _claim_of(self, version: ModelVersion | None) -> Claim | None:
        """Return what a version claimed with. The key of one that an older version registered
        follows from its run."""
        claim = Claim.from_tags(version.tags) if version else None
        if claim is None or claim.comparable or not (version and version.run_id):
            return claim
        try:
            run = self._client.get_run(version.run_id).data
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return claim
        key = comparison_key(run.params, run.tags, claim.objective.metric)
        return replace(claim, comparable=key)


@contextmanager
def _global_tracking_uri(uri: str) -> Iterator[None]:
    """Set MLflow's global tracking URI, which MLflow also puts into the environment, for the
    block: where this process recorded last must not decide where it records next."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]  # None: as if never set


def logged_model(client: MlflowClient, run: Run) -> LoggedModel | None:
    """Return the model that was logged of a run's checkpoint; None if there is none."""
    mine = f"source_run_id = '{run.info.run_id}'"
    found = client.search_logged_models([run.info.experiment_id], mine)
    digest = run.data.tags.get(DIGEST)
    ready = [model for model in found if model.status == LoggedModelStatus.READY]
    return next((model for model in ready if model.tags.get(DIGEST) == digest), None)


def holder(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """Return the version that holds an alias, or None."""
    held = client.get_registered_model(name).aliases.get(alias)
    return client.get_model_version(name, str(held)) if held else None


def export(checkpoint: Path, folder: Path, load_sampler: LoadSampler | None) -> Model:
    """Write the checkpoint's sampler into `folder` as a model of MLflow's pytorch flavor."""
    import mlflow.pytorch  # light: an export alone needs it
    import numpy as np  # light: an export alone needs it

    module, in_features = (load_sampler or checkpoints.load_sampler)(checkpoint)
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


def _public(package: str) -> str:
    """Return a package's version as indexes know it, without a local part such as `+cu130`."""
    return version(package).split("+")[0]
