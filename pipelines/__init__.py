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
    sync        record everything anew from the journals
    rerun       repeat a recorded run, and compare
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from gen_models.core.errors import InputError

if TYPE_CHECKING:
    from pipelines.catalog.evaluation import evaluate
    from pipelines.catalog.models import LoadedModel, load, sample
    from pipelines.catalog.rerun import rerun
    from pipelines.catalog.runs import best, runs
    from pipelines.catalog.sync import sync
    from pipelines.training.run import train
    from pipelines.tuning.replication import confirm
    from pipelines.tuning.search import search

__all__ = [
    "InputError",
    "LoadedModel",
    "__version__",
    "best",
    "confirm",
    "evaluate",
    "load",
    "rerun",
    "runs",
    "sample",
    "search",
    "sync",
    "train",
]

_MODULES = {
    "LoadedModel": "catalog.models",
    "best": "catalog.runs",
    "confirm": "tuning.replication",
    "evaluate": "catalog.evaluation",
    "load": "catalog.models",
    "rerun": "catalog.rerun",
    "runs": "catalog.runs",
    "sample": "catalog.models",
    "search": "tuning.search",
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
