"""Layers by which a discriminator sees several samples at once, and so a collapse of modes.

They compute with groups of consecutive rows and not with the whole batch, so that results do not
depend on the number of workers, if each has whole groups.
"""

import torch
from torch import Tensor, nn


def pack(samples: Tensor, size: int) -> Tensor:
    """Concatenate `size` consecutive samples along the channels: (N, C, …) -> (N / size, size C,
    …) (PacGAN, Lin et al. 2018). N is a multiple of `size`."""
    channels, *rest = samples.shape[1:]
    return samples.reshape(-1, size * channels, *rest)


class MinibatchStd(nn.Module):
    """Minibatch deviation (Karras et al. 2018), (N, C, …) -> (N, C + 1, …): appends a channel with
    one number for each group of `size` rows, the mean over all features of their standard
    deviations within the group. N is a multiple of `size`."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, features: Tensor) -> Tensor:
        groups = features.reshape(-1, self.size, *features.shape[1:])
        # epsilon: finite gradients where all rows are equal
        std = (groups.var(1, correction=0) + 1e-8).sqrt().flatten(1).mean(1)
        one = features[:, :1]
        channel = std.repeat_interleave(self.size).view(-1, *[1] * (one.dim() - 1)).expand_as(one)
        return torch.cat([features, channel], dim=1)
