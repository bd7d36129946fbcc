"""Images of the user's own in a NumPy archive: the shortest way in for arrays of any origin."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gen_models.core.errors import InputError
from pipelines.data.dataset import Labels, Part, Pixels, Source

IMAGE_KEYS = ("images", "train")
KEYS = (*IMAGE_KEYS, "labels", "test_images", "test_labels")
MAX_CLASSES = 10_000
LAYOUTS = "(N, H, W), (N, H, W, C) or (N, C, H, W) with C 1 or 3"

Arrays = dict[str, NDArray[Any]]


def read_npz(path: Path) -> Source:
    """Images from `images` (or `train`), and optionally `labels`, `test_images`, `test_labels`.

    Images are uint8 of shape (N, H, W), (N, H, W, C) or (N, C, H, W) with C 1 or 3; labels are
    integers of shape (N,), from 0. Pickled objects are refused. Raises `InputError` if the file
    or anything in it is otherwise.
    """
    arrays = _read_arrays(path)
    image_key = _check_keys(path, arrays)
    train = _part(path, arrays, image_key, "labels")
    if "test_images" not in arrays:
        return Source(train, None, _num_classes(train.labels))
    test = _part(path, arrays, "test_images", "test_labels")
    if test.images.shape[1:] != train.images.shape[1:]:
        raise InputError(
            f"{path}: test_images of shape {test.images.shape[1:]} (C, H, W): "
            f"expected {train.images.shape[1:]}, as in {image_key}"
        )
    return Source(train, test, max(_num_classes(train.labels), _num_classes(test.labels)))


def _read_arrays(path: Path) -> Arrays:
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path}: {found}: expected a file written by numpy.savez")
    with path.open("rb") as file:
        try:
            with np.load(file, allow_pickle=False) as archive:
                arrays = {key: np.asarray(archive[key]) for key in archive.files}
        except Exception as error:  # a damaged archive raises whatever zip, zlib or a header does
            raise InputError(
                f"{path}: not a NumPy archive of plain arrays: "
                "expected a file written by numpy.savez, undamaged and without pickled objects"
            ) from error
    return arrays


def _check_keys(path: Path, arrays: Arrays) -> str:
    """The key of the training images."""
    unknown = sorted(arrays.keys() - set(KEYS))
    if unknown:
        raise InputError(f"{path}: unknown keys {unknown}: expected only {', '.join(KEYS)}")
    found = [key for key in IMAGE_KEYS if key in arrays]
    if len(found) != 1:
        raise InputError(f"{path}: keys {sorted(arrays)}: expected one of {IMAGE_KEYS} among them")
    labelled = "labels" in arrays
    should = labelled and "test_images" in arrays
    if ("test_labels" in arrays) != should:
        raise InputError(
            f"{path}: keys {sorted(arrays)}: expected test_labels "
            "with both labels and test_images, and only then"
        )
    return found[0]


def _part(path: Path, arrays: Arrays, image_key: str, label_key: str) -> Part:
    images = _images(f"{path}: {image_key}", arrays[image_key])
    if label_key not in arrays:
        return Part(images, None)
    return Part(images, _labels(f"{path}: {label_key}", arrays[label_key], len(images)))


def _images(where: str, array: NDArray[Any]) -> Pixels:
    """The images as (N, C, H, W), C-contiguous."""
    if array.dtype != np.uint8:
        raise InputError(f"{where} of type {array.dtype}: expected uint8, 0 to 255")
    if array.ndim == 3:
        channel_axes, images = [1], array[:, None]
    else:  # both axes, as in (N, 3, 28, 3), would be two readings
        channel_axes, images = [i for i in (1, 3) if array.shape[i : i + 1] in ((1,), (3,))], array
    if images.ndim != 4 or len(channel_axes) != 1 or 0 in images.shape[1:]:
        raise InputError(f"{where} of shape {array.shape}: expected {LAYOUTS}")
    return np.ascontiguousarray(np.moveaxis(images, channel_axes[0], 1))


def _labels(where: str, array: NDArray[Any], count: int) -> Labels:
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
