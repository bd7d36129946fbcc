"""MLflow's own web page over what was recorded."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from gen_models.core.errors import InputError
from pipelines.tracking.mlflow.connection import without_password

_SLIM = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_ENABLE_AI_GATEWAY": "false"}


def browse(uri: str, store: Path, port: int = 5000) -> None:
    """Serve the page of a database on this machine alone; this process becomes the server.

    Where `uri` is a server, it has a page already: only says so. Raises `InputError` where the
    port is taken.
    """
    if uri.startswith("http"):
        print(f"MLflow's page: {without_password(uri)}", flush=True)
        return
    _require_free(port)
    print(f"MLflow's page: http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
    options = {
        "--backend-store-uri": uri,
        "--default-artifact-root": (store.absolute() / "artifacts").as_uri(),
        "--host": "127.0.0.1",
        "--port": str(port),
        "--workers": "1",
    }
    arguments = [part for option in options.items() for part in option]
    command = [sys.executable, "-m", "mlflow", "server", *arguments]
    os.execve(sys.executable, command, _SLIM | os.environ)


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(
                f"port = {port}: expected a free port of this machine: {error.strerror}"
            ) from error
