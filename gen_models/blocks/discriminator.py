"""Discriminators: the last layer after any body."""

from math import prod

from torch import Tensor, nn

from gen_models.blocks.minibatch import MinibatchStd
from gen_models.blocks.spectral import SpectralLinear


class Discriminator(nn.Module):
    """Images (N, C, …) -> scores (N,).

    `body`: images -> features (N, *shape). `minibatch_std`: the last layer has the deviation
    within groups of this many rows as a further feature; 0: not. `num_labels`: scores are
    conditional on one-hot labels (N, num_labels), by the product of features and an embedding of
    the labels: the projection of Miyato & Koyama 2018.
    """

    def __init__(
        self,
        body: nn.Sequential,
        shape: tuple[int, ...],
        *,
        spectral_norm: bool,
        minibatch_std: int = 0,
        num_labels: int = 0,
    ) -> None:
        super().__init__()
        depth, *rest = shape
        together = [MinibatchStd(minibatch_std)] if minibatch_std else []
        features = (depth + len(together)) * prod(rest)
        linear = SpectralLinear if spectral_norm else nn.Linear
        self.body = nn.Sequential(*body, *together, nn.Flatten())
        self.head = linear(features, 1)
        self.embedding = linear(num_labels, features, bias=False) if num_labels else None

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        features = self.body(images)
        scores: Tensor = self.head(features).squeeze(1)
        if self.embedding is not None:
            scores = scores + (self.embedding(labels) * features).sum(1)
        return scores
