"""MLflow's web page over a store."""

from __future__ import annotations

import os
import socket
import sys

from gen_models.core.errors import InputError
from pipelines.store.layout import Store
from pipelines.store.secrets import hide

_SLIM = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_ENABLE_AI_GATEWAY": "false"}


def serve(uri: str, store: Store, port: int) -> None:
    """Serve the page of a database to this machine alone; this process becomes the server.

    If `uri` is a server, which has a page already, print its address. Raises `InputError` if the
    port is in use.
    """
    if uri.startswith("http"):
        print(f"MLflow's page: {hide(uri)}", flush=True)
        return
    _require_free(port)
    print(f"MLflow's page: http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
    options = {
        "--backend-store-uri": uri,
        "--default-artifact-root": store.artifacts.as_uri(),
        "--host": "127.0.0.1",
        "--port": str(port),
        "--workers": "1",
    }
    arguments = [part for option in options.items() for part in option]
    command = [sys.executable, "-m", "mlflow", "server", *arguments]
    # Its arguments are ours, but for the URI, which is one of them, whatever it holds.
    os.execve(sys.executable, command, _SLIM | os.environ)  # nosec B606


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(
                f"port = {port}: expected a free port of this machine: {error.strerror}"
            ) from error
