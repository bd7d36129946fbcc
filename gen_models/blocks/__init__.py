"""Networks that families share."""

from gen_models.blocks.conv import ConvDecoder, ConvEncoder, ConvGenerator, conv_features
from gen_models.blocks.discriminator import Discriminator
from gen_models.blocks.labels import label_maps, one_hot
from gen_models.blocks.likelihood import bernoulli_image_nll, bernoulli_nll
from gen_models.blocks.minibatch import MinibatchStd, pack
from gen_models.blocks.mlp import glorot_init, mlp, mlp_features, mlp_to_image
from gen_models.blocks.spectral import SpectralConv2d, SpectralLinear

__all__ = [
    "ConvDecoder",
    "ConvEncoder",
    "ConvGenerator",
    "Discriminator",
    "MinibatchStd",
    "SpectralConv2d",
    "SpectralLinear",
    "bernoulli_image_nll",
    "bernoulli_nll",
    "conv_features",
    "glorot_init",
    "label_maps",
    "mlp",
    "mlp_features",
    "mlp_to_image",
    "one_hot",
    "pack",
]
