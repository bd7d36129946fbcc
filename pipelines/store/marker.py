"""A marker file, by which processes on other nodes tell whether they see the same store."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from gen_models.core.errors import DamagedError, shown
from pipelines.store.files import LOCAL, UnsharedStoreError

_VISIBLE_SECONDS = 10.0
"""How long a network file system may take to show another node's file."""
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class StoreMarker:
    """A file that the process of a command writes into its folder of the store."""

    store: str
    path: str
    token: str
    """The file's content. It is random, so that a copy of the store is not taken for it."""

    @classmethod
    def write(cls, store: Path, path: Path) -> StoreMarker:
        """Write a marker to `path`, in the store at `store`."""
        token = uuid4().hex
        LOCAL.write(path, token)
        return cls(str(store), str(path), token)

    def is_seen(self, seconds: float = _VISIBLE_SECONDS) -> bool:
        """Return whether this process sees the marker; wait for it for up to so many seconds."""
        deadline = time.monotonic() + seconds
        while not (seen := self._read() == self.token) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return seen

    def require_seen(self, node: str) -> None:
        """Raise `UnsharedStoreError` unless this process, on a node of this name, sees the
        marker."""
        if not self.is_seen():
            raise self.unshared([node])

    def unshared(self, nodes: list[str]) -> UnsharedStoreError:
        """Return the error that names the nodes that do not see the marker."""
        return UnsharedStoreError(
            f"store = {shown(self.store)}: expected a folder that every node of the cluster "
            f"mounts, and it is not seen by {', '.join(nodes)}"
        )

    def _read(self) -> str:
        try:
            return LOCAL.read(Path(self.path)).decode(errors="replace")
        except (OSError, DamagedError):
            return ""
