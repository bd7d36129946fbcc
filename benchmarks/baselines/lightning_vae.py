"""Lightning's `LightningModule` and `Trainer` as documented, around the baselines' VAE.

Needs the environment of `benchmarks/requirements.txt`. Nothing is logged or saved.

    python -m benchmarks.baselines.lightning_vae --data mnist.npz --epochs 5
"""

# mypy: disable-error-code="import-not-found, misc"
from __future__ import annotations

import time

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.baselines.request import Request, answer, parse
from benchmarks.baselines.vae import VAE, Point, load


class LitVAE(L.LightningModule):
    def __init__(self, point: Point, in_features: int) -> None:
        super().__init__()
        self.point = point
        self.model = VAE(point.latent_dim, in_features)

    def training_step(self, batch: tuple[Tensor], batch_idx: int) -> Tensor:
        nll, kl = self.model(batch[0])
        loss: Tensor = nll + self.point.kl_weight * kl
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.point.lr, weight_decay=0.0)


class EpochEnds(L.Callback):
    """Notes when each epoch ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.ends.append(time.perf_counter())


def train(images: Tensor, request: Request) -> list[float]:
    """When each epoch ended."""
    noted = EpochEnds()
    loader = DataLoader(
        TensorDataset(images), batch_size=request.batch_size, shuffle=True, drop_last=True
    )
    trainer = L.Trainer(
        max_epochs=request.epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[noted],
    )
    trainer.fit(LitVAE(Point(), images.shape[1]), loader)
    return noted.ends


def main() -> None:
    request = parse(__doc__)
    images, _ = load(request.data)
    ends = train(images, request)
    per_epoch = len(images) // request.batch_size * request.batch_size
    answer({"epoch_ends": ends, "images_per_epoch": per_epoch})


if __name__ == "__main__":
    main()
