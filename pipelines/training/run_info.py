"""The `RunInfo` of a run: its parameters, its provenance and its data set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from pipelines.analysis.comparability import KEY, comparison_key
from pipelines.config.command import rerun_command
from pipelines.config.objectives import describe
from pipelines.config.run import Run
from pipelines.config.search import Search
from pipelines.config.serialization import result_settings
from pipelines.data.dataset import Dataset
from pipelines.evaluation.feature_spaces import space_name
from pipelines.store.journal import RunInfo, RunKind
from pipelines.tracking.provenance import provenance


def run_info(
    run: Run,
    dataset: Dataset,
    *,
    kind: RunKind,
    name: str,
    experiment: str,
    search_id: str = "",
    trial_id: str = "",
    parent: str = "",
) -> RunInfo:
    """Return the info of a run or a trial."""
    params = param_values(run)
    measured = {
        "family": run.family,
        "data_digest": dataset.digest,
        "metric": run.metric,
        "mode": run.mode,
    }
    return RunInfo(
        name=name,
        experiment=experiment,
        kind=kind,
        search_id=search_id,
        trial_id=trial_id,
        parent=parent,
        params=params,
        tags={
            **_provenance(),
            **measured,
            KEY: comparison_key(params, measured, run.metric),
            "seed": str(run.seed),
            "features": space_name(dataset, run.features),
            "rerun": rerun_command(run),
        },
        dataset={
            "name": dataset.name,
            "digest": dataset.digest,
            "shape": list(dataset.spec.shape),
            "num_train": len(dataset.train),
            "num_validation": len(dataset.validation),
        },
    )


def search_info(
    run: Search, dataset: Dataset, *, search_id: str, experiment: str, searched: Sequence[str]
) -> RunInfo:
    """Return the info of a search. `searched`: the settings that differ between its trials."""
    info = run_info(
        run,
        dataset,
        kind="confirmation" if run.seed_study else "search",
        name=search_id,
        experiment=experiment,
        search_id=search_id,
    )
    known = {**info.params, "searched": " ".join(searched)}
    return replace(info, params=known, tags={**info.tags, **_search_tags(run)})


def _search_tags(run: Search) -> Mapping[str, str]:
    if run.further:
        return {"objectives": describe(run.objectives)}
    if (study := run.seed_study) is None:
        return {}
    return {
        "confirms": study.run,
        "confirms_name": study.name,
        "confirms_search": study.search_id,
    }


def settings_hash(run: Run, dataset: Dataset) -> str:
    """Return eight hexadecimal digits that follow from everything the result depends on."""
    content = json.dumps([result_settings(run), dataset.digest], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:8]


def param_values(run: Run) -> dict[str, str | int | float | bool]:
    """Return the settings that the result depends on, flat: the parameters of a `RunInfo`."""
    return {name: _param(value) for name, value in result_settings(run).items()}


@cache
def _provenance() -> dict[str, str]:
    """Return the provenance of this process: git is asked once, not for each of 1,000 trials."""
    return provenance()


def _param(value: Any) -> str | int | float | bool:
    return value if isinstance(value, (str, int, float, bool)) else str(value)
