"""Spectral normalisation (Miyato et al. 2018) whose forward pass changes nothing.

torch's own iterates within the forward pass, in place, which neither `vmap` nor `torch.func.grad`
(the gradient penalty) allows. Here the singular vectors are buffers, and one power iteration
follows each update of the weights: the learner calls `after_update`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_WARM_UP = 15


class _Spectral(nn.Module):
    """A layer whose weight, as a matrix of one row an output, is divided by the matrix's largest
    singular value."""

    weight: Tensor
    left: Tensor
    right: Tensor

    def begin(self) -> None:
        """Make the singular vectors, and iterate until they are near."""
        rows, columns = self.weight.flatten(1).shape
        self.register_buffer("left", F.normalize(torch.randn(rows), dim=0))
        self.register_buffer("right", F.normalize(torch.randn(columns), dim=0))
        for _ in range(_WARM_UP):
            self.after_update()

    def after_update(self) -> None:
        """One power iteration."""
        matrix = self.weight.detach().flatten(1)
        self.right.copy_(F.normalize(matrix.T @ self.left, dim=0))
        self.left.copy_(F.normalize(matrix @ self.right, dim=0))

    def normalised(self) -> Tensor:
        """The weight, of largest singular value 1. A sum of products, not a product of matrices:
        autocast would round the singular value to three digits."""
        matrix = self.weight.flatten(1)
        return self.weight / (self.left[:, None] * matrix * self.right).sum()


class SpectralLinear(_Spectral, nn.Linear):
    """A linear layer of largest singular value 1."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        self.begin()

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.normalised(), self.bias)


class SpectralConv2d(_Spectral, nn.Conv2d):
    """A convolution of largest singular value 1, its weight taken as a matrix."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, padding: int
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding)
        self.begin()

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.normalised(), self.bias, self.stride, self.padding)
