"""torchvision's published data sets: MNIST, Fashion-MNIST, CIFAR-10 and SVHN.

torchvision holds the file names, checksums and mirrors, and downloads the files. Its error
messages do not name the files that are missing or damaged, so all files are checked before it
reads any. MNIST's files are read here: once they are extracted, torchvision verifies neither
their checksums nor that there are as many labels as images.
"""

import gzip
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gen_models.core.errors import InputError
from pipelines.data.dataset import Arrays, Labels, Part, Pixels
from pipelines.data.limits import require_justified
from pipelines.data.source import ReadRequest, Source

NUM_CLASSES = 10
"""Classes of each of these data sets."""

IDX_UINT8 = 0x0800
"""An IDX file's magic number for uint8 elements, without the rank that is added to it."""


def read(request: ReadRequest) -> Arrays:
    """Read one of `PUBLISHED` from the files under `request.root`.

    With `request.download`, missing and damaged files are fetched first. Raises `InputError` if
    the download fails, or if a file is missing, damaged or not of its format.
    """
    import torchvision.datasets  # light: names are listed without torchvision

    name, root = request.name, request.root
    published = PUBLISHED[name]
    kind = getattr(torchvision.datasets, published.kind)
    files = published.files(kind)
    if request.download and _defects(root, files):
        _download(name, kind, root, published.splits)
    defects = _defects(root, files)
    if defects:
        raise InputError(
            f"{name}: {'; '.join(defects)}: expected the published files; "
            "pass --download to fetch them, or --data-root with the folder that holds them"
        )
    train, test = (published.read(kind, root, split) for split in published.splits)
    return Arrays(train, test, NUM_CLASSES)


def _defects(root: Path, files: dict[Path, str | None]) -> list[str]:
    """Describe the files that are missing or do not have their checksum, if any."""
    # light: names are listed without torchvision
    from torchvision.datasets.utils import check_integrity

    # IDX files, the only ones without an MD5, may be compressed.
    places = {file: [root / file] if md5 else _places(root / file) for file, md5 in files.items()}
    missing = [file for file in files if not any(place.is_file() for place in places[file])]
    damaged = [
        f"{root / file} is damaged (its MD5 is not {md5})"
        for file, md5 in files.items()
        if md5 and file not in missing and not check_integrity(root / file, md5)
    ]
    return [f"{root} lacks {', '.join(map(str, missing))}", *damaged] if missing else damaged


def _download(name: str, kind: Any, root: Path, splits: tuple[Any, Any]) -> None:
    """Fetch a data set with torchvision. Raises `InputError` if that fails."""
    try:
        for split in splits:
            kind(root, split, download=True)
    except (RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{name}: the download to {root} failed ({reason}): expected a network connection and "
            "a folder that can be written; or put the files there by hand"
        ) from error


# -- MNIST and Fashion-MNIST ---------------------------------------------------------------------
def _mnist_files(kind: Any) -> dict[Path, str | None]:
    raw = Path(kind.__name__, "raw")
    return {raw / Path(file).stem: None for file, _ in kind.resources}


def _read_mnist(kind: Any, root: Path, train: bool) -> Part:
    raw = root / kind.__name__ / "raw"
    split = "train" if train else "t10k"
    image_path, label_path = raw / f"{split}-images-idx3-ubyte", raw / f"{split}-labels-idx1-ubyte"
    images: Pixels = _read_idx(image_path, rank=3)
    labels: Labels = _read_idx(label_path, rank=1).astype(np.int64)
    if images.shape[1:] != (28, 28):
        found = "x".join(map(str, images.shape[1:]))
        raise InputError(f"{image_path}: images of {found} pixels: expected 28x28")
    if len(images) != len(labels):
        raise InputError(
            f"{label_path}: {len(labels)} labels for the {len(images)} images of {image_path}: "
            "expected as many; delete both and pass --download"
        )
    if len(labels) and labels.max() >= NUM_CLASSES:
        raise InputError(f"{label_path}: label {labels.max()}: expected labels of 0 to 9")
    return Part(images[:, None], labels)


def _places(path: Path) -> list[Path]:
    """Where an IDX file may be: extracted, or compressed as it was downloaded."""
    return [path, path.with_name(f"{path.name}.gz")]


def _read_idx(path: Path, rank: int) -> NDArray[np.uint8]:
    """Read the uint8 array of `rank` dimensions in an IDX file, which may be compressed.

    Raises `InputError` if the file is damaged or of another rank or type.
    """
    path = next(place for place in _places(path) if place.is_file())
    start = 4 + 4 * rank
    remedy = "delete the file and pass --download"
    header = _read_bytes(path, start)
    if len(header) < start:
        raise InputError(
            f"{path}: {len(header)} bytes: expected a header of {start} bytes; {remedy}"
        )
    magic, *shape = (int(number) for number in np.frombuffer(header, ">u4"))
    if magic != IDX_UINT8 + rank:
        raise InputError(
            f"{path}: magic number {magic}: expected {IDX_UINT8 + rank}, of an IDX file "
            f"of rank {rank}; {remedy}"
        )
    size = start + math.prod(shape)
    require_justified(str(path), size, path)
    content = _read_bytes(path, size + 1)
    if len(content) != size:
        found = str(len(content))
        if len(content) > size:
            found = f"more than {size}" if path.suffix == ".gz" else str(path.stat().st_size)
        raise InputError(
            f"{path}: {found} bytes: expected {size} by its header, "
            f"which says shape {tuple(shape)}; {remedy}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()


def _read_bytes(path: Path, most: int) -> bytes:
    """Read at most so many bytes of a file, decompressed."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content: bytes = file.read(most)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: not readable ({error}): delete the file and pass --download"
        ) from error
    return content


# -- CIFAR-10 ------------------------------------------------------------------------------------
# Its files are pickles. torchvision unpickles them only if their MD5 is right.
def _cifar_files(kind: Any) -> dict[Path, str | None]:
    checksums = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    return {Path(kind.base_folder, file): md5 for file, md5 in checksums}


def _read_cifar(kind: Any, root: Path, train: bool) -> Part:
    data = kind(root, train)
    images = np.ascontiguousarray(data.data.transpose(0, 3, 1, 2))
    return Part(images, np.array(data.targets, np.int64))


# -- SVHN ----------------------------------------------------------------------------------------
SVHN_SPLITS = ("train", "test")


def _svhn_files(kind: Any) -> dict[Path, str | None]:
    return {Path(kind.split_list[split][1]): kind.split_list[split][2] for split in SVHN_SPLITS}


def _read_svhn(kind: Any, root: Path, split: str) -> Part:
    data = kind(root, split)
    return Part(np.ascontiguousarray(data.data), data.labels)


@dataclass(frozen=True)
class Published:
    """The files of one of torchvision's data sets, and how they are read."""

    kind: str
    """Its class in `torchvision.datasets`."""
    files: Callable[[Any], dict[Path, str | None]]
    """Maps its files, relative to the data root, to their MD5, or to None where none is known."""
    read: Callable[[Any, Path, Any], Part]
    """Reads a split, given the class, the data root and the split's name."""
    splits: tuple[Any, Any] = (True, False)
    """The class's second argument for the training and the test split."""


PUBLISHED = {
    "mnist": Published("MNIST", _mnist_files, _read_mnist),
    "fashion_mnist": Published("FashionMNIST", _mnist_files, _read_mnist),
    "cifar10": Published("CIFAR10", _cifar_files, _read_cifar),
    "svhn": Published("SVHN", _svhn_files, _read_svhn, SVHN_SPLITS),
}

SOURCE = Source(names=tuple(PUBLISHED), read=read)
