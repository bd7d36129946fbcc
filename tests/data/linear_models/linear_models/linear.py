"""A linear autoencoder whose codes are drawn to a standard normal: samples decode noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from gen_models.core.contract import Adam, Draws, Metrics, Networks, Objective
from gen_models.core.data import Batch, DataSpec
from gen_models.core.errors import require

Optim = Adam


@dataclass(frozen=True)
class Config:
    """Hyperparameters of a linear autoencoder."""

    latent_dim: int = 4
    """Dimensions of the code."""
    code_weight: float = 0.1
    """Weight of the codes' squared norm in the loss."""

    def __post_init__(self) -> None:
        require(self.latent_dim >= 1, "latent_dim", self.latent_dim, "an integer of at least 1")
        require(self.code_weight >= 0, "code_weight", self.code_weight, "at least 0")


class Model:
    """The model without parameters. Needs no random numbers to train."""

    def __init__(self, config: Config, spec: DataSpec) -> None:
        self.config = config
        self.spec = spec
        self.noise_dim = config.latent_dim
        self.widths = ("latent_dim",)

    def networks(self) -> dict[str, nn.Module]:
        values, codes = self.spec.num_values, self.config.latent_dim
        return {
            "encoder": nn.Sequential(nn.Flatten(), nn.Linear(values, codes)),
            "decoder": nn.Sequential(
                nn.Linear(codes, values), nn.Unflatten(1, tuple(self.spec.shape))
            ),
        }

    def objectives(self) -> tuple[Objective, ...]:
        return (Objective("reconstruction", ("encoder", "decoder"), self._loss),)

    def draws(self, num: int, generator: Generator) -> Draws:
        return {}

    def _loss(
        self, networks: Networks, batch: Batch, draws: Draws, epoch: Tensor | float
    ) -> tuple[Tensor, Metrics]:
        codes = networks["encoder"](batch.images)
        error = _squared_error(networks["decoder"](codes).sigmoid(), batch.images)
        loss = error + self.config.code_weight * codes.square().sum(1).mean()
        return loss, {"loss": loss, "squared_error": error}

    def generate(self, networks: Networks, noise: Tensor, labels: Tensor) -> Tensor:
        images: Tensor = networks["decoder"](noise).sigmoid()
        return images

    def encode(self, networks: Networks, batch: Batch) -> Tensor:
        codes: Tensor = networks["encoder"](batch.images)
        return codes

    def reconstruct(self, networks: Networks, batch: Batch) -> Tensor:
        images: Tensor = networks["decoder"](self.encode(networks, batch)).sigmoid()
        return images

    def validate(self, networks: Networks, batch: Batch, draws: Draws) -> Metrics:
        return {"squared_error": _squared_error(self.reconstruct(networks, batch), batch.images)}


def _squared_error(images: Tensor, originals: Tensor) -> Tensor:
    return 0.5 * torch.square(images - originals).flatten(1).sum(1).mean()
