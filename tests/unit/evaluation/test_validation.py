"""Validation metrics of the evaluator, on images and on points."""

import io
from math import log, pi
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.evaluation import blobs, make_evaluator, untrained
from torch import Generator, Tensor

import gen_models
from gen_models import Batch, DataSpec
from gen_models.core.contract import Draws, Metrics, Model, Networks
from gen_models.core.sampling import sample
from gen_models.metrics import Moments, PCAFeatures, frechet_distance
from pipelines.evaluation import validation
from pipelines.evaluation.metric_names import NUM_SAMPLES
from pipelines.evaluation.validation import (
    VALIDATION_METRICS,
    Evaluator,
    ValidationMetric,
    metric_names,
)

SPEC = DataSpec((1, 8, 8))
FAMILIES = gen_models.names()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", [(1, 8, 8), (2,)])
def test_reported_names_are_those_announced(
    family: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    data = Batch.of(blobs(600) if len(shape) == 3 else torch.rand(600, 2))
    loaded = untrained(family, DataSpec(shape), tmp_path)
    (metrics,) = make_evaluator(data, data).metrics([loaded.model], [loaded.networks])
    names = metric_names(loaded.model, "pca")
    assert sorted(metrics) == sorted(names) and "val/fd/pca/2k" in names
    assert all(np.isfinite(value) for value in metrics.values())
    assert metrics["val/fd/pca/2k"] > 0.0


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_are_equal_at_every_call(family: str, tmp_path: Path) -> None:
    data = Batch.of(torch.rand(600, 2))
    loaded = untrained(family, DataSpec((2,)), tmp_path)
    evaluator = make_evaluator(data, data)
    evaluator.metrics([loaded.model], [loaded.networks])  # fits the sampler of an autoencoder
    pictures = evaluator.pictures(loaded.model, loaded.networks)
    expected = {"samples"} if family == "gan" else {"samples", "reconstructions"}
    assert pictures.keys() == expected
    assert evaluator.pictures(loaded.model, loaded.networks) == pictures
    for png in pictures.values():
        assert np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).min() == 0


def test_the_frechet_distance_is_that_of_the_samples(tmp_path: Path) -> None:
    data = Batch.of(blobs(600))
    space = PCAFeatures.of("pca", data.images)
    loaded = untrained("vae", SPEC, tmp_path)
    (metrics,) = Evaluator(data, data, space).metrics([loaded.model], [loaded.networks])
    samples = sample(loaded.model, loaded.networks, NUM_SAMPLES, seed=0)
    expected = frechet_distance(Moments.of(space(data.images)), Moments.of(space(samples)))
    assert metrics["val/fd/pca/2k"] == pytest.approx(float(expected), rel=1e-9)


class GaussianModel:
    """p(x|z) = N(z, 1), p(z) = N(0, 1) and q(z|x) = p(z|x) = N(x/2, 1/2), of single numbers: the
    importance weight is p(x) = N(0, 2) for every z, so the bound is exact."""

    spec, noise_dim = DataSpec((1,)), 1
    config = None
    widths = ()

    def networks(self) -> dict[str, torch.nn.Module]:
        return {}

    def validate(self, networks: Networks, batch: Batch, draws: Draws) -> Metrics:
        return {"mean": batch.images.mean()}

    def draws(self, num: int, generator: Generator) -> Draws:
        return {}

    def generate(self, networks: Networks, noise: Tensor, labels: Tensor) -> Tensor:
        return noise

    def log_terms(self, networks: Networks, batch: Batch):  # type: ignore[no-untyped-def]
        x = batch.images[:, 0]

        def normal(value: Tensor, mean: Tensor | float, variance: float) -> Tensor:
            return -0.5 * ((value - mean) ** 2 / variance + log(2 * pi * variance))

        def terms(noise: Tensor) -> tuple[Tensor, Tensor]:
            z = x / 2 + 0.5**0.5 * noise[..., 0]
            return normal(x, z, 1.0), normal(z, 0.0, 1.0) - normal(z, x / 2, 0.5)

        return terms


def test_the_likelihood_bound_has_its_exact_value() -> None:
    """Over the first 1,000 images; the family's own mean over all of them."""
    images = torch.linspace(0, 1, 1300)[:, None]
    data = Batch.of(images)
    model: Model = GaussianModel()  # type: ignore[assignment]
    (metrics,) = make_evaluator(data, data).metrics([model], [{}])
    first = images[:1000].double()
    exact = (0.5 * (first**2 / 2 + log(4 * pi))).mean()
    assert metrics["val/nll/iw8"] == pytest.approx(float(exact), rel=1e-5)
    assert metrics["val/mean"] == pytest.approx(0.5, rel=1e-5)
    assert sorted(metric_names(model, "x")) == ["val/fd/x/2k", "val/mean", "val/nll/iw8"]


def test_a_further_metric_is_a_line_of_the_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its mean is over its first images, weighted by the sizes of the blocks of 500."""

    def brightness(model: Model, networks: Networks, batch: Batch, draws: Draws) -> Metrics:
        return {"brightness": batch.images.mean()}

    further = ValidationMetric(lambda model: True, brightness, lambda m, n, g: {}, 520)
    table = (*VALIDATION_METRICS, further)
    monkeypatch.setattr(validation, "VALIDATION_METRICS", table)
    data = Batch.of(blobs(600))
    loaded = untrained("gan", SPEC, tmp_path)
    (metrics,) = make_evaluator(data, data).metrics([loaded.model], [loaded.networks])
    expected = float(data.images[:520].double().mean())
    assert metrics["val/brightness"] == pytest.approx(expected, rel=1e-6)
    assert "val/brightness" in metric_names(loaded.model, "pca")
