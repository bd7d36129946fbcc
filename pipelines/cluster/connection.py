"""Starts a Ray instance on this machine, or connects to a cluster.

The only module of this project that uses Ray's private interfaces.

In both cases the job's processes get the GCS address in `RAY_ADDRESS`. Without it, a Ray Train
run that is stopped early keeps its GPUs until the job ends: Ray's `PlacementGroupCleaner` (ray
2.60), which should free its placement group, looks for a Ray instance on its host, and gives up
where it finds two.
"""

import gc
import importlib
import json
import logging
import os
import signal
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
from ray._private import ray_constants, worker
from ray._private.authentication import authentication_token_setup
from ray._private.ray_constants import GCS_PORT_ENVIRONMENT_VARIABLE
from ray._private.services import canonicalize_bootstrap_address
from ray._private.state import state
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError

from gen_models.core.errors import InputError, require
from pipelines.cluster.environment import environment, restored_environment
from pipelines.cluster.packages import family_packages, project_packages
from pipelines.cluster.signals import handlers_restored

REACH_SECONDS = 5.0
"""Time in which a cluster's port must accept a connection."""

ANSWER_SECONDS = 8
"""Time in which a Ray GCS must answer on that connection; Ray's own limit is 20 s."""

KILL_SECONDS = 5.0
"""For how long processes that were killed are waited for."""

JOB_DEFAULTS = {
    # Ray Train takes one report at each poll of its controller. Ray's default is a poll in 2 s.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Environment variables of the job's processes; a value that the user has set is kept."""

RAYLET_DEFAULTS = {
    # Ray starts a worker for each core before it knows of any task. None of them has the job's
    # environment variables, so no task gets one, and they take the cores from those that do.
    "RAY_prestart_worker_first_driver": "0",
}
"""Environment variables of the Ray instance that this process starts; as above."""

LOCAL_DEFAULTS = {
    # One more process for each run, which only watches for preempted nodes.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
"""The same, on an instance that this process starts."""


@dataclass(frozen=True)
class Cluster:
    """The Ray instance or cluster that a command is connected to."""

    address: str
    """Address of its GCS, `host:port`."""
    num_cpus: float
    """CPUs that it has, or that its autoscaler may add."""
    num_gpus: float
    """GPUs that it has, or that its autoscaler may add."""
    resources: Mapping[str, float]
    """All resources by name, CPUs, GPUs and custom ones."""
    is_local: bool
    """True if this process started it, and stops it."""

    def require_workers(
        self, num_workers: int, cpus_per_worker: float, gpus_per_worker: float
    ) -> None:
        """Raise `InputError` for workers that can never be placed: Ray would wait without end.

        The message names the field, its value and the cluster's resources.
        """
        per_worker = {"CPU": cpus_per_worker, "GPU": gpus_per_worker}
        has = {"CPU": self.num_cpus, "GPU": self.num_gpus}
        for kind, amount in per_worker.items():
            field = f"{kind.lower()}s_per_worker"
            require(amount >= 0, field, amount, "a number of at least 0")
            if amount == 0:
                continue
            at = f"the Ray cluster at {self.address} has {has[kind]:g} {kind}s"
            require(amount <= has[kind], field, amount, f"at most {has[kind]:g}, because {at}")
            most = int(has[kind] / amount + 1e-9)
            expected = f"at most {most}, because {at} and each worker takes {amount:g}"
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

    With `None` the address is the environment variable `RAY_ADDRESS`, which is set inside a Ray
    job. Without it, or with `"local"`, an instance is started with `num_cpus`, `num_gpus` and
    `resources`. It has Ray's dashboard, without which stopped Ray Train runs keep their workers'
    resources. After the block the process disconnects, and an instance that it started is
    stopped.

    Raises `InputError` for an address that is malformed or cannot be reached, for a cluster that
    refuses the token, and for resources given with the address of a cluster.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    is_local = address == "local"
    others = _servers()
    variables = ("PYTHONBREAKPOINT", "RAY_USAGE_STATS_ENABLED")  # `ray.init` sets them for good
    with (
        _authentication_mode_kept(),
        restored_environment(variables),
        handlers_restored(signal.SIGTERM),
    ):
        try:
            if is_local:
                gcs_address = _start(num_cpus, num_gpus, resources, dashboard)
            else:
                given = {"num_cpus": num_cpus, "num_gpus": num_gpus, "resources": resources}
                for field, value in given.items():
                    expected = (
                        f"nothing, because the Ray cluster at {address} has its own resources"
                    )
                    require(value is None, field, value, expected)
                gcs_address = _attach(address)
            capacity = _capacity()
            yield Cluster(
                address=gcs_address,
                num_cpus=capacity.get("CPU", 0.0),
                num_gpus=capacity.get("GPU", 0.0),
                resources=capacity,
                is_local=is_local,
            )
        finally:
            if is_local:
                _shut_down(others)
            else:
                _disconnect()


@contextmanager
def token_authentication() -> Iterator[None]:
    """Use token authentication in the block if there is a token and no `RAY_AUTH_MODE`.

    Ray does so by itself only for an instance that it starts.
    """
    with _authentication_mode_kept():
        _use_token()
        yield


def require_reachable(field: str, address: str, host: str, port: int) -> None:
    """Raise `InputError` unless something accepts connections at `host:port`."""
    try:
        socket.create_connection((host, port), timeout=REACH_SECONDS).close()
    except OSError as error:
        reason = f"a Ray cluster that this machine can reach ({error})"
        raise InputError(f"{field} = {address!r}: expected {reason}") from error


@contextmanager
def _authentication_mode_kept() -> Iterator[None]:
    """Undo, after the block, Ray's setting of `RAY_AUTH_MODE` in this process."""
    if "RAY_AUTH_MODE" in os.environ:
        yield
        return
    try:
        yield
    finally:
        if os.environ.pop("RAY_AUTH_MODE", None) is not None:
            Config.initialize("")  # Ray caches the mode


def _shut_down(others: Collection[psutil.Process]) -> None:
    """Disconnect, and kill all processes of the instance that this process started. `others`: the
    servers that it had started before, which are not of this instance.

    Ray itself sends SIGTERM, which a command's child processes have blocked, waits a second for
    each before it kills it, and leaves those that the raylet started to notice its death, which
    takes them up to a minute while they start.
    """

    def kill_servers() -> None:
        _kill_trees([server for server in _servers() if server not in others])

    node = worker._global_node
    if node is not None:
        rays_own = node.kill_all_processes

        def kill_all(**how: Any) -> None:
            kill_servers()
            rays_own(**{**how, "allow_graceful": False})

        node.kill_all_processes = kill_all
    _disconnect()
    kill_servers()  # `ray.init` that was interrupted has started servers, and has no node yet


def _disconnect() -> None:
    with _collected_garbage():
        ray.shutdown()


@contextmanager
def _collected_garbage() -> Iterator[None]:
    """Collect garbage before the block, and none in it.

    Python collects in whichever thread allocates. An `ObjectRef` that another thread, such as that
    of tracking, finds in a cycle while `ray.shutdown` ends the core worker calls the latter, which
    then ends the process (`GetCoreWorker` in Ray's core_worker_process.cc, ray 2.60).
    """
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _servers() -> list[psutil.Process]:
    """Return the children of this process that run Ray's programs."""
    return [each for each in psutil.Process().children() if _is_of_ray(each)]


def _kill_trees(servers: Sequence[psutil.Process]) -> None:
    """Kill servers of Ray, and all that they have started."""
    for server in servers:
        with suppress(psutil.NoSuchProcess):
            server.suspend()  # else it could start one more after its children were listed
    processes = list(servers)
    for server in servers:
        with suppress(psutil.NoSuchProcess):
            processes += server.children(recursive=True)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=KILL_SECONDS)


def _is_of_ray(process: psutil.Process) -> bool:
    """Tell whether a process runs a file of the installed package ray."""
    folder = f"{Path(ray.__file__).parent}{os.sep}"
    try:
        return any(part.startswith(folder) for part in process.cmdline())
    except psutil.Error:  # it has ended
        return False


def _use_token() -> None:
    if "RAY_AUTH_MODE" in os.environ:
        return
    if AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True):
        authentication_token_setup._enable_token_auth()


def _start(
    num_cpus: int | None,
    num_gpus: int | None,
    resources: Mapping[str, float] | None,
    dashboard: bool,
) -> str:
    """Start an instance and connect to it; return the address of its GCS.

    The port is chosen here, because the job's environment has to contain the address.
    """
    if dashboard:
        _require_dashboard()
    port = _free_port()
    variables = {k: os.environ.get(k, v) for k, v in RAYLET_DEFAULTS.items()}
    variables[GCS_PORT_ENVIRONMENT_VARIABLE] = str(port)
    with environment(variables), _loopback_only():
        address = f"{ray.util.get_node_ip_address()}:{port}"
        ray.init(
            address="local",
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            resources=dict(resources) if resources else None,
            # `PlacementGroupCleaner` uses the State API, which the dashboard serves.
            include_dashboard=dashboard,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": _job_environment(address, JOB_DEFAULTS | LOCAL_DEFAULTS)},
        )
    return address


@contextmanager
def _loopback_only() -> Iterator[None]:
    """Have an instance that is started in the block listen on 127.0.0.1 and nowhere else, unless
    the user has set Ray's variable: by default its servers listen on every address."""
    if ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR in os.environ:
        yield
        return
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        with environment({ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}):
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _attach(address: str) -> str:
    """Connect to a running cluster; return the address of its GCS.

    Raises `InputError` if `address` is malformed or there is no cluster that accepts this driver.
    """
    submit = "to run a command on a cluster from outside it, use `genpipe submit`"
    expected = f"host:port of a Ray cluster's GCS, 'auto' or 'local'; {submit}"
    require("://" not in address, "address", address, expected)
    try:
        gcs_address = canonicalize_bootstrap_address(address)
    except (ValueError, ConnectionError) as error:
        raise InputError(f"address = {address!r}: {error}") from error
    gcs_address = gcs_address or ""  # None stands for "local", which `connect` handles
    host, _, port = gcs_address.rpartition(":")
    require(port.isdigit(), "address", address, expected)
    require_reachable("address", address, host.strip("[]"), int(port))
    try:
        _use_token()
        with (
            environment({"RAY_gcs_server_port_wait_time_s": str(ANSWER_SECONDS)}),
            _job_runtime_env(gcs_address) as runtime_env,
        ):
            ray.init(
                address=gcs_address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env=runtime_env,
            )
    except AuthenticationError as error:
        mend = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to the cluster's token"
        raise InputError(f"address = {address!r}: the cluster refuses us; {mend}") from error
    except (ConnectionError, RuntimeError) as error:
        raise InputError(f"address = {address!r}: no connection to Ray: {error}") from error
    return gcs_address


@contextmanager
def _job_runtime_env(address: str) -> Iterator[dict[str, Any]]:
    """Make the runtime environment of a cluster's processes: variables, and packages to send.

    The files of the packages exist for the block. Inside a Ray job, `submit` has sent them, and
    Ray refuses a setting that is given twice.
    """
    runtime_env: dict[str, Any] = {"env_vars": _job_environment(address, JOB_DEFAULTS)}
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        yield runtime_env
        return
    with family_packages() as families:
        runtime_env["py_modules"] = [str(path) for path in [*project_packages(), *families]]
        yield runtime_env


def _job_environment(address: str, defaults: Mapping[str, str]) -> dict[str, str]:
    """Environment variables of the job's processes, without those that a Ray job has set."""
    wanted = {name: os.environ.get(name, value) for name, value in defaults.items()}
    wanted["RAY_ADDRESS"] = address
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    taken = ((job.get("runtime_env") or {}).get("env_vars")) or {}
    return {name: value for name, value in wanted.items() if name not in taken}


def _capacity() -> dict[str, float]:
    """Resources of the connected cluster, with those of nodes that its autoscaler may add."""
    now = ray.cluster_resources()
    capacity: dict[str, float] = dict(now)
    for name, most in (state.get_max_resources_from_cluster_config() or {}).items():
        capacity[name] = max(capacity.get(name, 0.0), float(most))
    return capacity


def _require_dashboard() -> None:
    """Raise `InputError` if the dependencies of Ray's dashboard and State API are missing."""
    try:
        importlib.import_module("ray.dashboard.optional_deps")
    except ImportError as error:
        raise InputError(
            f"ray: its dashboard is missing; install 'ray[default]' ({error})"
        ) from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
    return port
