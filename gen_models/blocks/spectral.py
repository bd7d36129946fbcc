"""Spectral normalisation (Miyato et al. 2018) whose forward pass changes nothing.

torch's own iterates within the forward pass, in place, which neither `vmap` nor `torch.func.grad`
(the gradient penalty) allows. Here the singular vectors are buffers, and one power iteration
follows each update of the weights: the learner calls `after_update`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_WARM_UP = 15


def _start(layer: nn.Module, weight: Tensor) -> None:
    rows, columns = weight.flatten(1).shape
    layer.register_buffer("left", F.normalize(torch.randn(rows), dim=0))
    layer.register_buffer("right", F.normalize(torch.randn(columns), dim=0))


def _iterate(weight: Tensor, left: Tensor, right: Tensor) -> None:
    matrix = weight.detach().flatten(1)
    right.copy_(F.normalize(matrix.T @ left, dim=0))
    left.copy_(F.normalize(matrix @ right, dim=0))


def _normalised(weight: Tensor, left: Tensor, right: Tensor) -> Tensor:
    return weight / torch.dot(left, weight.flatten(1) @ right)


class SpectralLinear(nn.Linear):
    """A linear layer with its weight divided by the weight's largest singular value."""

    left: Tensor
    right: Tensor

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        _start(self, self.weight)
        for _ in range(_WARM_UP):
            self.after_update()

    def after_update(self) -> None:
        """One power iteration."""
        _iterate(self.weight, self.left, self.right)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, _normalised(self.weight, self.left, self.right), self.bias)


class SpectralConv2d(nn.Conv2d):
    """A convolution with its weight, as a matrix of out_channels rows, divided by the matrix's
    largest singular value."""

    left: Tensor
    right: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, padding: int
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding)
        _start(self, self.weight)
        for _ in range(_WARM_UP):
            self.after_update()

    def after_update(self) -> None:
        """One power iteration."""
        _iterate(self.weight, self.left, self.right)

    def forward(self, input: Tensor) -> Tensor:
        weight = _normalised(self.weight, self.left, self.right)
        return F.conv2d(input, weight, self.bias, self.stride, self.padding)
