"""Data sets: what is read, how it is split, and what is said of everything that is wrong."""

import gzip
import hashlib
import os
import pickle
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gen_models.core.errors import InputError
from gen_models.metrics import mixtures, nearest_mode
from pipelines.config.run import Train, defaults
from pipelines.data import Dataset, load, names
from pipelines.data.mixtures import MIXTURES
from pipelines.training.preflight import load_data

SPLITS = ("train", "validation", "test")


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def all_images(data: Dataset) -> np.ndarray:
    return np.concatenate([getattr(data, split) for split in SPLITS])


def sizes(data: Dataset) -> tuple[int, ...]:
    return tuple(len(getattr(data, split)) for split in SPLITS)


def rows(images: np.ndarray) -> list[bytes]:
    return sorted(image.tobytes() for image in images)


def message(name: str, root: Path = Path("nowhere"), **options: Any) -> str:
    """What the user is told: one paragraph, by an `InputError`."""
    with pytest.raises(InputError) as caught:
        load(name, root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def save_npz(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return f"npz:{path}"


def save_image(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def save_images(folder: Path, count: int, *shape: int) -> None:
    for index in range(count):
        save_image(folder / f"{index:02}.png", pixels(*shape, seed=index))


def idx(array: np.ndarray, magic: int | None = None) -> bytes:
    first = 0x0800 + array.ndim if magic is None else magic
    return np.array([first, *array.shape], ">u4").tobytes() + array.tobytes()


def save_mnist(root: Path, kind: str = "MNIST") -> Path:
    """24 training and 6 test images in MNIST's four files."""
    raw = root / kind / "raw"
    raw.mkdir(parents=True)
    for split, count in (("train", 24), ("t10k", 6)):
        (raw / f"{split}-images-idx3-ubyte").write_bytes(idx(pixels(count, 28, 28, seed=count)))
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(idx(labels))
    return raw


# Splits and digest


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
    run = defaults(Train, "vae")
    for on in (False, True):
        loaded = load_data(replace(run, data=f"npz:{tmp_path / 'x.npz'}", binarise=on))
        assert np.array_equal(loaded.test, (binary if on else data).test)


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


# Published data sets


def test_digits() -> None:
    data = load("digits", Path("nowhere"))
    assert sizes(data) == (1249, 249, 299)
    for split in SPLITS:
        images = getattr(data, split)
        assert images.dtype == np.uint8 and images.shape[1:] == (1, 8, 8)
        assert images.flags.c_contiguous and images.flags.writeable
    found = all_images(data)
    assert found.min() == 0 and found.max() == 255 and len(np.unique(found)) == 17
    assert data.spec.shape == (1, 8, 8) and data.spec.num_classes == 10


@pytest.mark.mnist
def test_mnist() -> None:
    root = os.environ.get("GENPIPE_DATA_ROOT")
    if not root or not Path(root, "MNIST", "raw").is_dir():
        pytest.skip("GENPIPE_DATA_ROOT names no folder that holds MNIST/raw")
    data = load("mnist", Path(root))
    assert sizes(data) == (50_000, 10_000, 10_000)
    assert data.spec.shape == (1, 28, 28) and data.num_classes == 10
    assert data.test_labels is not None and data.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    counts = np.bincount(np.concatenate([data.train_labels, data.validation_labels]))
    assert counts.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert abs(data.train.mean() / 255 - 0.1307) < 0.001
    assert data.train.flags.c_contiguous and data.test.flags.writeable


@pytest.mark.parametrize(("name", "kind"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_mnist_files(tmp_path: Path, name: str, kind: str) -> None:
    save_mnist(tmp_path, kind)
    data = load(name, tmp_path)
    assert sizes(data) == (20, 4, 6)
    assert np.array_equal(data.test[:, 0], pixels(6, 28, 28, seed=6))
    assert data.test_labels is not None and data.test_labels.tolist() == [0, 1, 2, 3, 4, 5]


def test_mnist_files_still_compressed(tmp_path: Path) -> None:
    raw = save_mnist(tmp_path)
    extracted = load("mnist", tmp_path)
    for path in list(raw.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert load("mnist", tmp_path).digest == extracted.digest


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import MNIST

    published = save_mnist(tmp_path / "published")
    resources = []
    for path in list(published.iterdir()):
        compressed = path.with_name(f"{path.name}.gz")
        compressed.write_bytes(gzip.compress(path.read_bytes()))
        resources.append((compressed.name, md5(compressed)))
    monkeypatch.setattr(MNIST, "resources", resources)
    assert "--download" in message("mnist", tmp_path / "root")
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=published)
    ) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        fetched = load("mnist", tmp_path / "root", download=True)
        server.shutdown()
    assert fetched.digest == load("mnist", tmp_path / "published").digest


@pytest.mark.parametrize("name", ["mnist", "cifar10", "svhn"])
def test_download_without_network(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    said = message(name, tmp_path, download=True)
    assert f"{name}: the download to {tmp_path} failed" in said and "network" in said


def save_cifar(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CIFAR-10's seven files with 4 images each, and their checksums for the published ones."""
    from torchvision.datasets import CIFAR10

    folder = root / CIFAR10.base_folder
    folder.mkdir()
    batches = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    for seed, batch in enumerate(batches):
        content = {"data": pixels(4, 3072, seed=seed), "labels": [0, 1, 2, 9]}
        (folder / batch).write_bytes(pickle.dumps(content))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    sums = [[batch, md5(folder / batch)] for batch in batches]
    monkeypatch.setattr(CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(CIFAR10, "test_list", sums[5:])
    meta = {**CIFAR10.meta, "md5": md5(folder / "batches.meta")}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    return folder


def test_cifar10_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_cifar(tmp_path, monkeypatch)
    data = load("cifar10", tmp_path)
    assert sizes(data) == (17, 3, 4) and data.spec.shape == (3, 32, 32)
    assert np.array_equal(data.test, pixels(4, 3072, seed=5).reshape(4, 3, 32, 32))
    assert data.test_labels is not None and data.test_labels.tolist() == [0, 1, 2, 9]
    assert data.test.flags.c_contiguous


def test_cifar10_is_not_unpickled_if_its_checksum_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Touch:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
            return os.mkdir, (str(tmp_path / "code ran"),)

    batch = save_cifar(tmp_path, monkeypatch) / "data_batch_3"
    batch.write_bytes(pickle.dumps(Touch()))
    said = message("cifar10", tmp_path)
    assert f"{batch} is damaged" in said and "MD5" in said and "--download" in said
    assert not (tmp_path / "code ran").exists()


def test_svhn_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    sums = {}
    for split, count in (("train", 18), ("test", 5)):
        path = tmp_path / f"{split}_32x32.mat"
        labels = (np.arange(count) % 10 + 1).astype(np.uint8)[:, None]
        savemat(path, {"X": pixels(32, 32, 3, count), "y": labels})
        sums[split] = [SVHN.split_list[split][0], path.name, md5(path)]
    monkeypatch.setattr(SVHN, "split_list", sums)
    data = load("svhn", tmp_path)
    assert sizes(data) == (15, 3, 5) and data.spec.shape == (3, 32, 32)
    assert np.array_equal(data.test[1, 2], pixels(32, 32, 3, 5)[:, :, 2, 1])
    assert data.test_labels is not None and data.test_labels.tolist() == [1, 2, 3, 4, 5]
    assert data.test.flags.c_contiguous and data.num_classes == 10


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mnist", "MNIST/raw/t10k-labels-idx1-ubyte"),
        ("fashion_mnist", "FashionMNIST/raw/train-images-idx3-ubyte"),
        ("cifar10", "cifar-10-batches-py/data_batch_5"),
        ("svhn", "test_32x32.mat"),
    ],
)
def test_missing_files(tmp_path: Path, name: str, file: str) -> None:
    said = message(name, tmp_path / "absent")
    assert f"{tmp_path / 'absent'} lacks" in said and file in said
    assert "--download" in said and "--data-root" in said
    assert not (tmp_path / "absent").exists()


def truncated(content: bytes) -> bytes:
    return content[:-1]


BAD_IDX: list[tuple[str, Callable[[bytes], bytes], list[str]]] = [
    ("train-images-idx3-ubyte", truncated, ["18831 bytes", "18832", "(24, 28, 28)", "--download"]),
    ("train-images-idx3-ubyte", lambda _: b"", ["0 bytes", "header of 16", "--download"]),
    ("train-images-idx3-ubyte", lambda c: c + b"0", ["18833 bytes", "18832"]),
    ("train-images-idx3-ubyte", gzip.compress, ["magic number", "2051"]),
    ("t10k-images-idx3-ubyte", lambda _: idx(pixels(6, 8, 9)), ["8x9", "28x28"]),
    ("t10k-labels-idx1-ubyte", lambda _: idx(pixels(5)), ["5 labels", "6 images", "--download"]),
    ("t10k-labels-idx1-ubyte", lambda _: idx(pixels(6), 2051), ["magic number 2051", "2049"]),
    ("t10k-labels-idx1-ubyte", lambda c: c[:-1] + b"\x0a", ["label 10", "0 to 9"]),
]


@pytest.mark.parametrize(("file", "damage", "words"), BAD_IDX)
def test_damaged_mnist_file(
    tmp_path: Path, file: str, damage: Callable[[bytes], bytes], words: list[str]
) -> None:
    path = save_mnist(tmp_path) / file
    path.write_bytes(damage(path.read_bytes()))
    said = message("mnist", tmp_path)
    assert str(path) in said
    assert all(word in said for word in words), said


@pytest.mark.parametrize("damage", [truncated, lambda _: b"<html>"])
def test_damaged_compressed_mnist_file(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = save_mnist(tmp_path) / "train-images-idx3-ubyte"
    compressed = path.with_name(f"{path.name}.gz")
    compressed.write_bytes(damage(gzip.compress(path.read_bytes())))
    path.unlink()
    said = message("mnist", tmp_path)
    assert f"{compressed}: not readable" in said and "--download" in said


def test_data_root_that_cannot_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    said = message("mnist", blocked, download=True)
    assert "download" in said and str(blocked) in said


# Folders of images


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


# NumPy archives


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((15, 1, 4, 5), (0, 1, 2, 3)),
        ((15, 3, 4, 5), (0, 1, 2, 3)),
        ((15, 1, 4, 5), (0, 2, 3, 1)),
        ((15, 3, 4, 5), (0, 2, 3, 1)),
        ((15, 1, 4, 5), (0, 2, 3)),
        ((15, 1, 3, 1), (0, 2, 3)),
    ],
)
def test_npz_layouts(tmp_path: Path, shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    images = pixels(*shape)
    given = images.transpose(axes) if len(axes) == 4 else images[:, 0]
    data = load(save_npz(tmp_path / "x.npz", train=given), tmp_path)
    assert data.spec.shape == shape[1:] and data.train.flags.c_contiguous
    assert rows(all_images(data)) == rows(images)


def test_npz_with_test_labels(tmp_path: Path) -> None:
    arrays = {"images": pixels(12, 4, 4), "labels": np.zeros(12, np.uint8)}
    arrays |= {"test_images": pixels(3, 4, 4), "test_labels": np.array([0, 5, 1], np.int16)}
    data = load(save_npz(tmp_path / "x.npz", **arrays), tmp_path)
    assert data.num_classes == 6
    assert data.test_labels is not None and data.test_labels.tolist() == [0, 5, 1]


IMAGES = pixels(20, 4, 4)
LABELS = np.arange(20) % 4
BAD_NPZ: list[tuple[dict[str, Any], list[str]]] = [
    ({"pictures": IMAGES}, ["unknown keys ['pictures']", "images"]),
    ({"labels": LABELS}, ["keys ['labels']", "images", "train"]),
    ({"images": IMAGES, "train": IMAGES}, ["one of", "images", "train"]),
    ({"images": IMAGES / 255}, ["images of type float64", "uint8"]),
    ({"images": IMAGES[0]}, ["shape (4, 4)", "(N, H, W)"]),
    ({"images": pixels(20, 4, 4, 2)}, ["shape (20, 4, 4, 2)", "C 1 or 3"]),
    ({"images": pixels(20, 3, 4, 3)}, ["shape (20, 3, 4, 3)", "C 1 or 3"]),
    ({"images": pixels(20, 4, 0)}, ["shape (20, 4, 0)", "(N, H, W)"]),
    ({"images": pixels(20, 1, 3, 4, 4)}, ["shape (20, 1, 3, 4, 4)", "(N, H, W)"]),
    ({"images": IMAGES, "labels": LABELS[:19]}, ["shape (19,)", "(20,)"]),
    ({"images": IMAGES, "labels": LABELS[:, None]}, ["shape (20, 1)", "(20,)"]),
    ({"images": IMAGES, "labels": LABELS - 1}, ["labels of -1 to 2", "from 0"]),
    ({"images": IMAGES, "labels": LABELS + 10**6}, ["1000003", "from 0"]),
    ({"images": IMAGES, "labels": LABELS / 2}, ["labels of type float64", "integers"]),
    ({"images": IMAGES, "test_images": pixels(4, 5, 5)}, ["(1, 5, 5)", "(1, 4, 4)"]),
    ({"images": IMAGES, "test_images": IMAGES[:0]}, ["0 test images", "at least 1"]),
    ({"images": IMAGES, "labels": LABELS, "test_images": IMAGES}, ["expected test_labels"]),
    ({"images": IMAGES, "test_labels": LABELS}, ["test_labels", "test_images"]),
    ({"images": IMAGES[:11]}, ["11 images", "at least 12"]),
    ({"images": IMAGES[:0]}, ["0 images", "at least 12"]),
    ({"images": np.array([{}], object)}, ["pickle", "numpy.savez"]),
]


@pytest.mark.parametrize(("arrays", "words"), BAD_NPZ)
def test_bad_npz(tmp_path: Path, arrays: dict[str, Any], words: list[str]) -> None:
    path = tmp_path / "x.npz"
    said = message(save_npz(path, **arrays))
    assert str(path) in said
    assert all(word in said for word in words), said


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 and no more"])
def test_npz_that_is_not_one(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    said = message(f"npz:{path}")
    assert f"{path}: not a NumPy archive" in said and "numpy.savez" in said


def test_damaged_npz(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    name = save_npz(path, images=IMAGES)
    content = bytearray(path.read_bytes())
    content[200] ^= 255
    path.write_bytes(content)
    assert f"{path}: not a NumPy archive" in message(name)


def test_zip_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images", b"no array")
    said = message(f"npz:{path}")
    assert f"{path}: images of type" in said and "uint8" in said


def test_npy_is_not_npz(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, IMAGES)
    assert f"{path}: not a NumPy archive" in message(f"npz:{path}")


def test_npz_without_a_file(tmp_path: Path) -> None:
    assert f"{tmp_path}: is a folder" in message(f"npz:{tmp_path}")
    assert "absent.npz: does not exist" in message(f"npz:{tmp_path}/absent.npz")


# Mixtures


@pytest.mark.parametrize("name", MIXTURES)
def test_mixtures(name: str, tmp_path: Path) -> None:
    data, again = load(name, tmp_path), load(name, tmp_path)
    mixture = mixtures.MIXTURES[name]()
    assert sizes(data) == (25_000, 5_000, 6_000)
    assert data.spec.shape == (2,) and data.num_classes == len(mixture.centres)
    assert data.train.dtype == np.float32 and data.train.flags.c_contiguous
    assert data.train.min() > 0.0 and data.train.max() < 1.0
    assert data.train_labels is not None and data.digest == again.digest
    points, labels = torch.from_numpy(data.train), torch.from_numpy(data.train_labels)
    assert torch.equal(nearest_mode(points, mixture.centres, mixture.std, within=9.0), labels)


def test_every_mixture_has_a_name() -> None:
    assert tuple(mixtures.MIXTURES) == MIXTURES


# Names and options


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mnits", "did you mean mnist?"),
        ("MNIST", "did you mean mnist?"),
        ("fodler:/x", "did you mean folder:PATH?"),
        ("npz", "did you mean npz:PATH?"),
        ("folder:", "did you mean folder:PATH?"),
        ("mnist:x", "did you mean mnist?"),
        ("imagenet-22k", "expected one of digits"),
        ("", "expected one of digits"),
    ],
)
def test_unknown_name(name: str, hint: str) -> None:
    said = message(name)
    assert f"data = {name!r}" in said and hint in said
    assert all(known in said for known in names())


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("folder:x", {"image_size": 0}, ["image_size = 0", "1 to 1024"]),
        ("folder:x", {"image_size": 1025}, ["image_size = 1025", "1 to 1024"]),
        ("folder:x", {"channels": "gray"}, ["channels = 'gray'", "auto, grey, colour"]),
        ("digits", {"image_size": 32}, ["image_size = 32", "'digits'", "folder:PATH only"]),
        ("digits", {"channels": "grey"}, ["channels = 'grey'", "folder:PATH only"]),
        ("digits", {"split_seed": -1}, ["split_seed = -1", "at least 0"]),
    ],
)
def test_bad_option(name: str, options: dict[str, Any], words: list[str]) -> None:
    said = message(name, **options)
    assert all(word in said for word in words), said


def test_import_is_light() -> None:
    code = "import sys, pipelines.data; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "torchvision", "sklearn", "PIL"} & set(ran.stdout.split())
