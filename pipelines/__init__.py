"""Where and how families are trained: the public interface.

The functions below are imported on first use, so that a program that needs one of them does not
wait for the imports of the others. `import genpipe` gives the same names.

    train       train one config
    search      search over configs with Ray Tune
    confirm     train a recorded config again with other seeds
    evaluate    evaluate a recorded model on the test split
    sample      write samples of a recorded model to a file
    load        load a recorded model, to sample, reconstruct and encode
    runs, best  what is recorded
    status      what runs, how far it is and until when
    enqueue     have a search try configs of one's own next
    stop        end a running search or training after its running epochs
    sync        record everything anew from the journals
    rerun       repeat a recorded run, and compare
    run_job     run a job file
    report      write the page of a search, or of several side by side (of `genpipe` alone:
                `pipelines.report` is a package)
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from gen_models.core.errors import InputError

if TYPE_CHECKING:
    from pipelines.catalog.evaluation import evaluate
    from pipelines.catalog.models import LoadedModel, load, sample
    from pipelines.catalog.report import report
    from pipelines.catalog.rerun import rerun
    from pipelines.catalog.runs import best, runs
    from pipelines.catalog.status import status
    from pipelines.catalog.stop import stop
    from pipelines.catalog.sync import sync
    from pipelines.cli.jobs.runner import run_job
    from pipelines.training.run import train
    from pipelines.tuning.replication import confirm
    from pipelines.tuning.search import search
    from pipelines.tuning.strategy.knowledge import enqueue

__all__ = [
    "InputError",
    "LoadedModel",
    "__version__",
    "best",
    "confirm",
    "enqueue",
    "evaluate",
    "load",
    "report",
    "rerun",
    "run_job",
    "runs",
    "sample",
    "search",
    "status",
    "stop",
    "sync",
    "train",
]

_MODULES = {
    "LoadedModel": "catalog.models",
    "best": "catalog.runs",
    "confirm": "tuning.replication",
    "enqueue": "tuning.strategy.knowledge",
    "evaluate": "catalog.evaluation",
    "load": "catalog.models",
    "report": "catalog.report",
    "rerun": "catalog.rerun",
    "run_job": "cli.jobs.runner",
    "runs": "catalog.runs",
    "sample": "catalog.models",
    "search": "tuning.search",
    "status": "catalog.status",
    "stop": "catalog.stop",
    "sync": "catalog.sync",
    "train": "training.run",
}

try:
    __version__ = version("genpipe")
except PackageNotFoundError:  # run from a folder that is not installed
    __version__ = "unknown"


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
