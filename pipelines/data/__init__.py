"""Loads a data set, by name, into memory as arrays, split into training, validation and test.

A name is that of a published data set (`digits`, `mnist`, …), of a mixture of Gaussians in the
plane (`ring8`, `grid25`), or `folder:` or `npz:` followed by the path of the user's own images.
Each file in `pipelines/data/sources` reads one kind of data; `names` lists what they accept.

Whatever the source, the result is a `Dataset`: images as uint8 arrays (N, C, H, W), or points as
float32 arrays (N, D), in three splits. The splits depend on the data and on a split seed, never
on a trial's seed, so that all trials of a search are evaluated on the same images.

The names below are imported on first use, so that the command line does not wait for numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.data.dataset import Dataset
    from pipelines.data.loading import load, names
    from pipelines.data.source import Channels

__all__ = ["Channels", "Dataset", "load", "names"]

_MODULES = {"Channels": "source", "Dataset": "dataset", "load": "loading", "names": "loading"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
