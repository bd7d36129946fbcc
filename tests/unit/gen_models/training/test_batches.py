"""Batches: each worker's rows, binarised images, the order of an epoch."""

import pytest
import torch
from support.models import some_pixels

from gen_models import Batch
from gen_models.core.data import unit
from gen_models.core.rng import derive_seed, permutation
from gen_models.training.batches import Share, TrainingImages, num_batches


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_workers_share_each_image_once(world: int, drop_last: bool, device: torch.device) -> None:
    numbered = torch.arange(50, dtype=torch.uint8, device=device).view(50, 1, 1, 1)
    data = TrainingImages(Batch.of(numbered), 12, drop_last)
    seen = [
        torch.cat([batch.images for batch, _ in data.batches(7, 3, rank, world)])
        for rank in range(world)
    ]
    everything = (255 * torch.cat(seen)).round().flatten().tolist()
    assert len(everything) == len(set(everything)) == (48 if drop_last else 50)
    assert num_batches(50, 12, drop_last) == (4 if drop_last else 5)


@pytest.mark.parametrize("world", [2, 3])
def test_workers_share_the_binarised_batch_of_one(world: int, device: torch.device) -> None:
    data = TrainingImages(some_pixels(50, device), 12, drop_last=False, binarise=True)
    alone = [batch for batch, _ in data.batches(7, 3)]
    shared = [[batch for batch, _ in data.batches(7, 3, rank, world)] for rank in range(world)]
    for batch, parts in zip(alone, zip(*shared, strict=True), strict=True):
        assert torch.equal(batch.images, torch.cat([part.images for part in parts]))
        assert torch.equal(batch.labels, torch.cat([part.labels for part in parts]))


def test_a_binarised_value_is_1_as_often_as_it_is_bright(device: torch.device) -> None:
    ramp = torch.arange(256, dtype=torch.uint8, device=device)
    images = ramp.view(1, 1, 16, 16).expand(500, 1, 16, 16)
    data = TrainingImages(Batch.of(images), 250, drop_last=False, binarise=True)
    first, second, again, other = (
        torch.cat([batch.images for batch, _ in data.batches(*position)])
        for position in ((0, 1), (0, 2), (0, 1), (1, 1))
    )
    epochs = [first, second]
    assert torch.equal(epochs[0], again)
    halves = epochs[0].split(250)
    for one, another in (epochs, halves, (again, other)):
        assert not torch.equal(one, another)
    drawn = torch.cat([*epochs, other]).flatten(1)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    expected = torch.arange(256, device=device) / 255
    deviation = (expected * (1 - expected) / len(drawn)).sqrt()
    assert bool(((drawn.mean(0) - expected).abs() <= 4.5 * deviation).all())
    assert set(data.seen(3).images.unique().tolist()) == {0, 255}
    assert torch.equal(data.seen(3).images, data.seen(3).images)


def test_pixels_are_divided_and_floats_are_not(device: torch.device) -> None:
    pixels = torch.tensor([[0, 51, 255]], dtype=torch.uint8, device=device)
    floats = torch.tensor([[0.0, 0.2, 1.0]], device=device)
    torch.testing.assert_close(unit(pixels), floats)
    assert torch.equal(unit(floats), floats)
    points = TrainingImages(Batch.of(torch.rand(20, 2, device=device)), 8, drop_last=True)
    order = points.order(0, 1)
    batch, _ = next(iter(points.batches(0, 1)))
    assert torch.equal(batch.images, points.examples.images[order[:8]])


def test_shares_cover_a_batch() -> None:
    shares = [Share.of(7, rank, 3) for rank in range(3)]
    assert [s.size for s in shares] == [2, 2, 3]
    assert [s.start for s in shares[1:]] == [s.stop for s in shares[:-1]]


def test_each_epoch_has_an_order_of_its_own() -> None:
    assert torch.equal(permutation(100, 0, 1), permutation(100, 0, 1))
    assert not torch.equal(permutation(100, 0, 1), permutation(100, 0, 2))
    assert not torch.equal(permutation(100, 0, 1), permutation(100, 1, 1))
    assert derive_seed(0, "draws", 1) != derive_seed(0, "order", 1)
