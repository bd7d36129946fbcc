"""Networks that families share."""

from gen_models.blocks.conv import ConvDecoder, ConvDiscriminator, ConvEncoder, ConvGenerator
from gen_models.blocks.likelihood import bernoulli_image_nll, bernoulli_nll
from gen_models.blocks.minibatch import MinibatchStd, pack
from gen_models.blocks.mlp import glorot_init, mlp, mlp_to_image
from gen_models.blocks.spectral import SpectralConv2d, SpectralLinear

__all__ = [
    "ConvDecoder",
    "ConvDiscriminator",
    "ConvEncoder",
    "ConvGenerator",
    "MinibatchStd",
    "SpectralConv2d",
    "SpectralLinear",
    "bernoulli_image_nll",
    "bernoulli_nll",
    "glorot_init",
    "mlp",
    "mlp_to_image",
    "pack",
]
