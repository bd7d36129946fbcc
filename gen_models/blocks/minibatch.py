"""What shows a discriminator more than one sample at once, so that it sees a collapse of modes.

Rows are taken together in groups of neighbours, not over the whole batch: then workers that hold
whole groups compute what one would.
"""

import torch
from torch import Tensor, nn


def pack(samples: Tensor, size: int) -> Tensor:
    """(N, C, …) -> (N / size, size C, …): `size` neighbours concatenated along the channels, or
    along the values (PacGAN, Lin et al. 2018). N is a multiple of `size`."""
    channels, *rest = samples.shape[1:]
    return samples.reshape(-1, size * channels, *rest)


class MinibatchStd(nn.Module):
    """(N, C, …) -> (N, C + 1, …): one more channel, or value, that holds one number for each
    group of `size` rows: the mean over all features of their deviations within the group
    (Karras et al. 2018). N is a multiple of `size`."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, features: Tensor) -> Tensor:
        groups = features.reshape(-1, self.size, *features.shape[1:])
        # the epsilon keeps the gradient finite where all rows are equal
        std = (groups.var(1, correction=0) + 1e-8).sqrt().flatten(1).mean(1)
        one = features[:, :1]
        channel = std.repeat_interleave(self.size).view(-1, *[1] * (one.dim() - 1)).expand_as(one)
        return torch.cat([features, channel], dim=1)
