"""Splits, digests and short names of data sets."""

import re
from pathlib import Path

import numpy as np
import pytest
from support.data import SPLITS, all_images, pixels, rows, save_npz, sizes

from pipelines.data import Dataset, load


def test_splits_are_disjoint_and_cover_everything(tmp_path: Path) -> None:
    images = pixels(100, 4, 4)
    data = load(save_npz(tmp_path / "x.npz", images=images), tmp_path)
    assert sizes(data) == (70, 14, 16)
    assert len(set(rows(all_images(data)))) == 100
    assert rows(all_images(data)) == rows(images)


def test_labels_follow_their_images(tmp_path: Path) -> None:
    labels = np.arange(60) % 5
    images = np.broadcast_to(labels[:, None, None], (60, 2, 2)).astype(np.uint8)
    data = load(save_npz(tmp_path / "x.npz", images=images, labels=labels), tmp_path)
    for split in SPLITS:
        found = getattr(data, f"{split}_labels")
        assert found.dtype == np.int64
        assert np.array_equal(found, getattr(data, split)[:, 0, 0, 0])
    assert data.num_classes == 5


def test_split_is_fixed_by_its_seed(tmp_path: Path) -> None:
    first, again = load("digits", tmp_path), load("digits", tmp_path)
    other = load("digits", tmp_path, split_seed=1)
    assert np.array_equal(first.validation, again.validation)
    assert not np.array_equal(first.validation, other.validation)
    assert first.digest == again.digest != other.digest


def test_a_test_set_of_its_own_is_kept_whatever_the_seed(tmp_path: Path) -> None:
    test = pixels(7, 3, 3, seed=1)
    name = save_npz(tmp_path / "x.npz", images=pixels(30, 3, 3), test_images=test)
    for seed in (0, 1):
        data = load(name, tmp_path, split_seed=seed)
        assert sizes(data) == (25, 5, 7)
        assert np.array_equal(data.test[:, 0], test)


def test_validation_and_test_are_binarised_once(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8).reshape(1, 16, 16), (3000, 1, 1))
    data = load(save_npz(tmp_path / "x.npz", images=ramp), tmp_path)
    binary, again = data.with_binary_evaluation(), data.with_binary_evaluation()
    assert np.array_equal(binary.train, data.train) and binary.digest == data.digest
    for split in ("validation", "test"):
        images = getattr(binary, split)
        assert images.dtype == np.uint8 and set(np.unique(images)) == {0, 255}
        assert np.array_equal(images, getattr(again, split))
        found, expected = (images == 255).reshape(-1, 256).mean(0), np.arange(256) / 255
        assert np.abs(found - expected).max() < 4.5 * 0.5 / len(images) ** 0.5
        assert (found[0], found[255]) == (0.0, 1.0)


def test_digest_changes_with_a_pixel_and_with_a_label(tmp_path: Path) -> None:
    images, labels = pixels(30, 3, 3), np.arange(30) % 3
    brighter, relabelled = images.copy(), labels.copy()
    brighter[4, 1, 1] ^= 1
    relabelled[4] = (relabelled[4] + 1) % 3
    variants = [
        {"images": images, "labels": labels},
        {"images": brighter, "labels": labels},
        {"images": images, "labels": relabelled},
        {"images": images},
        {"images": images.reshape(30, 1, 9), "labels": labels},
    ]
    digests = [load(save_npz(tmp_path / "x.npz", **v), tmp_path).digest for v in variants]
    assert len(set(digests)) == len(variants)
    assert all(re.fullmatch("[0-9a-f]{32}", digest) for digest in digests)


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("digits", "digits"),
        ("folder:/a/b/cats", "folder-cats"),
        ("folder:/a/b/cats/", "folder-cats"),
        ("folder:/a/my cats: v1.2", "folder-my-cats-v1.2"),
        ("folder:/", "folder"),
        ("npz:/x/y.npz", "npz-y"),
    ],
)
def test_slug_is_safe_for_files_and_experiments(name: str, slug: str) -> None:
    empty = pixels(0, 1, 1, 1)
    assert Dataset(name, empty, empty, empty, None, None, None, 0, "").slug == slug
