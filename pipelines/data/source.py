"""What a module in `pipelines/data/sources` defines, and what it is given to read.

A module that reads spirals from a CSV file would be, as a whole:

    def read(request: ReadRequest) -> Arrays:
        points = np.loadtxt(request.path, np.float32, delimiter=",")
        return Arrays(Part(points, None), None, 0)


    SOURCE = Source(names=("csv:PATH",), read=read)

`pipelines.data.loading` checks the options, splits and hashes the arrays, and turns an `OSError`
of `read` into an `InputError`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:  # the command line takes the names of channels from here, without numpy
    from pipelines.data.dataset import Arrays

Channels = Literal["auto", "grey", "colour"]
"""Whether images are read in grey or in colour; with `auto` as they are, if all agree."""

CHANNELS: tuple[Channels, ...] = get_args(Channels)

Option = Literal["image_size", "channels"]
"""A setting that applies to some sources only."""

DEFAULT_IMAGE_SIZE = 64
MAX_IMAGE_SIZE = 1024


@dataclass(frozen=True)
class ReadRequest:
    """The data to read, and the settings that apply to reading them."""

    name: str
    """The data set's name, as the user gave it: `mnist`, `folder:~/cats`."""
    path: Path
    """The path in the name, with `~` expanded; `.` for a name without a path."""
    root: Path
    """The folder of torchvision's data sets."""
    download: bool = False
    """Whether missing files may be fetched from the network."""
    image_size: int = DEFAULT_IMAGE_SIZE
    """Height and width in pixels; for sources with the option `image_size`."""
    channels: Channels = "auto"
    """For sources with the option `channels`."""


@dataclass(frozen=True)
class Source:
    """One kind of data: the names that select it, and the function that reads it."""

    names: tuple[str, ...]
    """The names as help shows them: `digits`, or `folder:PATH` where the user gives a path."""
    read: Callable[[ReadRequest], Arrays]
    """Reads the data. Raises `InputError` or `OSError` where they are missing or damaged."""
    options: frozenset[Option] = field(default_factory=frozenset)
    """The options that apply; any other is refused."""

    def accepts(self, name: str) -> bool:
        """True if `name`, as the user gave it, selects this source."""
        kind, colon, path = name.partition(":")
        return name in self.names if not colon else bool(path) and f"{kind}:PATH" in self.names
