"""Pictures show what they are given: where points lie, and how many samples."""

import io

import numpy as np
import pytest
import torch
from conftest import FAMILIES, make_learner, some_images
from PIL import Image

from gen_models.core import Batch, DataSpec
from gen_models.metrics import PCAFeatures
from pipelines.evaluation.images import drawing, moves_png, scatter_png
from pipelines.evaluation.validation import Evaluator

CORNERS = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.25, 0.75]])


def opened(content: bytes) -> np.ndarray:
    """(height, width, 3) uint8"""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_points_lie_where_they_are() -> None:
    picture = opened(scatter_png(CORNERS))
    side = len(picture)
    dark = np.argwhere((picture == 0).all(2))
    assert len(dark) == 3 * 4  # two by two pixels each
    for x, y in CORNERS.tolist():
        near = np.abs(dark - [(1 - y) * side, x * side]).max(1) < 3
        assert near.sum() == 4


def test_moves_lead_to_the_reconstructions() -> None:
    picture = opened(moves_png(torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 0.5]])))
    red = np.argwhere((picture == [255, 0, 0]).all(2))
    side = len(picture)
    assert red[:, 1].max() >= side - 3 and red[:, 1].min() <= side // 2 + 3
    assert np.abs(red[:, 0] - side / 2).max() < 3


def test_a_point_that_is_no_number_does_not_stop_the_picture() -> None:
    assert opened(scatter_png(torch.tensor([[torch.nan, 0.5], [torch.inf, -3.0]]))).min() == 0


@pytest.mark.parametrize("shape", [(1, 8, 8), (2,)])
def test_data_of_each_shape_are_drawn_and_written(shape: tuple[int, ...]) -> None:
    samples = some_images(6) if len(shape) == 3 else torch.rand(6, *shape)
    draw = drawing(shape)
    assert opened(draw.samples(samples)).std() > 0
    assert opened(draw.pairs(samples, samples.flip(0))).std() > 0
    array = draw.array(samples)
    if len(shape) == 3:
        assert array.shape == (6, 8, 8, 1) and array.dtype == np.uint8
    else:
        assert np.array_equal(array, samples.numpy())


@pytest.mark.parametrize("family", FAMILIES)
def test_an_evaluator_takes_points(family: str) -> None:
    points = torch.rand(600, 2)
    learner = make_learner(f"{family}-mlp", spec=DataSpec((2,)))
    evaluator = Evaluator(Batch.of(points), Batch.of(points), PCAFeatures.of("pca", points))
    networks = learner.sampling_networks()
    (found,) = evaluator.metrics([learner.model], [networks])
    assert found["val/fd/pca/2k"] > 0
    for picture in evaluator.pictures(learner.model, networks).values():
        assert opened(picture).min() == 0
