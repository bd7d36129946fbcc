"""Folders of images: classes, formats, sizes and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.data import SPLITS, all_images, message, pixels, rows, save_image, save_images, sizes

from pipelines.data import load


def test_folder_with_classes(tmp_path: Path) -> None:
    for label, name in enumerate(["ant", "bee", "cat"]):
        for index in range(6):
            grey = np.full((20, 20), 100 * label, np.uint8)
            save_image(tmp_path / name / "deep" / f"{index}.png", grey)
    data = load(f"folder:{tmp_path}", tmp_path, image_size=10)
    assert data.spec.shape == (1, 10, 10) and data.num_classes == 3
    for split in SPLITS:
        labels = getattr(data, f"{split}_labels")
        assert np.array_equal(getattr(data, split)[:, 0, 0, 0], 100 * labels)


def test_folder_without_classes_is_unlabelled(tmp_path: Path) -> None:
    save_images(tmp_path, 12, 5, 7, 3)
    (tmp_path / "notes.txt").write_text("not an image")
    data = load(f"folder:{tmp_path}", tmp_path)
    assert sizes(data) == (9, 1, 2) and data.spec.shape == (3, 64, 64)
    assert data.num_classes == 0 and data.train_labels is None
    assert data.digest == load(f"folder:{tmp_path}", tmp_path).digest


@pytest.mark.parametrize("shape", [(8, 24), (24, 8)])
def test_middle_of_an_oblong_image_is_kept(tmp_path: Path, shape: tuple[int, int]) -> None:
    image = np.zeros((8, 24), np.uint8)
    image[:, 8:16] = 200
    for index in range(12):
        save_image(tmp_path / f"{index}.png", image if shape == (8, 24) else image.T)
    data = load(f"folder:{tmp_path}", tmp_path, image_size=4)
    assert data.train.shape[1:] == (1, 4, 4) and (data.train == 200).all()


def test_images_of_its_own_size_are_not_changed(tmp_path: Path) -> None:
    save_images(tmp_path, 12, 9, 9, 3)
    data = load(f"folder:{tmp_path}", tmp_path, image_size=9)
    written = np.stack([pixels(9, 9, 3, seed=seed) for seed in range(12)])
    assert rows(all_images(data)) == rows(written.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(("channels", "count"), [("grey", 1), ("colour", 3)])
def test_mixed_folder_with_channels_given(tmp_path: Path, channels: Any, count: int) -> None:
    save_images(tmp_path / "a", 6, 8, 8)
    save_images(tmp_path / "b", 6, 8, 8, 3)
    data = load(f"folder:{tmp_path}", tmp_path, image_size=8, channels=channels)
    assert data.spec.shape == (count, 8, 8)


def rgba() -> Image.Image:
    half = np.zeros((4, 4, 4), np.uint8)
    half[:, :2] = (10, 20, 30, 255)
    return Image.fromarray(half)


def palette() -> Image.Image:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    return image


def rotated(path: Path) -> None:
    """White above black, stored on its side."""
    image = Image.new("L", (4, 4), 0)
    image.paste(255, (0, 0, 2, 4))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path, exif=exif)


FORMATS: list[tuple[Callable[[Path], None], list[list[int]]]] = [
    # corners at top left and bottom right, by channel
    (lambda p: rgba().save(p), [[10, 255], [20, 255], [30, 255]]),
    (lambda p: rgba().convert("LA").save(p), [[18, 255]]),
    (lambda p: palette().save(p), [[10, 10], [20, 20], [30, 30]]),
    (lambda p: Image.fromarray(np.full((4, 4), 257 * 99, np.uint16)).save(p), [[99, 99]]),
    (lambda p: Image.new("1", (4, 4), 1).save(p), [[255, 255]]),
    (rotated, [[255, 0]]),
]


@pytest.mark.parametrize(("save", "corners"), FORMATS)
def test_image_formats(
    tmp_path: Path, save: Callable[[Path], None], corners: list[list[int]]
) -> None:
    for index in range(12):
        save(tmp_path / f"{index}.png")
    image = load(f"folder:{tmp_path}", tmp_path, image_size=4).train[0]
    assert image[:, [0, 3], [0, 3]].tolist() == corners


def test_sixteen_bit_pgm(tmp_path: Path) -> None:
    for index in range(12):
        (tmp_path / f"{index}.pgm").write_bytes(b"P5 2 2 65535\n" + b"\x40\x40" * 4)
    assert (load(f"folder:{tmp_path}", tmp_path, image_size=2).train == 0x40).all()


def test_mixed_channels(tmp_path: Path) -> None:
    save_images(tmp_path / "a", 6, 8, 8)
    save_images(tmp_path / "b", 6, 8, 8, 3)
    said = message(f"folder:{tmp_path}")
    assert f"{tmp_path / 'b' / '00.png'} is in colour" in said
    assert f"{tmp_path / 'a' / '00.png'} is grey" in said
    assert "--channels grey" in said and "--channels colour" in said


@pytest.mark.parametrize("keep", [0, 30, 100])
def test_unreadable_image(tmp_path: Path, keep: int) -> None:
    save_images(tmp_path, 12, 16, 16, 3)
    broken = tmp_path / "07.png"
    broken.write_bytes(broken.read_bytes()[:keep])
    said = message(f"folder:{tmp_path}")
    assert str(broken) in said and "not a readable image" in said and "remove" in said


def test_image_of_32_bits(tmp_path: Path) -> None:
    save_images(tmp_path, 12, 8, 8)
    odd = tmp_path / "z.tiff"
    save_image(odd, np.zeros((8, 8), np.float32))
    said = message(f"folder:{tmp_path}")
    assert str(odd) in said and "32 bits" in said and "8 or 16" in said


def test_folder_that_is_not_one(tmp_path: Path) -> None:
    file = tmp_path / "file.png"
    save_image(file, pixels(8, 8))
    absent = tmp_path / "absent"
    assert f"{absent}: does not exist" in message(f"folder:{absent}")
    assert f"{file}: is a file" in message(f"folder:{file}")
    assert "expected files that can be read" in message(f"folder:{tmp_path}/{'x' * 300}")


def test_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not an image")
    said = message(f"folder:{tmp_path}")
    assert f"{tmp_path}: holds no images" in said and ".png" in said


def test_class_folder_without_images(tmp_path: Path) -> None:
    save_images(tmp_path / "ant", 12, 8, 8)
    (tmp_path / "bee").mkdir()
    said = message(f"folder:{tmp_path}")
    assert f"{tmp_path / 'bee'}: class folder without images" in said and "remove" in said


def test_images_beside_class_folders(tmp_path: Path) -> None:
    save_images(tmp_path / "ant", 12, 8, 8)
    save_image(tmp_path / "stray.png", pixels(8, 8))
    said = message(f"folder:{tmp_path}")
    assert str(tmp_path) in said and "stray.png" in said and "move" in said
