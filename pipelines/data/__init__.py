"""Images for training: a data set, by name, as arrays in memory, split the same way every time.

A name is that of a published data set (`digits`, `mnist`, …) or of a mixture of Gaussians in the
plane (`ring8`, `grid25`), or `folder:` or `npz:` followed by the path of the user's own images.
Whatever the source, it becomes a `Dataset`: arrays in one layout, uint8 for images, with training,
validation and test splits that depend on the data and on a split seed, never on a trial's seed,
so that all the trials of a search are judged on the same images.
"""

import difflib
from collections.abc import Callable
from pathlib import Path

from gen_models.core.errors import InputError, require
from pipelines.data.dataset import Dataset, Source, assemble
from pipelines.data.folder import CHANNELS, Channels, read_folder
from pipelines.data.mixtures import MIXTURES, read_mixture
from pipelines.data.npz import read_npz
from pipelines.data.published import PUBLISHED, read_digits, read_published

__all__ = ["Channels", "Dataset", "load", "names"]

DEFAULT_IMAGE_SIZE = 64
MAX_IMAGE_SIZE = 1024


def names() -> list[str]:
    """What `load` accepts as a name, for help and for error messages."""
    return ["digits", *PUBLISHED, *MIXTURES, "folder:PATH", "npz:PATH"]


def load(
    name: str,
    root: Path,
    *,
    download: bool = False,
    image_size: int | None = None,
    channels: Channels = "auto",
    split_seed: int = 0,
) -> Dataset:
    """Load a data set into memory.

    `root` is where torchvision's data sets lie, or are put when `download` is set; nothing else
    uses the network. `image_size` (pixels, 1 to 1024, 64 unless given) and `channels` say how the
    images of a `folder:` are brought to one shape; every other data set has a shape of its own.
    Validation is one sixth of the training images and test, where the data set has none, one
    sixth of all, both drawn by `split_seed`.

    Raises `InputError` if the name is unknown, an option does not apply, or the data are missing,
    damaged, too few or of the wrong shape.
    """
    _check_options(name, image_size, channels, split_seed)
    readers: dict[str, Callable[[Path], Source]] = {
        "folder": lambda path: read_folder(path, image_size or DEFAULT_IMAGE_SIZE, channels),
        "npz": read_npz,
    }
    kind, _, path = name.partition(":")
    try:
        if name == "digits":
            source = read_digits()
        elif name in PUBLISHED:
            source = read_published(name, root, download)
        elif name in MIXTURES:
            source = read_mixture(name)
        elif path and kind in readers:
            source = readers[kind](Path(path).expanduser())
        else:
            raise InputError(_unknown(name))
    except OSError as error:
        raise InputError(f"data = {name!r}: expected files that can be read: {error}") from error
    return assemble(name, source, split_seed)


def _check_options(name: str, image_size: int | None, channels: str, split_seed: int) -> None:
    in_range = image_size is None or 1 <= image_size <= MAX_IMAGE_SIZE
    require(in_range, "image_size", image_size, f"1 to {MAX_IMAGE_SIZE} pixels")
    require(channels in CHANNELS, "channels", channels, f"one of {', '.join(CHANNELS)}")
    require(split_seed >= 0, "split_seed", split_seed, "an integer of at least 0")
    if not name.startswith("folder:"):
        own = f"it left out for data = {name!r}: it applies to folder:PATH only"
        require(image_size is None, "image_size", image_size, own)
        require(channels == "auto", "channels", channels, own)


def _unknown(name: str) -> str:
    known = {full.partition(":")[0]: full for full in names()}
    close = difflib.get_close_matches(name.partition(":")[0].lower(), known, n=1)
    hint = f"; did you mean {known[close[0]]}?" if close else ""
    return f"data = {name!r}: expected one of {', '.join(names())}{hint}"
