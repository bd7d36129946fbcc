"""How a command gets its Ray: an instance of its own on this machine, or a cluster's.

Whatever Ray is used, the job's processes are told where its GCS is (`RAY_ADDRESS`). Without
that, a Ray Train run that is stopped early keeps its GPUs for as long as the job lives: the
actor that should free its placement group looks for "the" Ray instance of its host, and gives
up when it sees two (ray 2.60, `PlacementGroupCleaner`).
"""

import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gen_models.core.errors import InputError, require

REACH_SECONDS = 5.0
"""How long a cluster's port may take to accept a connection."""

ANSWER_SECONDS = 8
"""How long what accepted it may take to answer as a Ray GCS does; Ray's own limit is 20."""

JOB_DEFAULTS = {
    # Ray Train takes one report per poll of its controller, each 2 s by Ray's own default.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_USAGE_STATS_ENABLED": "0",
}  # environment of the job's processes; a value set by the user wins

LOCAL_DEFAULTS = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process per run, for nodes taken away
}  # the same, on an instance of our own

PACKAGES = ("gen_models", "pipelines", "tune_spaces")


@dataclass(frozen=True)
class Cluster:
    """The Ray that a command is connected to."""

    address: str
    """Of its GCS, `host:port`."""
    num_cpus: float
    """CPUs that it has, or that its autoscaler may add."""
    num_gpus: float
    resources: Mapping[str, float]
    """All resources, custom ones too."""
    is_local: bool
    """Whether this process started it, and stops it."""

    def require_workers(
        self, num_workers: int, cpus_per_worker: float, gpus_per_worker: float
    ) -> None:
        """Refuse workers that could never be placed: Ray would wait for them for ever.

        Raises `InputError`, naming the field, its value and what the cluster has.
        """
        per_worker = {"CPU": cpus_per_worker, "GPU": gpus_per_worker}
        has = {"CPU": self.num_cpus, "GPU": self.num_gpus}
        for kind, amount in per_worker.items():
            field = f"{kind.lower()}s_per_worker"
            require(amount >= 0, field, amount, "a number of at least 0")
            if amount == 0:
                continue
            at = f"the Ray cluster at {self.address} has {has[kind]:g} {kind}s"
            require(amount <= has[kind], field, amount, f"at most {has[kind]:g}, for {at}")
            most = int(has[kind] / amount + 1e-9)
            expected = f"at most {most}, for {at} and each worker takes {amount:g}"
            require(num_workers <= most, "num_workers", num_workers, expected)


@contextmanager
def connect(
    address: str | None,
    *,
    num_cpus: int | None = None,
    num_gpus: int | None = None,
    resources: Mapping[str, float] | None = None,
    dashboard: bool = True,
) -> Iterator[Cluster]:
    """Connect to the cluster at `address`, or start an instance for this process alone.

    `None` means the environment's `RAY_ADDRESS` (set inside a Ray job), and without one, like
    `"local"`, a local instance with `num_cpus`, `num_gpus` and `resources`, and with Ray's
    dashboard, without which stopped Ray Train runs keep their workers' resources. On leaving,
    the process disconnects and a local instance is stopped.

    Raises `InputError` for an address that is malformed, out of reach or refuses the token,
    and for resources asked of a cluster that has its own.
    """
    import ray

    address = address or os.environ.get("RAY_ADDRESS") or "local"
    try:
        if address == "local":
            gcs_address = _start(num_cpus, num_gpus, resources, dashboard)
        else:
            given = {"num_cpus": num_cpus, "num_gpus": num_gpus, "resources": resources}
            for field, value in given.items():
                expected = f"nothing, for the Ray cluster at {address} has its own resources"
                require(value is None, field, value, expected)
            gcs_address = _attach(address)
        capacity = _capacity()
        yield Cluster(
            address=gcs_address,
            num_cpus=capacity.get("CPU", 0.0),
            num_gpus=capacity.get("GPU", 0.0),
            resources=capacity,
            is_local=address == "local",
        )
    finally:
        ray.shutdown()


def use_token() -> None:
    """Turn token authentication on if there is a token and the user has not chosen a mode.

    Ray does so by itself only for an instance that it starts.
    """
    from ray._private.authentication import authentication_token_setup
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    if "RAY_AUTH_MODE" in os.environ:
        return
    if AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True):
        authentication_token_setup._enable_token_auth()


def require_reachable(field: str, address: str, host: str, port: int) -> None:
    """Raise `InputError` unless something accepts connections at `host:port`."""
    try:
        socket.create_connection((host, port), timeout=REACH_SECONDS).close()
    except OSError as error:
        reason = f"a Ray cluster that this machine can reach ({error})"
        raise InputError(f"{field} = {address!r}: expected {reason}") from error


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the time of the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _start(
    num_cpus: int | None,
    num_gpus: int | None,
    resources: Mapping[str, float] | None,
    dashboard: bool,
) -> str:
    """Start an instance whose GCS address is known beforehand, and connect to it."""
    import ray
    from ray._private.ray_constants import GCS_PORT_ENVIRONMENT_VARIABLE

    if dashboard:
        _require_dashboard()
    port = _free_port()
    address = f"{ray.util.get_node_ip_address()}:{port}"
    with environment({GCS_PORT_ENVIRONMENT_VARIABLE: str(port)}):
        ray.init(
            address="local",
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            resources=dict(resources) if resources else None,
            # The cleaner of placement groups asks the State API, which the dashboard serves.
            include_dashboard=dashboard,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": _job_environment(address, JOB_DEFAULTS | LOCAL_DEFAULTS)},
        )
    return address


def _attach(address: str) -> str:
    """Connect to a running cluster: its GCS address.

    Raises `InputError` if `address` is none, or leads to no cluster that takes this driver.
    """
    import ray
    from ray._private.services import canonicalize_bootstrap_address
    from ray.exceptions import AuthenticationError

    submit = "to run a command on a cluster from outside it, use `genpipe submit`"
    expected = f"host:port of a Ray cluster's GCS, 'auto' or 'local'; {submit}"
    require("://" not in address, "address", address, expected)
    try:
        gcs_address = canonicalize_bootstrap_address(address)
    except (ValueError, ConnectionError) as error:
        raise InputError(f"address = {address!r}: {error}") from error
    gcs_address = gcs_address or ""  # None for "local", which never comes here
    host, _, port = gcs_address.rpartition(":")
    require(port.isdigit(), "address", address, expected)
    require_reachable("address", address, host.strip("[]"), int(port))
    try:
        use_token()
        with environment({"RAY_gcs_server_port_wait_time_s": str(ANSWER_SECONDS)}):
            ray.init(
                address=gcs_address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env=_job_runtime_env(gcs_address),
            )
    except AuthenticationError as error:
        mend = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to the cluster's token"
        raise InputError(f"address = {address!r}: the cluster refuses us; {mend}") from error
    except (ConnectionError, RuntimeError) as error:
        raise InputError(f"address = {address!r}: no connection to Ray: {error}") from error
    return gcs_address


def _job_runtime_env(address: str) -> dict[str, Any]:
    """What a cluster's processes need: environment, and this project's code.

    A Ray job carries the code already, and Ray refuses what is given twice.
    """
    runtime_env: dict[str, Any] = {"env_vars": _job_environment(address, JOB_DEFAULTS)}
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
        root = Path(__file__).parents[2]
        found = [root / name for name in PACKAGES if (root / name).is_dir()]
        runtime_env["py_modules"] = [str(package) for package in found]
    return runtime_env


def _job_environment(address: str, defaults: Mapping[str, str]) -> dict[str, str]:
    """Environment variables of the job's processes, less those that a Ray job has set."""
    wanted = {name: os.environ.get(name, value) for name, value in defaults.items()}
    wanted["RAY_ADDRESS"] = address
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    taken = ((job.get("runtime_env") or {}).get("env_vars")) or {}
    return {name: value for name, value in wanted.items() if name not in taken}


def _capacity() -> dict[str, float]:
    """The connected cluster's resources, counting nodes that its autoscaler may add."""
    import ray
    from ray._private.state import state

    now = ray.cluster_resources()
    capacity: dict[str, float] = dict(now)
    for name, most in (state.get_max_resources_from_cluster_config() or {}).items():
        capacity[name] = max(capacity.get(name, 0.0), float(most))
    return capacity


def _require_dashboard() -> None:
    """Raise `InputError` if Ray lacks what its dashboard, and so its State API, is made of."""
    try:
        import ray.dashboard.optional_deps  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"ray: its dashboard is missing; install 'ray[default]' ({error})"
        ) from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
    return port
