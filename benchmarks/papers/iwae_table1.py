"""Burda, Grosse & Salakhutdinov 2016, table 1: MNIST, one stochastic layer, test NLL in nats by
5,000 importance samples.

Their networks (784-200-200-50, tanh), their data (values drawn anew at each use, 59,600 images to
train on) and their bound. Their schedule is 3,280 epochs in batches of 20; here the learning rate
falls along a cosine over `--epochs`, in larger batches. k=1 is the VAE; its 1,150 epochs are some
50 minutes of one core. Several k are members of one population; k = 5 and 50 want a GPU.

    python -m benchmarks.papers.iwae_table1 --data-root DIR
    python -m benchmarks.papers.iwae_table1 --data-root DIR --k 1 5 50 --device cuda

A run that was stopped, by `--minutes` or otherwise, goes on with the same command.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor

from benchmarks.device import switch_off_tf32
from benchmarks.figures import DATA_ROOT, finish, say, setting
from gen_models import (
    Adam,
    Batch,
    DataSpec,
    Learner,
    TrainingImages,
    load_checkpoint,
    save_checkpoint,
)
from gen_models.core.checkpoint import restore_learner
from gen_models.core.data import unit
from gen_models.fused.trainer import FusedTrainer
from gen_models.metrics import Likelihood, estimate_likelihood
from gen_models.training.cpu import prepare_thread
from gen_models.training.precision import Precision
from gen_models.vae import Config, Model
from pipelines.data import Dataset, load

PUBLISHED = {1: 86.76, 5: 85.54, 50: 84.78}
"""By k: the paper's."""
REPRODUCED = {1: 87.78, 5: 85.46, 50: 84.59}
"""By k: xqding/Importance_Weighted_Autoencoders, in PyTorch, 5,000 epochs in batches of 1,000."""
NUM_VALIDATION = 400
VALIDATION_SAMPLES = 100


@dataclass(frozen=True)
class Options:
    """Train models of the table and judge them on the test images."""

    k: tuple[int, ...] = (1,)
    """Importance samples in the training loss, of each model."""
    epochs: int = 1_150
    """Epochs, over which the learning rate falls to 0."""
    minutes: float | None = None
    """Stop training after this long in this process, and judge what there is."""
    batch_size: int = 100
    """Images in a step."""
    lr: float = 1e-3
    """Learning rate at the beginning."""
    precision: Precision = "fp32"
    """Of the networks' products, in training. They are judged in fp32."""
    device: str = "cpu"
    """Where, such as cuda."""
    threads: int = 2
    """Threads of this process."""
    seed: int = 0
    """Of weights, order, noise and binarised values."""
    report_every: int = 25
    """Epochs between lines of progress and checkpoints."""
    samples: int = 5_000
    """Importance samples of the test NLL."""
    test_images: int = 10_000
    """How many of the test images are used."""
    store: Path = Path("runs/iwae_table1")
    """Where checkpoints are."""
    data_root: Path = DATA_ROOT
    """Where torchvision's MNIST lies; the environment's GENPIPE_DATA_ROOT is the default."""

    def folder(self, k: int) -> Path:
        """Of a model's checkpoints."""
        return self.store / f"k{k}-seed{self.seed}"


def main() -> None:
    options = tyro.cli(Options, description=__doc__, args=sys.argv[1:])
    found = setting(options)
    torch.set_num_threads(options.threads)
    prepare_thread()
    switch_off_tf32()
    data = load("mnist", options.data_root)
    binary = data.with_binary_evaluation()
    train, validation = (part.to(options.device) for part in _split(data, binary))
    images = TrainingImages(Batch.of(train), options.batch_size, drop_last=True, binarise=True)
    learners = {k: _learner(images, data.spec, k, options) for k in options.k}
    _train(learners, images, validation, options)
    test = unit(torch.from_numpy(binary.test[: options.test_images])).to(options.device)
    figures: dict[str, float] = {}
    for k, learner in learners.items():
        figures |= _figures(_judge(learner, test, options.samples), k)
        figures[f"epochs_k{k}"] = learner.epoch
    finish("iwae_table1", figures, found)


def _split(data: Dataset, binary: Dataset) -> tuple[Tensor, Tensor]:
    """59,600 training images, uint8, and the other 400, binarised, as floats."""
    rest = len(data.validation) - NUM_VALIDATION
    train = np.concatenate([data.train, data.validation[:rest]])
    return torch.from_numpy(train), unit(torch.from_numpy(binary.validation[rest:]))


def _learner(images: TrainingImages, spec: DataSpec, k: int, options: Options) -> Learner:
    """At its latest checkpoint, if there is one."""
    config = Config(latent_dim=50, hidden=(200, 200), activation="tanh", importance_samples=k)
    adam = Adam(lr=options.lr, decay_epochs=float(options.epochs))
    learner = Learner(
        Model(config, spec),
        adam,
        seed=options.seed,
        steps_per_epoch=images.steps_per_epoch,
        device=images.device,
        precision=options.precision,
        graphs=True,
    )
    saved = _saved(options.folder(k))
    if saved:
        known = load_checkpoint(saved[-1])
        if (known.model.config, known.optim) != (config, adam):
            raise SystemExit(f"store = '{options.store}': expected a run with these settings")
        restore_learner(saved[-1], learner)
        say(f"k = {k} goes on after epoch {learner.epoch:.0f}, from {saved[-1]}")
    return learner


def _train(
    learners: Mapping[int, Learner], images: TrainingImages, validation: Tensor, options: Options
) -> None:
    """Train those that are not at the end, while there is time."""
    population, start = FusedTrainer(images, "in_turn"), time.monotonic()
    limit = float("inf") if options.minutes is None else 60 * options.minutes
    while time.monotonic() - start < limit:
        left = {k: one for k, one in learners.items() if round(one.epoch) < options.epochs}
        if not left:
            break
        population.run_epoch(list(left.values()))
        for k, learner in left.items():
            epoch = round(learner.epoch)
            if epoch % options.report_every == 0 or epoch == options.epochs:
                _report(k, learner, validation, time.monotonic() - start)
                _save(learner, options.folder(k))
    for k, learner in learners.items():
        _save(learner, options.folder(k))


def _judge(learner: Learner, images: Tensor, num_samples: int) -> Likelihood:
    return estimate_likelihood(
        learner.model, learner.sampling_networks(), Batch.of(images), num_samples=num_samples
    )


def _report(k: int, learner: Learner, validation: Tensor, seconds: float) -> None:
    """Say how training stands."""
    trained = learner.pop_metrics()
    found = _judge(learner, validation, VALIDATION_SAMPLES)
    say(
        f"k = {k}, epoch {learner.epoch:.0f}, {seconds / 60:.1f} min: "
        f"training loss {trained['loss']:.2f}, "
        f"validation NLL {found.nll:.2f} by {VALIDATION_SAMPLES} samples, ELBO {found.elbo:.2f}, "
        f"{found.active_units} active units"
    )


def _saved(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the latest last."""
    return sorted(folder.glob("epoch-*"))


def _save(learner: Learner, folder: Path) -> None:
    """Write a checkpoint, whole or not at all, and drop the others."""
    target = folder / f"epoch-{round(learner.epoch):06}"
    aside = folder / f".{target.name}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    save_checkpoint(aside, "vae", learner.optim, learner)
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)
    for other in _saved(folder):
        if other != target:
            shutil.rmtree(other)


def _figures(found: Likelihood, k: int) -> dict[str, float]:
    """Ours beside the published ones."""
    figures = {f"nll_k{k}": found.nll}
    for name, values in (("published", PUBLISHED), ("reproduced", REPRODUCED)):
        if k in values:
            figures[f"nll_k{k}_{name}"] = values[k]
    units = float(found.active_units or 0)
    more = {"active_units": units, "elbo": found.elbo, "kl": found.kl}
    return figures | {f"{name}_k{k}": value for name, value in more.items()}


if __name__ == "__main__":
    main()
