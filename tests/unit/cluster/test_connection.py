"""Checks of workers against a cluster, and addresses that lead to no cluster.

`connect` to real clusters is tested in tests/integration.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gen_models.core.errors import InputError
from pipelines.cluster import connection
from pipelines.cluster.connection import Cluster, connect


def small_cluster() -> Cluster:
    return Cluster("10.0.0.1:6379", num_cpus=4, num_gpus=2, resources={}, is_local=False)


def test_workers_that_fit_are_accepted() -> None:
    small_cluster().require_workers(2, cpus_per_worker=2, gpus_per_worker=1)
    small_cluster().require_workers(8, cpus_per_worker=0, gpus_per_worker=0.25)


def test_workers_that_never_fit_are_refused() -> None:
    cluster = small_cluster()
    with pytest.raises(InputError, match=r"num_workers = 5.*at most 4.*10\.0\.0\.1.*has 4 CPUs"):
        cluster.require_workers(5, cpus_per_worker=1, gpus_per_worker=0)
    with pytest.raises(InputError, match=r"num_workers = 3.*at most 2.*has 2 GPUs"):
        cluster.require_workers(3, cpus_per_worker=1, gpus_per_worker=1)
    with pytest.raises(InputError, match=r"gpus_per_worker = 4.*at most 2"):
        cluster.require_workers(1, cpus_per_worker=1, gpus_per_worker=4)


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:1", "ray://127.0.0.1:10001"])
def test_connect_to_no_cluster_is_the_users_error(address: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"address = {address!r}")), connect(address):
        pass


def test_job_gets_the_gcs_address_and_defaults_that_the_user_has_not_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    with connection._job_runtime_env("10.0.0.1:6379") as runtime_env:
        variables = runtime_env["env_vars"]
        packages = [Path(path).name for path in runtime_env["py_modules"]]
    assert variables["RAY_ADDRESS"] == "10.0.0.1:6379"
    assert variables["RAY_USAGE_STATS_ENABLED"] == "1"
    assert variables["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "0.1"
    assert packages[:3] == ["gen_models", "pipelines", "tune_spaces"]


def test_within_a_ray_job_nothing_is_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"runtime_env": {"env_vars": {"RAY_USAGE_STATS_ENABLED": "0"}}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(given))
    with connection._job_runtime_env("10.0.0.1:6379") as runtime_env:
        assert "py_modules" not in runtime_env
        assert "RAY_USAGE_STATS_ENABLED" not in runtime_env["env_vars"]


def test_authentication_mode_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("a" * 64)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    connection.AuthenticationTokenLoader.instance().reset_cache()
    try:
        with connection.token_authentication():
            assert os.environ["RAY_AUTH_MODE"] == "token"
        assert "RAY_AUTH_MODE" not in os.environ
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        with connection.token_authentication():
            assert os.environ["RAY_AUTH_MODE"] == "disabled"
        assert os.environ["RAY_AUTH_MODE"] == "disabled"
    finally:
        connection.AuthenticationTokenLoader.instance().reset_cache()


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (["connection", "environment", "jobs", "packages"], ["torch", "mlflow"]),
        (["environment", "packages", "resources"], ["ray", "mlflow"]),
    ],
)
def test_imports_are_light(modules: list[str], absent: list[str]) -> None:
    imports = ", ".join(f"pipelines.cluster.{module}" for module in modules)
    code = f"import sys, {imports}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(absent) & set(ran.stdout.split())
