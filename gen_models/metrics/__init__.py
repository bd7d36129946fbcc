"""Compares samples and likelihoods with real data: Fréchet, kernel, PRDC, likelihood, modes."""

from gen_models.metrics.features import FeatureSpace, PCAFeatures, features_in_blocks
from gen_models.metrics.frechet import Moments, frechet_distance
from gen_models.metrics.kernel import KernelDistance, kernel_distance
from gen_models.metrics.likelihood import (
    Likelihood,
    LikelihoodSums,
    estimate_likelihood,
    likelihood_sums,
)
from gen_models.metrics.modes import ModeClassifier, Modes, modes, nearest_mode
from gen_models.metrics.prdc import PRDC, Neighbours, compute_prdc, estimate_prdc

__all__ = [
    "PRDC",
    "FeatureSpace",
    "KernelDistance",
    "Likelihood",
    "LikelihoodSums",
    "ModeClassifier",
    "Modes",
    "Moments",
    "Neighbours",
    "PCAFeatures",
    "compute_prdc",
    "estimate_likelihood",
    "estimate_prdc",
    "features_in_blocks",
    "frechet_distance",
    "kernel_distance",
    "likelihood_sums",
    "modes",
    "nearest_mode",
]
