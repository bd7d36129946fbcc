"""torchvision's data sets: files read, fetched, missing and damaged."""

import gzip
import hashlib
import os
import pickle
import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.data import (
    message,
    pixels,
    sizes,
)

from pipelines.data import load


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
