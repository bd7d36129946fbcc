"""Data sets in files, as tests write them, and what tests compare."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gen_models.core.errors import InputError
from pipelines.data import Dataset, load

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
    """Load a data set that is wrong; return the `InputError`'s message, which is one line."""
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
