"""How good samples are, measured against real images."""

from gen_models.metrics.features import FeatureSpace, PCAFeatures
from gen_models.metrics.frechet import Moments, frechet_distance

__all__ = ["FeatureSpace", "Moments", "PCAFeatures", "frechet_distance"]
