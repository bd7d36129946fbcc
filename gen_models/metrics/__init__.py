"""How good samples are, measured against real images."""

from gen_models.metrics.frechet import Moments, PCAFeatures, frechet_distance

__all__ = ["Moments", "PCAFeatures", "frechet_distance"]
