"""Models as a learner holds them, and the same models loaded in every way: what they compute.

    python -m support.loaded_models FOLDER VARIANT…

writes `FOLDER/VARIANT-WAY.npy` for each way; FOLDER is a store with MLflow's tables. It is a
program, because the instructions that torch uses of a processor are chosen once for a process.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import torch
from mlflow.pyfunc import load_model
from support.journals import open_journal
from support.models import VARIANTS, make_learner, some_batch
from torch import Tensor

from gen_models.core.checkpoint import Sampler, load_checkpoint, load_sampler, save_checkpoint
from gen_models.core.contract import FitsSampler, is_conditional
from gen_models.training.learner import Learner
from pipelines.catalog.models import load
from pipelines.store.journal import Outcome
from pipelines.store.layout import Store
from pipelines.tracking.base import tracking_uri
from pipelines.tracking.mlflow import BACKEND
from pipelines.tracking.mlflow.writer import MlflowWriter

NUM = 37
"""Images; no power of two, so that the last ones of a vectorised loop are computed too."""


def images(store: Store, variant: str) -> Iterator[tuple[str, Tensor]]:
    """Yield each way of having a trained model, and the images (NUM, C, H, W) that it generates
    from the same noise."""
    learner = trained(variant)
    held = Sampler(learner.model, learner.sampling_networks()).eval()
    inputs = some_inputs(learner)
    yield "held", held(inputs)
    checkpoint = store.run(variant).path / "checkpoint_000001"
    checkpoint.mkdir(parents=True)
    save_checkpoint(checkpoint, VARIANTS[variant][0], learner.optim, learner)
    loaded = load_checkpoint(checkpoint)
    labels = inputs[:, loaded.model.noise_dim :].long().flatten()
    noise = inputs[:, : loaded.model.noise_dim]
    yield "disk", loaded.model.generate(loaded.networks, noise, labels)
    yield "sampler", load_sampler(checkpoint)[0](inputs)
    deliver(store, variant, checkpoint)
    shutil.rmtree(checkpoint)  # what follows comes from MLflow
    fetched = load(variant, store=store.root)
    yield "mlflow", fetched.model.generate(fetched.networks, noise, labels)
    uri = f"models:/{variant}@champion"
    yield "exported", mlflow.pytorch.load_model(uri)(inputs)
    yield "pyfunc", torch.from_numpy(load_model(uri).predict(inputs.numpy()))


def deliver(store: Store, variant: str, checkpoint: Path) -> None:
    """Record a run that ended with a checkpoint, and deliver it: the model is exported and
    registered as the program does."""
    journal = open_journal(store.run(variant).path)
    journal.write_epoch(1, {"val/elbo": -1.0}, {})
    claim: dict[str, str | float] = {"metric": "val/elbo", "mode": "max", "value": -1.0}
    outcome = Outcome("completed", 1, checkpoint=str(checkpoint), register=variant, champion=claim)
    journal.close(outcome)
    MlflowWriter(tracking_uri(store), store).deliver(journal)


def trained(variant: str) -> Learner:
    """Return a learner after a few steps."""
    learner, batch = make_learner(variant), some_batch(64)
    for _ in range(3):
        learner.step(batch)
    if isinstance(learner.model, FitsSampler):
        with torch.no_grad():
            learner.model.fit_sampler(learner.sampling_networks(), [batch], 0)
    return learner


def some_inputs(learner: Learner) -> Tensor:
    """Return noise, and with a class-conditional model the numbers of classes."""
    noise = torch.randn(NUM, learner.model.noise_dim, generator=torch.Generator().manual_seed(0))
    if not is_conditional(learner.model):
        return noise
    return torch.cat([noise, (torch.arange(NUM) % 10)[:, None].float()], dim=1)


def main(folder: Path, variants: list[str]) -> None:
    torch.set_num_threads(1)
    store = Store.at(folder)
    with BACKEND.settings():
        mlflow.set_tracking_uri(tracking_uri(store))
        for variant in variants:
            for way, found in images(store, variant):
                np.save(folder / f"{variant}-{way}.npy", found.detach().numpy())
    print(torch.backends.cpu.get_cpu_capability())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
