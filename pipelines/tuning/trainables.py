"""A trial of Ray Tune that is not fused: it drives Ray Train's workers of one config.

This is Ray's documented pattern: a function trainable that starts a `TorchTrainer`.
"""

from __future__ import annotations

from typing import Any

from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from gen_models.core.config import merge
from pipelines.cluster.shared_store import require_shared
from pipelines.config.search import Search
from pipelines.config.serialization import train_content
from pipelines.store.layout import SearchFolder
from pipelines.training.payload import TrainingPayload
from pipelines.training.trainer import make_trainer

DRIVER_RESOURCES = {"CPU": 0, "node:__internal_head__": 0.001}
"""What the trial itself takes: none of the CPUs that its workers need, and a place on the head
node, which is not a spot instance."""


def train_trial(config: dict[str, Any], search: TrainingPayload) -> None:
    """Run the workers of one config, and pass their reports on to Tune. `config`: the searched
    settings, in the config's shape."""
    require_shared(search.marker)
    trial_id = tune.get_context().get_trial_id()
    content = train_content(merge(search.config, config))
    folder = str(SearchFolder.at(search.folder).trial(trial_id).path)
    payload = TrainingPayload(content, folder, search.dataset, search.on_gpu, search.marker)
    make_trainer(payload, [TuneReportCallback()]).fit()


def make_trainable(payload: TrainingPayload) -> Any:
    """Return what Tune runs as a trial."""
    return tune.with_resources(tune.with_parameters(train_trial, search=payload), DRIVER_RESOURCES)


def max_concurrent(run: Search, num_devices: float) -> int:
    """Return how many trials run at once: no more than can all have their workers, or one could
    take a worker's place from another. `num_devices`: GPUs, or CPU cores."""
    fit = max(1, int(num_devices // run.num_workers))
    return min(run.trials, fit, run.max_concurrent or fit)
