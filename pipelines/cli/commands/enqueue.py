"""Have a search try configs of your own next."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import Positional

from pipelines.cli.parsing import parse_settings
from pipelines.store.layout import default_store

ORDER, USAGE = 23, "enqueue SEARCH FILE…"


@dataclass(frozen=True, kw_only=True)
class Enqueue:
    """Have a search try configs of your own next, while it runs or when it is resumed.

    Each file is YAML with values of searched settings, such as `optim: {lr: 0.001}`. The configs
    count among the trials of the search."""

    search: Positional[str]
    """The search's id."""
    files: Positional[tuple[Path, ...]]
    """YAML files, a config each."""
    store: Path = field(default_factory=default_store)
    """Folder of all results; the default is the environment's GENPIPE_STORE, or runs."""


def main(args: list[str]) -> int:
    """Run the command; return its exit code."""
    settings = parse_settings(Enqueue, "enqueue", args)
    from pipelines.tuning.strategy.knowledge import enqueue  # light: imports Ray

    for path in enqueue(settings.search, *settings.files, store=settings.store):
        print(path)
    return 0
