"""Families of generative models and what trains and measures them, in plain PyTorch.

A module in this folder is a family, and its name is the family's name; the folders hold what
families share. Neither Ray nor MLflow is imported here.

The names below are imported on first use, so that a command which only parses its arguments does
not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gen_models.core.families import Family, family, names, settings, space_module

if TYPE_CHECKING:
    from gen_models.core.checkpoint import load_checkpoint, load_sampler, save_checkpoint
    from gen_models.core.contract import Adam, Model, Objective
    from gen_models.core.data import Batch, DataSpec
    from gen_models.core.errors import InputError
    from gen_models.fused.trainer import FusedTrainer
    from gen_models.training.batches import TrainingImages
    from gen_models.training.learner import Learner

__all__ = [
    "Adam",
    "Batch",
    "DataSpec",
    "Family",
    "FusedTrainer",
    "InputError",
    "Learner",
    "Model",
    "Objective",
    "TrainingImages",
    "family",
    "load_checkpoint",
    "load_sampler",
    "names",
    "save_checkpoint",
    "settings",
    "space_module",
]

_MODULES = {
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


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
