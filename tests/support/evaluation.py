"""Evaluators and untrained models, as tests of evaluation use them."""

import os
import pickle
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import multiprocessing as mp

import gen_models
from gen_models import Batch, DataSpec, Learner
from gen_models.core.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from gen_models.core.data import unit
from gen_models.metrics import PCAFeatures
from pipelines.evaluation.feature_spaces import Extractor
from pipelines.evaluation.held_out import HeldOutResults, HeldOutTask, evaluate_held_out
from pipelines.evaluation.validation import Evaluator


class Fitted(NamedTuple):
    """A store with the fitted classifier of a data set."""

    root: Path
    extractor: Extractor
    messages: list[str]
    """Logged while it was fitted."""


def make_evaluator(train: Batch, validation: Batch) -> Evaluator:
    """Return an evaluator whose feature space is the principal components of `validation`."""
    space = PCAFeatures.of("pca", unit(validation.images))
    return Evaluator(train, validation, space)


def untrained(family: str, spec: DataSpec, folder: Path, **config: Any) -> Checkpoint:
    """Return an untrained model of a family, small, the same each time, read from a checkpoint
    in `folder`. `config`: fields of the family's `Config`."""
    module = gen_models.family(family)
    settings: dict[str, Any] = {"arch": "mlp", "hidden": (16,), "latent_dim": 4, **config}
    model = module.Model(replace(module.Config(), **settings), spec)
    learner = Learner(model, module.Optim(), seed=0, steps_per_epoch=1)
    folder.mkdir(parents=True, exist_ok=True)
    save_checkpoint(folder, family, module.Optim(), learner)
    return load_checkpoint(folder)


def blobs(num: int, side: int = 8) -> torch.Tensor:
    """Return images of one soft spot each, float (num, 1, side, side) in [0, 1], the same each
    time."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, num, 1, 1, generator=generator)
    grid = torch.linspace(0, 1, side)
    squared = (grid[:, None] - y).square() + (grid[None, :] - x).square()
    return torch.exp(-20 * squared)[:, None]


def evaluate_in_two_processes(
    task: HeldOutTask, folder: Path
) -> tuple[HeldOutResults, HeldOutResults]:
    """Return the results of each of two processes that evaluate a model together over gloo."""
    (folder / "task").write_bytes(pickle.dumps(task))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    mp.spawn(_evaluate_as_worker, (port, folder), nprocs=2)
    return HeldOutResults.read(folder / "0"), HeldOutResults.read(folder / "1")


def _evaluate_as_worker(rank: int, port: int, folder: Path) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    task = pickle.loads((folder / "task").read_bytes())
    evaluate_held_out(task, torch.device("cpu")).write(folder / str(rank))
    dist.barrier()  # no worker leaves while the other still communicates
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads can abort a process at exit
