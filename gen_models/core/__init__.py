"""The family contract, data, configs, errors, randomness, checkpoints and sampling.

The names below are imported on first use, so that a command which only parses its arguments
does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gen_models.core.checkpoint import load_checkpoint, load_sampler, save_checkpoint
    from gen_models.core.contract import Adam, Model, Objective
    from gen_models.core.data import Batch, DataSpec
    from gen_models.core.errors import InputError
    from gen_models.fused.trainer import FusedTrainer
    from gen_models.training.batches import TrainingImages
    from gen_models.training.learner import Learner

_HOME = {
    "Adam": "core.contract",
    "Batch": "core.data",
    "DataSpec": "core.data",
    "FusedTrainer": "fused.trainer",
    "InputError": "core.errors",
    "Learner": "training.learner",
    "Model": "core.contract",
    "Objective": "core.contract",
    "TrainingImages": "training.batches",
    "load_checkpoint": "core.checkpoint",
    "load_sampler": "core.checkpoint",
    "save_checkpoint": "core.checkpoint",
}

__all__ = [
    "Adam",
    "Batch",
    "DataSpec",
    "FusedTrainer",
    "InputError",
    "Learner",
    "Model",
    "Objective",
    "TrainingImages",
    "load_checkpoint",
    "load_sampler",
    "save_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"gen_models.{_HOME[name]}"), name)
