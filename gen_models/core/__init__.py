"""What every family shares: the contract, the learner, checkpoints.

The names below are imported on first use, so that a command which only parses its arguments
does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gen_models.core.batches import TrainingImages
    from gen_models.core.checkpoint import load_checkpoint, load_sampler, save_checkpoint
    from gen_models.core.contract import Adam, Batch, DataSpec, Model, Objective
    from gen_models.core.errors import InputError
    from gen_models.core.learner import Learner
    from gen_models.core.population import Population

_HOME = {
    "Adam": "contract",
    "Batch": "contract",
    "DataSpec": "contract",
    "InputError": "errors",
    "Learner": "learner",
    "Model": "contract",
    "Objective": "contract",
    "Population": "population",
    "TrainingImages": "batches",
    "load_checkpoint": "checkpoint",
    "load_sampler": "checkpoint",
    "save_checkpoint": "checkpoint",
}

__all__ = [
    "Adam",
    "Batch",
    "DataSpec",
    "InputError",
    "Learner",
    "Model",
    "Objective",
    "Population",
    "TrainingImages",
    "load_checkpoint",
    "load_sampler",
    "save_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
