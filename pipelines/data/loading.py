"""Finds the data sources, checks a request against them and loads the data."""

import difflib
import pkgutil
from importlib import import_module
from pathlib import Path

import pipelines.data.sources as source_modules
from gen_models.core.errors import InputError, require
from pipelines.data.dataset import Dataset, assemble
from pipelines.data.source import (
    CHANNELS,
    DEFAULT_IMAGE_SIZE,
    MAX_IMAGE_SIZE,
    Channels,
    Option,
    ReadRequest,
    Source,
)


def names() -> list[str]:
    """List the names that `load` accepts, for help and for error messages.

    Names that stand alone come first, then those with a path, such as `folder:PATH`.
    """
    return sorted((name for source in _sources() for name in source.names), key=_has_path)


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

    `root` is the folder of torchvision's data sets; with `download`, missing ones are fetched
    into it, and nothing else uses the network. `image_size` (pixels, 1 to 1024, 64 unless given)
    and `channels` define the shape that the images of a `folder:` are brought to; every other
    data set has a shape of its own. Validation is one sixth of the training images. Test, where
    the data set has none, is one sixth of all. Both are drawn with `split_seed`.

    Raises `InputError` if the name is unknown, an option does not apply, or the data are missing,
    damaged, too few or of the wrong shape.
    """
    in_range = image_size is None or 1 <= image_size <= MAX_IMAGE_SIZE
    require(in_range, "image_size", image_size, f"1 to {MAX_IMAGE_SIZE} pixels")
    require(channels in CHANNELS, "channels", channels, f"one of {', '.join(CHANNELS)}")
    require(split_seed >= 0, "split_seed", split_seed, "an integer of at least 0")
    source = _find(name)
    _require_option(source, name, "image_size", image_size, default=None)
    _require_option(source, name, "channels", channels, default="auto")
    try:
        path = Path(name.partition(":")[2]).expanduser()
        size = DEFAULT_IMAGE_SIZE if image_size is None else image_size
        arrays = source.read(ReadRequest(name, path, root, download, size, channels))
    except OSError as error:
        raise InputError(f"data = {name!r}: expected files that can be read: {error}") from error
    return assemble(name, arrays, split_seed)


def absolute_name(name: str) -> str:
    """Return a data set's name with an absolute path, if it has one: it must mean the same from
    another folder."""
    kind, colon, path = name.partition(":")
    return f"{kind}:{Path(path).expanduser().absolute()}" if colon and path else name


def is_moved(name: str, before: str) -> bool:
    """Return whether two names may mean the same data at another path, as their digests tell."""
    return ":" in name and name.partition(":")[0] == before.partition(":")[0]


def _sources() -> list[Source]:
    """The sources of all modules in `pipelines/data/sources`, in the order of the files."""
    files = sorted(module.name for module in pkgutil.iter_modules(source_modules.__path__))
    return [import_module(f"{source_modules.__name__}.{file}").SOURCE for file in files]


def _find(name: str) -> Source:
    """The source that `name` selects. Raises `InputError` where there is none."""
    for source in _sources():
        if source.accepts(name):
            return source
    known = {full.partition(":")[0]: full for full in names()}
    close = difflib.get_close_matches(name.partition(":")[0].lower(), known, n=1)
    hint = f"; did you mean {known[close[0]]}?" if close else ""
    raise InputError(f"data = {name!r}: expected one of {', '.join(names())}{hint}")


def _require_option(
    source: Source, name: str, option: Option, value: object, default: object
) -> None:
    """Raise `InputError` if an option is given that does not apply to the source."""
    applies = option in source.options
    where = ", ".join(n for s in _sources() if option in s.options for n in s.names)
    expected = f"it left out for data = {name!r}: it applies to {where} only"
    require(applies or value == default, option, value, expected)


def _has_path(name: str) -> bool:
    return ":" in name
