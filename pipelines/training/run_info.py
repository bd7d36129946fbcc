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
from pipelines.config.run import Run, defaults
from pipelines.config.search import Search
from pipelines.config.serialization import result_settings
from pipelines.data.dataset import Dataset
from pipelines.evaluation.feature_spaces import space_name
from pipelines.store.journal import RunInfo, RunKind
from pipelines.tracking.provenance import provenance

_ALWAYS_SHOWN = ("data", "epochs", "seed")
"""Settings that are shown as parameters though they are the default."""
_TAGS = ("metric", "mode")
"""Settings that are tags besides."""
_SHOWN_OF_SEARCH = ("trials", "scheduler", "searcher")
_MAX_LABELLED = 6
"""Searched settings in a trial's label."""


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
    searched: Sequence[str] = (),
) -> RunInfo:
    """Return the info of a run or a trial. `searched`: of a trial, the settings that
    differ between the trials of its search."""
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
        label=trial_label(params, searched),
        shown=[*searched, *_shown(run, params, searched)],
    )


def _shown(run: Run, params: Mapping[str, Any], searched: Sequence[str]) -> list[str]:
    """Return the settings that the pages show, beside those that are searched."""
    default = param_values(defaults(type(run), run.family))
    return [
        name
        for name, value in params.items()
        if name not in (*searched, *_TAGS)
        and (name in _ALWAYS_SHOWN or value != default.get(name))
    ]


def trial_label(params: Mapping[str, Any], searched: Sequence[str]) -> str:
    """Return what the pages call a trial: its searched settings, abbreviated.

    >>> params = {"model.latent_dim": 4, "model.kl_weight": 0.7612, "optim.lr": 0.00403, "seed": 5}
    >>> trial_label(params, ["model.latent_dim", "model.kl_weight", "optim.lr"])
    'ld4 kl0.76 lr4e-3'
    >>> trial_label(params, ["seed"])
    'seed 5'
    """
    short = [_abbreviated(name.split(".")[-1:]) for name in searched]
    words = [
        _abbreviated(name.split(".")[-2:]) if short.count(own) > 1 else own
        for name, own in zip(searched, short, strict=True)
    ]
    values = [_short_value(params[name]) for name in searched]
    pairs = list(zip(words, values, strict=True))[:_MAX_LABELLED]
    return " ".join(f"{w}{v}" if len(w) < 4 and v[0].isdigit() else f"{w} {v}" for w, v in pairs)


def _abbreviated(path: Sequence[str]) -> str:
    """Return a setting's name, abbreviated: `ld` of latent_dim, `kl` of kl_weight, `lr`, and `glr`
    of generator.lr."""
    *groups, last = path
    first, *others = last.split("_")
    short = first if not others or len(first) < 3 else "".join(w[:1] for w in (first, *others))
    return "".join(group[:1] for group in groups) + short


def _short_value(value: Any) -> str:
    """Return a value with two digits, such as 0.76, 4e-3 or 512."""
    if not isinstance(value, float):
        return str(value)
    if value == 0 or 0.01 <= abs(value) < 1000:
        return f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"
    digits, _, exponent = f"{value:.1e}".partition("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}"


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
    known = {name: v for name, v in info.params.items() if name not in ("space", *searched)}
    space = {f"space.{s.name}": str(s).partition("=")[2] for s in run.searched}
    known |= space
    known["searched"] = " ".join(searched)
    shown = [*space, *(name for name in info.shown if name in known), *_SHOWN_OF_SEARCH]
    tags = {**info.tags, **_search_tags(run)}
    return replace(info, params=known, shown=list(dict.fromkeys(shown)), tags=tags)


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
