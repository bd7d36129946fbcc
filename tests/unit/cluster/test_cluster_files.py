"""The cluster files, checked by Ray's own validator and against the project."""

import copy
import re
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
AWS = ROOT / "ray_cluster.yaml"
ON_PREM = ROOT / "deploy" / "ray_cluster_onprem.yaml"
FILES = pytest.mark.parametrize("path", [AWS, ON_PREM], ids=["aws", "on-prem"])
START_COMMANDS = ("head_start_ray_commands", "worker_start_ray_commands")


def read_config(path: Path) -> dict[str, Any]:
    config = yaml.safe_load(path.read_text())
    assert isinstance(config, dict)
    return config


def validate(config: dict[str, Any]) -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def ray_starts(config: dict[str, Any]) -> list[str]:
    """Every command that starts a node or talks to its GCS."""
    commands = [command for key in START_COMMANDS for command in config[key]]
    return [c for c in commands if "ray start" in c or "ray drain-node" in c]


@FILES
def test_cluster_file_passes_rays_validator(path: Path) -> None:
    prepared = validate(read_config(path))
    assert prepared["cluster_name"].startswith("genpipe")


@FILES
def test_the_nodes_have_the_files_that_the_package_is_installed_from(path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    tools = project["tool"]["setuptools"]
    needed = {"pyproject.toml", "constraints.txt", project["project"]["readme"]}
    needed |= {*project["project"]["license-files"], *(f"{m}.py" for m in tools["py-modules"])}
    needed |= {pattern.rstrip("*") for pattern in tools["packages"]["find"]["include"]}
    assert needed <= set(read_config(path)["file_mounts"].values())


def set_unknown_key(config: dict[str, Any]) -> None:
    config["max_wrokers"] = 3


def set_fractional_resource(config: dict[str, Any]) -> None:
    config["available_node_types"]["head"]["resources"]["driver"] = 0.5


def set_setup_per_node_type(config: dict[str, Any]) -> None:
    config["available_node_types"]["gpu_spot"]["setup_commands"] = ["true"]


def set_too_many_minimum_workers(config: dict[str, Any]) -> None:
    config["available_node_types"]["gpu_spot"]["min_workers"] = 11


def set_no_such_head(config: dict[str, Any]) -> None:
    config["head_node_type"] = "no_such_type"


@pytest.mark.parametrize(
    "break_it",
    [
        set_unknown_key,
        set_fractional_resource,
        set_setup_per_node_type,
        set_too_many_minimum_workers,
        set_no_such_head,
    ],
)
def test_broken_cluster_file_is_refused(break_it: Callable[[dict[str, Any]], None]) -> None:
    from jsonschema import ValidationError

    config = read_config(AWS)
    break_it(config)
    with pytest.raises((ValidationError, ValueError)):
        validate(config)


def test_on_prem_file_without_head_is_refused() -> None:
    from click import ClickException

    config = read_config(ON_PREM)
    del config["provider"]["head_ip"]
    with pytest.raises((ClickException, ValueError, KeyError)):
        validate(config)


@FILES
def test_every_node_starts_with_token_and_without_usage_stats(path: Path) -> None:
    config = read_config(path)
    starts = ray_starts(config)
    assert len(starts) >= 2
    for command in starts:
        assert "RAY_AUTH_MODE=token" in command
    for command in starts:
        if "ray start" in command:
            assert "RAY_USAGE_STATS_ENABLED=0" in command
            assert "--disable-usage-stats" in command
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


@FILES
def test_servers_of_the_head_listen_on_loopback(path: Path) -> None:
    head = read_config(path)["head_start_ray_commands"]
    (start,) = [command for command in head if "ray start" in command]
    (mlflow,) = [command for command in head if "mlflow server" in command]
    assert "--dashboard-host=127.0.0.1" in start
    assert "--host 127.0.0.1" in mlflow and "--allowed-hosts" in mlflow
    assert "0.0.0.0" not in path.read_text()
    database = re.search(r"--backend-store-uri (\S+)", mlflow)
    assert database is not None and "/shared" not in database[1]  # SQLite is not for NFS


@FILES
def test_commands_are_shell(path: Path) -> None:
    config = read_config(path)
    for key in ("setup_commands", "head_setup_commands", *START_COMMANDS):
        for command in config.get(key, []):
            # As Ray's command runner wraps it.
            subprocess.run(["bash", "-n", "-c", f"true && ({command})"], check=True)


@FILES
def test_versions_are_pinned_to_ours(path: Path) -> None:
    from packaging.requirements import Requirement

    text = path.read_text()
    assert "ray-wheels" not in text and "3.0.0.dev" not in text
    (installed,) = set(re.findall(r"ray\[[\w,]+\]==([\d.]+)", text))
    project = (ROOT / "pyproject.toml").read_text()
    (wanted,) = re.findall(r'"(ray\[[^"]+)"', project)
    assert Requirement(wanted).specifier.contains(installed)
    setup = "\n".join(read_config(path)["setup_commands"])
    assert "--constraint ~/genpipe/constraints.txt" in setup
    pins = re.findall(r"^ray(?:\[.*\])?==(\S+)", (ROOT / "constraints.txt").read_text(), re.M)
    assert set(pins) <= {installed}


@FILES
def test_mounted_files_are_in_the_project(path: Path) -> None:
    mounts = read_config(path)["file_mounts"].values()
    ours = {source for source in mounts if not source.startswith("~")}
    assert {"pyproject.toml", "constraints.txt", "gen_models", "pipelines"} <= ours
    assert not any(source.startswith((".", "/")) for source in ours)


def test_aws_head_trains_nothing_and_is_on_demand() -> None:
    config = read_config(AWS)
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"]["CPU"] == 0 and head["resources"]["GPU"] == 0
    assert isinstance(head["resources"]["driver"], int) and head["resources"]["driver"] > 0
    assert "InstanceMarketOptions" not in head["node_config"]


def test_aws_workers_scale_from_zero_and_prefer_spot() -> None:
    config = read_config(AWS)
    types = dict(config["available_node_types"])
    types.pop(config["head_node_type"])
    spot = [t for t in types.values() if t["labels"]["market"] == "spot"]
    on_demand = [t for t in types.values() if t["labels"]["market"] == "on-demand"]
    assert spot and on_demand and len(spot) + len(on_demand) == len(types)
    for worker in spot:
        assert worker["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    for worker in on_demand:
        assert "InstanceMarketOptions" not in worker["node_config"]
    assert min(t["priority"] for t in spot) > max(t["priority"] for t in on_demand)
    assert all(t["min_workers"] == 0 and t["resources"]["GPU"] >= 1 for t in types.values())
    assert config["max_workers"] >= sum(t["max_workers"] for t in types.values())
    assert 0 < config["idle_timeout_minutes"] <= 60


def test_aws_spot_notice_drains_the_node() -> None:
    (watch,) = [c for c in read_config(AWS)["worker_start_ray_commands"] if "drain-node" in c]
    assert "spot/instance-action" in watch and "DRAIN_NODE_REASON_PREEMPTION" in watch
    deadline = re.search(r"--deadline-remaining-seconds (\d+)", watch)
    assert deadline is not None and 0 < int(deadline[1]) < 120
