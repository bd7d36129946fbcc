"""Images in a folder of the user's, of any size and format, brought to one shape.

Decoding, EXIF orientation, transparency and 16-bit images are handled with Pillow; cropping and
resizing with torchvision.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gen_models.core.errors import InputError, shown
from pipelines.data.dataset import Arrays, Labels, Part, Pixels
from pipelines.data.limits import require_justified
from pipelines.data.source import ReadRequest, Source

if TYPE_CHECKING:
    from PIL.Image import Image

MODES = {"grey": "L", "colour": "RGB"}
"""Pillow's mode of the images that are returned, by `channels`."""
GREY_MODES = {"1", "L", "LA", "La"}
"""Pillow's grey modes of at most 8 bits; palettes count as colour."""
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
"""Pillow's formats that are decoded, whatever a file is called. Pillow reads some others with
programs of their own, such as PostScript."""
_BYTES_A_PIXEL = 4
"""While an image is decoded: four channels of 8 bits, or one of 32."""


def read(request: ReadRequest) -> Arrays:
    """Read the images under `request.path`, as squares of `request.image_size` pixels.

    The folders in it are the classes, in alphabetical order, and hold images at any depth. A
    folder with images directly in it, and no folders, is unlabelled. The middle square of each
    image is resized bilinearly. EXIF orientation is applied, transparent pixels become white and
    16-bit images are reduced to 8 bits.

    Raises `InputError` if there is no such folder, it or one of its classes has no images, an
    image cannot be read, or with `channels` `auto` some images are grey and others in colour.
    """
    size, channels = request.image_size, request.channels
    paths, labels, num_classes = _list_images(request.path)
    first = paths[0]
    mode = _open(first).mode if channels == "auto" else MODES[channels]
    like = first if channels == "auto" else None
    images = np.empty((len(paths), 3 if mode == "RGB" else 1, size, size), np.uint8)
    read_one = partial(_read_image, size=size, mode=mode, like=like)
    with ThreadPoolExecutor() as pool:
        for index, image in enumerate(pool.map(read_one, paths)):
            images[index] = image
    return Arrays(Part(images, labels), None, num_classes)


def _list_images(folder: Path) -> tuple[list[Path], Labels | None, int]:
    """List the images in a fixed order: paths, labels, number of classes."""
    # light: names are listed without torchvision
    from torchvision.datasets.folder import IMG_EXTENSIONS, ImageFolder

    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"{folder}: {found}: expected a folder of images or of class folders")
    formats = ", ".join(IMG_EXTENSIONS)
    inside = sorted(folder.iterdir())
    loose = [path for path in inside if path.is_file() and path.suffix.lower() in IMG_EXTENSIONS]
    if not any(path.is_dir() for path in inside):
        if not loose:
            raise InputError(f"{folder}: holds no images: expected files in {formats}")
        return loose, None, 0
    if loose:
        raise InputError(
            f"{folder}: holds class folders and also images, such as {loose[0].name}: "
            "expected one or the other; move the images into a class folder"
        )
    found = ImageFolder(folder, allow_empty=True)
    labels = np.array(found.targets, np.int64)
    empty = [name for name, label in found.class_to_idx.items() if label not in labels]
    if empty:
        raise InputError(
            f"{folder / empty[0]}: class folder without images: expected files in {formats}; "
            "add some or remove the folder"
        )
    return [Path(path) for path, _ in found.samples], labels, len(found.classes)


def _read_image(path: Path, *, size: int, mode: str, like: Path | None) -> Pixels:
    """Read an image as (C, size, size).

    Raises `InputError` if its mode differs from `mode`, which is that of the image `like`; where
    `like` is None the image is converted.
    """
    from torchvision.transforms import functional  # light: names are listed without torchvision

    image = _open(path)
    if like and image.mode != mode:
        kinds = {"L": "grey", "RGB": "in colour"}
        raise InputError(
            f"{path} is {kinds[image.mode]} but {like} is {kinds[mode]}: expected all alike; "
            "pass --channels grey or --channels colour"
        )
    short = min(image.size)
    square = functional.center_crop(image.convert(mode), [short, short])
    array = np.asarray(functional.resize(square, [size, size]))
    return array[None] if mode == "L" else array.transpose(2, 0, 1)


def _open(path: Path) -> Image:
    """Open an image, turned upright by its EXIF orientation and opaque, in mode L or RGB."""
    from PIL import Image, ImageOps  # light: names are listed without Pillow

    if not path.is_file():  # a pipe could be read for ever
        raise InputError(f"{path}: not a regular file: replace or remove it")
    try:
        with Image.open(path, formats=FORMATS) as image:
            require_justified(str(path), image.width * image.height * _BYTES_A_PIXEL, path)
            ImageOps.exif_transpose(image, in_place=True)
            return _opaque(_eight_bit(image))
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise errors of many types
        raise InputError(
            f"{path}: not a readable image ({shown(str(error))}): replace or remove the file"
        ) from error


def _eight_bit(image: Image) -> Image:
    """Reduce a 16-bit image to 8 bits. Raises `ValueError` for one of 32 bits."""
    from PIL import Image  # light: names are listed without Pillow

    sixteen_bit = image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PPM")
    if sixteen_bit:
        return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("32 bits per pixel, of unknown range; expected 8 or 16")
    return image


def _opaque(image: Image) -> Image:
    """Put the image on a white background, in mode L or RGB."""
    from PIL import Image  # light: names are listed without Pillow

    mode = "L" if image.mode in GREY_MODES else "RGB"
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert(mode)


SOURCE = Source(("folder:PATH",), read, frozenset({"image_size", "channels"}))
