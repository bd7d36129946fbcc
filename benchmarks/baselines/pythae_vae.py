"""pythae's VAE and `BaseTrainer` as documented, with networks of the baselines' architecture.

Needs the environment of `benchmarks/requirements.txt`.

    python -m benchmarks.baselines.pythae_vae --data mnist.npz --epochs 5
"""

# mypy: disable-error-code="import-not-found, misc"
from __future__ import annotations

import tempfile
import time
from typing import Any

import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from torch import Tensor, nn

from benchmarks.baselines.request import Request, answer, parse
from benchmarks.baselines.vae import HIDDEN, Point, load


class Encoder(BaseEncoder):
    def __init__(self, latent_dim: int, in_features: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(in_features, HIDDEN), nn.ReLU())
        self.out = nn.Linear(HIDDEN, 2 * latent_dim)

    def forward(self, x: Tensor) -> ModelOutput:
        mu, logvar = self.out(self.hidden(x)).chunk(2, dim=1)
        return ModelOutput(embedding=mu, log_covariance=logvar)


class Decoder(BaseDecoder):
    def __init__(self, latent_dim: int, in_features: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(latent_dim, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, in_features),
            nn.Sigmoid(),
        )

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.layers(z))


class EpochEnds(TrainingCallback):
    """Notes when each epoch ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_epoch_end(self, training_config: BaseTrainerConfig, **kwargs: Any) -> None:
        self.ends.append(time.perf_counter())


def train(images: Tensor, request: Request, folder: str) -> list[float]:
    """When each epoch ended."""
    point, features, noted = Point(), images.shape[1], EpochEnds()
    sizes = {"input_dim": (features,), "latent_dim": point.latent_dim}
    model = VAE(
        VAEConfig(**sizes, reconstruction_loss="bce"),
        Encoder(point.latent_dim, features),
        Decoder(point.latent_dim, features),
    )
    config = BaseTrainerConfig(
        output_dir=folder,
        num_epochs=request.epochs,
        learning_rate=point.lr,
        per_device_train_batch_size=request.batch_size,
        optimizer_cls="AdamW",
        optimizer_params={"weight_decay": 0.0},
        no_cuda=True,
    )
    dataset = BaseDataset(images, torch.zeros(len(images)))
    BaseTrainer(model, dataset, training_config=config, callbacks=[noted]).train()
    return noted.ends


def main() -> None:
    request = parse(__doc__)
    images, _ = load(request.data)
    with tempfile.TemporaryDirectory() as folder:
        ends = train(images, request, folder)
    answer({"epoch_ends": ends, "images_per_epoch": len(images)})


if __name__ == "__main__":
    main()
