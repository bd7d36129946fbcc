"""Spectral normalisation (Miyato et al. 2018) with a forward pass that changes no buffer.

torch's own runs its power iteration in the forward pass, in place, which neither `vmap` nor
`torch.func.grad` (the gradient penalty) allows. Here the singular vectors are buffers, and one
power iteration follows each update of the weights: the learner calls `after_update`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_WARM_UP = 15


class _Spectral(nn.Module):
    """A layer whose weight is divided by its largest singular value, as a matrix of a row for each
    output."""

    weight: Tensor
    left: Tensor
    right: Tensor

    def begin(self) -> None:
        """Initialise the singular vectors by 15 power iterations."""
        rows, columns = self.weight.flatten(1).shape
        self.register_buffer("left", F.normalize(torch.randn(rows), dim=0))
        self.register_buffer("right", F.normalize(torch.randn(columns), dim=0))
        for _ in range(_WARM_UP):
            self.after_update()

    def after_update(self) -> None:
        """Run one power iteration."""
        matrix = self.weight.detach().flatten(1)
        self.right.copy_(F.normalize(matrix.T @ self.left, dim=0))
        self.left.copy_(F.normalize(matrix @ self.right, dim=0))

    def normalised(self) -> Tensor:
        """Return the weight divided by its largest singular value. Computed as a sum of products,
        because autocast would round a matrix product to three digits."""
        matrix = self.weight.flatten(1)
        return self.weight / (self.left[:, None] * matrix * self.right).sum()


class SpectralLinear(_Spectral, nn.Linear):
    """A linear layer with largest singular value 1."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        self.begin()

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.normalised(), self.bias)


class SpectralConv2d(_Spectral, nn.Conv2d):
    """A convolution whose weight, as a matrix, has largest singular value 1."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, padding: int
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding)
        self.begin()

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.normalised(), self.bias, self.stride, self.padding)
