"""Convolutional networks in the shape of DCGAN (Radford et al. 2016) and SNGAN (Miyato et al.
2018).

Encoders halve an image while its sides are even and above 4, so a 32x32 image ends at 4x4 and a
28x28 image at 7x7; decoders and generators start there. Channels double at each halving.
"""

from torch import Tensor, nn

from gen_models.blocks.spectral import SpectralConv2d
from gen_models.core.errors import require

Shape = tuple[int, ...]


def halvings(height: int, width: int) -> int:
    """Return how often an image of this size is halved."""
    num = 0
    while height % 2 == 0 and width % 2 == 0 and min(height, width) > 4:
        height, width, num = height // 2, width // 2, num + 1
    return num


def _plan(shape: Shape, channels: int) -> tuple[list[int], Shape]:
    """Return the channels at each halving, and the shape after the last.

    Raises `InputError` if the data are not images.
    """
    expected = f"mlp, because the data have shape {shape}, not channels, height, width"
    require(len(shape) == 3, "arch", "conv", expected)
    _, height, width = shape
    num = halvings(height, width)
    widths = [channels * 2**level for level in range(max(num, 1))]
    return widths, (widths[-1], height >> num, width >> num)


def dcgan_init(network: nn.Module) -> None:
    """Initialise as DCGAN: weights from N(0, 0.02), biases 0, batch norm scales from N(1,
    0.02)."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.normal_(module.weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)


class ConvEncoder(nn.Module):
    """Images (N, C, H, W) -> (N, out_features)."""

    def __init__(self, shape: Shape, channels: int, out_features: int) -> None:
        super().__init__()
        widths, (depth, height, width) = _plan(shape, channels)
        strides = [2 if level < halvings(*shape[1:]) else 1 for level in range(len(widths))]
        layers: list[nn.Module] = []
        for inner, outer, stride in zip([shape[0], *widths], widths, strides, strict=False):
            kernel = 4 if stride == 2 else 3
            layers += [nn.Conv2d(inner, outer, kernel, stride, 1), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(depth * height * width, out_features)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(images))
        return out


class ConvDecoder(nn.Module):
    """(N, in_features) -> images (N, C, H, W), unbounded."""

    def __init__(
        self, in_features: int, channels: int, shape: Shape, *, batch_norm: bool = False
    ) -> None:
        super().__init__()
        widths, start = _plan(shape, channels)
        bias = not batch_norm  # batch norm subtracts it again
        self.start = nn.Sequential(
            nn.Linear(in_features, start[0] * start[1] * start[2], bias=bias),
            nn.Unflatten(1, start),
            *_normed(start[0], batch_norm),
        )
        layers: list[nn.Module] = []
        inner = start[0]
        for outer in [*widths[-2::-1], widths[0]][: halvings(*shape[1:])]:
            up = nn.ConvTranspose2d(inner, outer, 4, 2, 1, bias=bias)
            layers += [up, *_normed(outer, batch_norm)]
            inner = outer
        self.body = nn.Sequential(*layers, nn.Conv2d(inner, shape[0], 3, 1, 1))

    def forward(self, codes: Tensor) -> Tensor:
        out: Tensor = self.body(self.start(codes))
        return out


def _normed(channels: int, batch_norm: bool) -> list[nn.Module]:
    return [*([nn.BatchNorm2d(channels)] if batch_norm else []), nn.ReLU()]


class ConvGenerator(ConvDecoder):
    """Noise (N, noise_dim) -> images (N, C, H, W), unbounded: a decoder with batch norm."""

    def __init__(self, noise_dim: int, channels: int, shape: Shape) -> None:
        super().__init__(noise_dim, channels, shape, batch_norm=True)
        dcgan_init(self)


def conv_features(
    shape: Shape, channels: int, *, spectral_norm: bool
) -> tuple[nn.Sequential, Shape]:
    """Build images (N, C, H, W) -> (N, *F), and return it with F: SNGAN's discriminator without
    its last layer, a 3x3 and a strided 4x4 convolution for each size."""
    conv = SpectralConv2d if spectral_norm else nn.Conv2d
    widths, end = _plan(shape, channels)
    num = halvings(*shape[1:])
    layers: list[nn.Module] = []
    inner = shape[0]
    for level, outer in enumerate(widths):
        layers += [conv(inner, outer, 3, 1, 1), nn.LeakyReLU(0.1)]
        if level < num:
            layers += [conv(outer, outer, 4, 2, 1), nn.LeakyReLU(0.1)]
        inner = outer
    return nn.Sequential(*layers), end
