"""An order of which the first images are a fair sample."""

import numpy as np
import pytest

from pipelines.data.dataset import Part
from pipelines.data.stratification import reordered, stratified_order


@pytest.mark.parametrize("counts", [[50, 50], [900, 90, 10], [1] * 30, [7]])
def test_every_beginning_has_each_class_s_share(counts: list[int]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    order = stratified_order(len(labels), labels, seed=3)
    assert sorted(order) == list(range(len(labels)))
    for num in range(1, len(labels) + 1):
        found = np.bincount(labels[order[:num]], minlength=len(counts))
        # Offsets are drawn for each class, so that a beginning may be a little early in all.
        assert np.abs(found - num * np.array(counts) / len(labels)).max() <= 1.5


def test_the_seed_decides_and_unlabelled_images_are_shuffled() -> None:
    labels = np.repeat([0, 1], 20)
    for known in (labels, None):
        first, again, other = (stratified_order(40, known, seed) for seed in (0, 0, 1))
        assert np.array_equal(first, again) and not np.array_equal(first, other)
        assert sorted(first) == list(range(40)) and not np.array_equal(first, np.arange(40))


def test_each_image_is_equally_likely_to_be_among_the_first() -> None:
    labels = np.repeat([0, 1, 2], [6, 3, 1])
    counts = np.zeros(10)
    for seed in range(4000):
        counts[stratified_order(10, labels, seed)[:4]] += 1
    assert np.abs(counts / 4000 - 0.4).max() < 0.06


def test_images_and_labels_stay_together() -> None:
    part = Part(np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1), np.array([0, 1, 2, 3]))
    found = reordered(part, np.array([2, 0, 3, 1]))
    assert found.images.ravel().tolist() == [2, 0, 3, 1]
    assert found.labels is not None and found.labels.tolist() == [2, 0, 3, 1]
    assert reordered(Part(part.images, None), np.array([1, 0, 2, 3])).labels is None
