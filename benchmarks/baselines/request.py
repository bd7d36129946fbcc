"""What a baseline's process is asked to do, as its command line, and how it answers.

With argparse: the environment of the rival libraries need not have what genpipe needs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Request:
    """How much to train."""

    data: Path
    """An archive of images, as `benchmarks.figures.mnist_npz` makes it."""
    epochs: int = 2
    batch_size: int = 128
    trials: int = 1
    concurrent: int = 1
    """Trials at once."""

    def words(self) -> list[str]:
        """The command line that `parse` reads."""
        return [f"--{name.replace('_', '-')}={value}" for name, value in vars(self).items()]


def parse(description: str | None) -> Request:
    """The request on this process's command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, required=True)
    for name in ("epochs", "batch-size", "trials", "concurrent"):
        default = getattr(Request, name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=int, default=default)
    return Request(**vars(parser.parse_args()))


def answer(result: Mapping[str, object]) -> None:
    """The last line of stdout, which the benchmark reads."""
    print(json.dumps(result), flush=True)
