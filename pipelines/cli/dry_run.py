"""`--dry-run`: the resolved config, and how a search would run it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gen_models.core.config import flatten
from pipelines.cluster.resources import local_devices
from pipelines.config.command import rerun_command
from pipelines.config.run import Run
from pipelines.config.search import Search
from pipelines.config.serialization import to_dict
from pipelines.training.preflight import load_data
from pipelines.tuning.fused.placement import plan_placement
from pipelines.tuning.space import domains, grid_size, settings_kept_apart


def describe_run(run: Run) -> str:
    """Return the resolved config as JSON; of a search also what is searched and how it is
    fused."""
    content = to_dict(run)
    if isinstance(run, Search):
        searched = flatten(domains(run))
        content["searched"] = {name: _describe_domain(d) for name, d in searched.items()}
        content["fusion"] = _describe_fusion(run, searched)
    return json.dumps(content | {"command": rerun_command(run)}, indent=1)


def _describe_fusion(run: Search, searched: Mapping[str, Any]) -> dict[str, Any]:
    """Return how trials are fused, as far as that is known without the cluster."""
    if not run.is_fused:
        why = "--fuse off" if run.fuse == "off" else f"{run.num_workers} workers a trial"
        return {"fused": False, "why": why}
    if run.chosen_searcher == "grid":
        run = replace(run, trials=grid_size(run))
    spec = load_data(run).spec
    apart = settings_kept_apart(run, spec, searched)
    fusion: dict[str, Any] = {"fused": True, "trials": run.trials, "kept_apart_by": apart}
    devices = local_devices(run.address, run.device)
    if devices is None:
        return fusion | {"fused_workers": "one on each of the cluster's devices"}
    placement = plan_placement(run, spec, devices)
    return fusion | {
        "fused_workers": placement.workers,
        "trials_per_worker": placement.trials_per_worker,
        "trials_at_once": placement.at_once,
        "devices": "GPUs" if placement.on_gpu else "CPU cores",
    }


def _describe_domain(domain: Any) -> str:
    sampler = type(domain.get_sampler()).__name__.strip("_").lower()
    inside = domain.categories if hasattr(domain, "categories") else [domain.lower, domain.upper]
    return f"{type(domain).__name__.lower()} {sampler} {inside}"
