"""Images of the user's in a NumPy archive (.npz), for arrays of any origin."""

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from gen_models.core.errors import InputError, shown
from pipelines.data.dataset import Arrays, Labels, Part, Pixels
from pipelines.data.limits import require_justified
from pipelines.data.source import ReadRequest, Source

IMAGE_KEYS = ("images", "train")
KEYS = (*IMAGE_KEYS, "labels", "test_images", "test_labels")
MAX_CLASSES = 10_000
LAYOUTS = "(N, H, W), (N, H, W, C) or (N, C, H, W) with C 1 or 3"

Archive = dict[str, NDArray[Any]]
"""An archive's arrays, by key."""


def read(request: ReadRequest) -> Arrays:
    """Read `images` (or `train`), and optionally `labels`, `test_images` and `test_labels`.

    Images are uint8 of shape (N, H, W), (N, H, W, C) or (N, C, H, W) with C 1 or 3; labels are
    integers of shape (N,), numbered from 0. Raises `InputError` if the file is no archive, holds
    pickled objects or unknown keys, or an array has another type or shape.
    """
    path = request.path
    archive = _read_archive(path)
    image_key = next(key for key in IMAGE_KEYS if key in archive)
    train = _part(path, archive, image_key, "labels")
    if "test_images" not in archive:
        return Arrays(train, None, _num_classes(train.labels))
    test = _part(path, archive, "test_images", "test_labels")
    if test.images.shape[1:] != train.images.shape[1:]:
        raise InputError(
            f"{path}: test_images of shape {test.images.shape[1:]} (C, H, W): "
            f"expected {train.images.shape[1:]}, as in {image_key}"
        )
    return Arrays(train, test, max(_num_classes(train.labels), _num_classes(test.labels)))


def _read_archive(path: Path) -> Archive:
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path}: {found}: expected a file written by numpy.savez")
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(path, archive)
            return {key: _read_member(archive, member) for key, member in members.items()}
    except InputError:
        raise
    except Exception as error:  # a damaged archive raises whatever zip, zlib or a header does
        raise InputError(
            f"{path}: not a NumPy archive of plain arrays ({shown(str(error))}): "
            "expected a file written by numpy.savez, undamaged and without pickled objects"
        ) from error


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the members by key. Nothing is decompressed. Raises `InputError` if they are not
    `KEYS`, or declare more than the file justifies, and `ValueError` if they are packed in another
    way than NumPy's: the decoder of LZMA takes as much memory as the file wants."""
    members = archive.infolist()
    keys = [member.filename.removesuffix(".npy") for member in members]
    _check_keys(path, keys)
    for member in members:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{member.filename}: compression of type {member.compress_type}")
    require_justified(str(path), sum(member.file_size for member in members), path)
    return dict(zip(keys, members, strict=True))


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    """Read an array in NumPy's format. Raises `ValueError` if its header declares another size
    than it has, or objects."""
    with archive.open(member) as file:
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(file)
        size = file.tell() + math.prod(shape) * dtype.itemsize
    if dtype.hasobject or min(shape, default=0) < 0 or size != member.file_size:
        raise ValueError(
            f"{member.filename}: {member.file_size} bytes for shape {shape} of type {dtype}"
        )
    with archive.open(member) as file:
        array: NDArray[Any] = npy.read_array(file, allow_pickle=False)
    return array


def _check_keys(path: Path, keys: list[str]) -> None:
    """Raise `InputError` unless an archive with these keys can be read."""
    unknown = sorted(set(keys) - set(KEYS))
    if unknown:
        raise InputError(f"{path}: unknown keys {shown(unknown)}: expected only {', '.join(KEYS)}")
    found = [key for key in keys if key in IMAGE_KEYS]
    if len(found) != 1:
        raise InputError(
            f"{path}: keys {shown(sorted(keys))}: expected one of {IMAGE_KEYS} among them"
        )
    if len(set(keys)) < len(keys):
        raise InputError(f"{path}: keys {shown(sorted(keys))}: expected each once")
    should = {"labels", "test_images"} <= set(keys)
    if ("test_labels" in keys) != should:
        raise InputError(
            f"{path}: keys {sorted(keys)}: expected test_labels "
            "with both labels and test_images, and only then"
        )


def _part(path: Path, archive: Archive, image_key: str, label_key: str) -> Part:
    """Take images, and their labels where the archive has any."""
    images = _images(f"{path}: {image_key}", archive[image_key])
    if label_key not in archive:
        return Part(images, None)
    return Part(images, _labels(f"{path}: {label_key}", archive[label_key], len(images)))


def _images(where: str, array: NDArray[Any]) -> Pixels:
    """Check images and bring them to (N, C, H, W), C-contiguous."""
    if array.dtype != np.uint8:
        raise InputError(f"{where} of type {array.dtype}: expected uint8, 0 to 255")
    if array.ndim == 3:
        channel_axes, images = [1], array[:, None]
    else:  # an array with two possible channel axes, such as (N, 3, 28, 3), is ambiguous
        channel_axes, images = [i for i in (1, 3) if array.shape[i : i + 1] in ((1,), (3,))], array
    if images.ndim != 4 or len(channel_axes) != 1 or 0 in images.shape[1:]:
        raise InputError(f"{where} of shape {array.shape}: expected {LAYOUTS}")
    return np.ascontiguousarray(np.moveaxis(images, channel_axes[0], 1))


def _labels(where: str, array: NDArray[Any], count: int) -> Labels:
    """Check labels and convert them to int64, (N,)."""
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"{where} of type {array.dtype}: expected integers")
    if array.shape != (count,):
        raise InputError(f"{where} of shape {array.shape}: expected ({count},), one per image")
    if count and not 0 <= array.min() <= array.max() < MAX_CLASSES:
        raise InputError(
            f"{where} of {array.min()} to {array.max()}: "
            f"expected classes numbered from 0, at most {MAX_CLASSES}"
        )
    return array.astype(np.int64)


def _num_classes(labels: Labels | None) -> int:
    return 0 if labels is None or not len(labels) else int(labels.max()) + 1


SOURCE = Source(names=("npz:PATH",), read=read)
