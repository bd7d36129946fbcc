"""MLflow's web page over a store."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from gen_models.core.errors import InputError, require
from pipelines.cluster import signals
from pipelines.store.layout import Store
from pipelines.store.secrets import MARK, hide
from pipelines.tracking.mlflow.database import make_whole, one_maker
from pipelines.tracking.queue import reason

VIEW = "mlflow.sharedViewState."
"""The beginning of an experiment's tags that hold saved views; the view's key follows."""
TRIALS = "trials"
"""Key of the view of an experiment's trials and runs, the best first."""
_SLIM = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_ENABLE_AI_GATEWAY": "false"}
_USER, _PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
_PRINTED = 10
"""Experiments whose addresses are printed."""
_PASSWORD_LENGTH = 12
"""Characters that MLflow wants of a password."""
_LOGIN = """\
[mlflow]
default_permission = READ
database_uri = sqlite:///{database}
admin_username = {user}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
grant_default_workspace_access = false
"""


def view_link(experiment_id: str, view: str = "") -> str:
    """Return the end of the address of an experiment's runs, by its view of this key."""
    link = f"#/experiments/{experiment_id}/runs?workflowType=machine_learning"
    return f"{link}&viewStateShareKey={quote(view)}" if view else link


def run_link(experiment_id: str, run_id: str) -> str:
    """Return the end of the address of a run."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def serve(
    uri: str, store: Store, port: int, *, auth: bool = False, links: Mapping[str, str]
) -> None:
    """Serve the page of a database to this machine alone; this process becomes the server. With
    `auth` it asks for the name and the password that this process's environment has. `links`: the
    ends of the addresses of the experiments, by name, which are printed.

    If `uri` is a server, which has a page already, print its address. Raises `InputError` if the
    port is in use, or if there is no password to ask for.
    """
    if uri.startswith("http"):
        own = "no --auth, because the server has a page and a login of its own"
        require(not auth, "auth", auth, own)
        _print_addresses(hide(uri).rstrip("/"), links)
        return
    _require_free(port)
    variables = _SLIM | os.environ
    # Not among the arguments, which other users of the machine can read: it may have a password.
    variables["MLFLOW_BACKEND_STORE_URI"] = uri
    options = {
        "--default-artifact-root": store.artifacts.as_uri(),
        "--host": "127.0.0.1",
        "--port": str(port),
        "--allowed-hosts": f"127.0.0.1:{port},localhost:{port}",
        "--workers": "1",
    }
    if auth:
        options["--app-name"] = "basic-auth"
        variables |= _login(store)
    _print_addresses(f"http://127.0.0.1:{port}", links, " (Ctrl-C ends it)")
    arguments = [part for option in options.items() for part in option]
    command = [sys.executable, "-m", "mlflow", "server", *arguments]
    signals.release()
    # Its arguments are ours; what the URI holds is in the environment.
    os.execve(sys.executable, command, variables)  # nosec B606


def _print_addresses(address: str, links: Mapping[str, str], more: str = "") -> None:
    """Print the page's address, and those of the experiments, which open on their trials."""
    print(f"MLflow's page: {address}{more}")
    for name, link in list(links.items())[:_PRINTED]:
        print(f"  {name}: {address}/{link}")
    if len(links) > _PRINTED:
        print(f"  and {len(links) - _PRINTED} experiments more")
    sys.stdout.flush()


def _login(store: Store) -> dict[str, str]:
    """Record who may see the page; return the environment variables of a server that asks.

    The password itself is in no file: the database has a hash of it.
    """
    user, password = os.environ.get(_USER) or "admin", os.environ.get(_PASSWORD)
    if not password:
        raise InputError(f"auth = True: expected a password in the environment's {_PASSWORD}")
    right = f"at least {_PASSWORD_LENGTH} characters"
    require(len(password) >= _PASSWORD_LENGTH, _PASSWORD, MARK, right)
    require(user.isprintable(), _USER, user, "a name without control characters")
    values = {"database": str(store.users), "user": user}
    settings = {name: value.replace("%", "%%") for name, value in values.items()}
    store.files.write(store.user_settings, _LOGIN.format(**settings))
    with one_maker(store.users):
        try:
            if store.users.exists():
                _set_password(store.users, user, password)
            else:
                make_whole(store.users, lambda path: _set_password(path, user, password))
        except Exception as error:  # MLflow's, about a name or a password that it does not take
            raise InputError(f"{_USER} = {user!r}, {_PASSWORD}: {reason(error)}") from error
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(store.user_settings),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
    }


def _set_password(database: Path, user: str, password: str) -> None:
    """Give a user of MLflow's page this password, and the right to do everything."""
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore  # light: of --auth only

    database.touch(0o600)
    users = SqlAlchemyStore()
    users.init_db(f"sqlite:///{database}")  # type: ignore[no-untyped-call]
    try:
        if users.has_user(user):
            users.update_user(user, password=password, is_admin=True)
        else:
            users.create_user(user, password, is_admin=True)
    finally:
        users.engine.dispose()


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(
                f"port = {port}: expected a free port of this machine: {error.strerror}"
            ) from error
