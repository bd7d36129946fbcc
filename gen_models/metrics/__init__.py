"""How good samples are, measured against real images."""

from gen_models.metrics.features import FeatureSpace, PCAFeatures
from gen_models.metrics.frechet import Moments, frechet_distance
from gen_models.metrics.kernel import KernelDistance, kernel_distance
from gen_models.metrics.prdc import PRDC, Neighbours, compute_prdc

__all__ = [
    "PRDC",
    "FeatureSpace",
    "KernelDistance",
    "Moments",
    "Neighbours",
    "PCAFeatures",
    "compute_prdc",
    "frechet_distance",
    "kernel_distance",
]
