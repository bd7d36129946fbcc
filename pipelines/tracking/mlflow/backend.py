"""MLflow as a tracking system."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipelines.cluster.environment import default_environment
from pipelines.store.layout import Store
from pipelines.store.secrets import hide
from pipelines.tracking.mlflow.connection import SCHEMES, database_file, require_uri
from pipelines.tracking.mlflow.database import is_complete
from pipelines.tracking.mlflow.listing import FileReader, experiment_links
from pipelines.tracking.mlflow.relocation import follow_store
from pipelines.tracking.mlflow.server import serve

if TYPE_CHECKING:
    from pipelines.tracking.base import RunReader, RunWriter

_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # the delivery queue tries again
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # on stderr, even where nothing is downloaded
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


class MlflowBackend:
    """A `pipelines.tracking.base.Backend`."""

    name = "MLflow"

    def accepts(self, uri: str) -> bool:
        scheme, found, _ = uri.partition("://")
        return bool(found) and scheme.split("+")[0] in SCHEMES

    def check(self, uri: str) -> str:
        with self.settings():
            return require_uri(uri)

    @contextmanager
    def settings(self) -> Iterator[None]:
        """Set MLflow's environment variables that the user has not set, for the block."""
        # It logs every error of the database with its traceback, and raises it besides.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        with default_environment(_SETTINGS):
            yield

    def writer(self, uri: str, store: Store) -> RunWriter:
        from pipelines.tracking.mlflow.writer import MlflowWriter  # light: imports mlflow

        follow_store(uri, store)
        return MlflowWriter(uri, store)

    def reader(self, uri: str, store: Store) -> RunReader:
        follow_store(uri, store)
        if uri.startswith("sqlite") and is_complete(path := database_file(uri)):
            return FileReader(path, uri, store)
        from pipelines.tracking.mlflow.reader import MlflowReader  # light: imports mlflow

        return MlflowReader(uri, store)

    def public_uri(self, uri: str) -> str:
        return hide(uri)

    def serve(self, uri: str, store: Store, port: int, *, auth: bool = False) -> None:
        follow_store(uri, store)
        serve(uri, store, port, auth=auth, links=self._links(uri))

    def _links(self, uri: str) -> dict[str, str]:
        """Return the ends of the addresses of the experiments, by name."""
        if uri.startswith("sqlite") and is_complete(path := database_file(uri)):
            return experiment_links(path)
        from pipelines.tracking.mlflow.reader import links_of  # light: imports mlflow

        with self.settings():
            return links_of(uri)
