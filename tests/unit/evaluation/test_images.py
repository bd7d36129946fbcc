"""Pictures of images and points: positions, sizes of grids, arrays."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.evaluation import blobs, untrained

from gen_models import DataSpec
from pipelines.evaluation import images
from pipelines.evaluation.images import (
    GRID_COLUMNS,
    GRID_ROWS,
    drawing,
    drawing_of,
    grid_png,
    moves_png,
    pairs_png,
    scatter_png,
)

CORNERS = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.25, 0.75]])


def opened(content: bytes) -> np.ndarray:
    """Return the pixels of a PNG file, uint8 (height, width, 3)."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_points_are_drawn_at_their_positions() -> None:
    picture = opened(scatter_png(CORNERS))
    side = len(picture)
    dark = np.argwhere((picture == 0).all(2))
    assert len(dark) == 3 * 4  # two by two pixels each
    for x, y in CORNERS.tolist():
        near = np.abs(dark - [(1 - y) * side, x * side]).max(1) < 3
        assert near.sum() == 4


def test_moves_are_lines_to_the_reconstructions() -> None:
    picture = opened(moves_png(torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 0.5]])))
    red = np.argwhere((picture == [255, 0, 0]).all(2))
    side = len(picture)
    assert red[:, 1].max() >= side - 3 and red[:, 1].min() <= side // 2 + 3
    assert np.abs(red[:, 0] - side / 2).max() < 3


def test_points_that_are_not_finite_are_drawn() -> None:
    assert opened(scatter_png(torch.tensor([[torch.nan, 0.5], [torch.inf, -3.0]]))).min() == 0


@pytest.mark.parametrize("shape", [(1, 8, 8), (2,)])
def test_samples_of_each_shape_become_arrays(shape: tuple[int, ...]) -> None:
    samples = blobs(6) if len(shape) == 3 else torch.rand(6, *shape)
    array = drawing(shape).array(samples)
    if len(shape) == 3:
        assert array.shape == (6, 8, 8, 1) and array.dtype == np.uint8
        assert np.array_equal(array[..., 0], (samples[:, 0] * 255).round().numpy())
    else:
        assert np.array_equal(array, samples.numpy())


def test_points_are_not_drawn_in_grids() -> None:
    points = torch.rand(6, 2)
    draw = drawing((2,))
    assert draw.samples(points) == scatter_png(points)
    assert draw.pairs(points, points.flip(0)) == moves_png(points, points.flip(0))


def test_a_grid_has_its_images_row_by_row() -> None:
    levels = torch.tensor([0.0, 0.4, 1.0])
    picture = opened(grid_png(levels.view(3, 1, 1, 1).expand(3, 1, 56, 56), columns=2))
    assert picture.shape == (2 * 58 + 2, 2 * 58 + 2, 3)
    centres = [picture[30, 30, 0], picture[30, 88, 0], picture[88, 30, 0]]
    assert centres == [0, 102, 255]
    assert picture[88, 88, 0] == picture[0, 0, 0] == 128  # no image: the background


def test_small_images_are_enlarged() -> None:
    assert opened(grid_png(blobs(1))).shape == (60, 60, 3)
    assert opened(grid_png(blobs(1, side=60))).shape == (64, 64, 3)


def test_a_reconstruction_is_below_its_image() -> None:
    """Also in a last row that is not full."""
    black, white = torch.zeros(3, 1, 56, 56), torch.ones(3, 1, 56, 56)
    picture = opened(pairs_png(black, white, columns=2))
    assert picture.shape == (4 * 58 + 2, 2 * 58 + 2, 3)
    rows = (30, 88, 146, 204)
    assert [picture[row, 30, 0] for row in rows] == [0, 255, 0, 255]
    assert [picture[row, 88, 0] for row in rows] == [0, 255, 128, 128]


def test_grids_have_the_size_of_the_module_s_constants(tmp_path: Path) -> None:
    draw = drawing((1, 56, 56))
    assert draw.num_samples == GRID_ROWS * GRID_COLUMNS == 64 and draw.num_pairs == 32
    spec = DataSpec((1, 8, 8), 10)
    conditional = untrained("vae", spec, tmp_path / "vae", conditional=True).model
    draw = drawing_of(conditional)
    assert draw.num_samples == 10 * GRID_ROWS  # a column for each class
    assert opened(draw.samples(blobs(draw.num_samples))).shape == (8 * 58 + 2, 10 * 58 + 2, 3)
    many = untrained("vae", DataSpec((1, 8, 8), 30), tmp_path / "many", conditional=True).model
    assert drawing_of(many).num_samples == images.MAX_CLASS_COLUMNS * GRID_ROWS
    assert drawing_of(untrained("gan", spec, tmp_path / "gan").model).num_samples == 64
