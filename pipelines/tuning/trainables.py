"""A trial of Ray Tune that is not fused: it drives Ray Train's workers of one config.

This is Ray's documented pattern, a function trainable that starts a `TorchTrainer`, but for Ray's
`TuneReportCallback`: with it, a trial that ends before Tune has taken its last report never ends.
Tune's thread then waits until there is room for that report in a queue that it alone empties, and
that holds the trial's end already (`_TrainSession._get_result_from_queues`, Ray 2.60).
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from ray import tune
from ray.train import Checkpoint, UserCallback
from ray.util.queue import Empty, Queue

from gen_models.core.config import merge, nest
from pipelines.cluster.shared_store import require_shared
from pipelines.cluster.threads import run_in_thread
from pipelines.config.search import Search
from pipelines.config.serialization import train_content
from pipelines.store.layout import SearchFolder
from pipelines.training.payload import TrainingPayload
from pipelines.training.trainer import make_trainer

DRIVER_RESOURCES = {"CPU": 0, "node:__internal_head__": 0.001}
"""What the trial itself takes: none of the CPUs that its workers need, and a place on the head
node, which is not a spot instance."""
_POLL_SECONDS = 0.5


class ReportsToTrial(UserCallback):  # type: ignore[misc]
    """Puts what the workers report into a queue, from Ray Train's controller."""

    def __init__(self, reports: Queue) -> None:
        self._reports = reports

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None
    ) -> None:
        """Pass on the report of the first worker, which is that of all."""
        self._reports.put(metrics[0])


def train_trial(config: dict[str, Any], search: TrainingPayload) -> None:
    """Run the workers of one config, and pass their reports on to Tune. `config`: the searched
    settings, as Tune has them."""
    require_shared(search.marker)
    trial_id = tune.get_context().get_trial_id()
    content = train_content(merge(search.config, nest(config)))
    folder = str(SearchFolder.at(search.folder).trial(trial_id).path)
    payload = TrainingPayload(content, folder, search.dataset, search.on_gpu, search.marker)
    reports = Queue(actor_options={"num_cpus": 0})
    training = run_in_thread(make_trainer(payload, [ReportsToTrial(reports)]).fit)
    while not (training.done() and reports.empty()):
        with suppress(Empty):
            tune.report(reports.get(timeout=_POLL_SECONDS))
    training.result()


def make_trainable(payload: TrainingPayload) -> Any:
    """Return what Tune runs as a trial."""
    return tune.with_resources(tune.with_parameters(train_trial, search=payload), DRIVER_RESOURCES)


def max_concurrent(run: Search, num_devices: float) -> int:
    """Return how many trials run at once: no more than can all have their workers, or one could
    take a worker's place from another. `num_devices`: GPUs, or CPU cores."""
    fit = max(1, int(num_devices // run.num_workers))
    return min(run.trials, fit, run.max_concurrent or fit)
