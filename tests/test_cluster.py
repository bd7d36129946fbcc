"""The cluster files against Ray's own validator, and real Ray instances behind `connect` and
`submit`.

Every instance is started here with a token of its own, and stopped by its own processes:
`ray stop` would stop the Ray of whoever else works on this machine.
"""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from gen_models.core.errors import InputError
from pipelines.cluster.connection import Cluster, connect, environment
from pipelines.cluster.jobs import submit

ROOT = Path(__file__).parents[1]
AWS = ROOT / "ray_cluster.yaml"
ON_PREM = ROOT / "docs" / "ray_cluster_onprem.yaml"
FILES = pytest.mark.parametrize("path", [AWS, ON_PREM], ids=["aws", "on-prem"])
START_COMMANDS = ("head_start_ray_commands", "worker_start_ray_commands")
TOKEN = "0123456789abcdef" * 4


def load(path: Path) -> dict[str, Any]:
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
    prepared = validate(load(path))
    assert prepared["cluster_name"].startswith("genpipe")


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

    config = load(AWS)
    break_it(config)
    with pytest.raises((ValidationError, ValueError)):
        validate(config)


def test_on_prem_file_without_head_is_refused() -> None:
    from click import ClickException

    config = load(ON_PREM)
    del config["provider"]["head_ip"]
    with pytest.raises((ClickException, ValueError, KeyError)):
        validate(config)


@FILES
def test_every_node_starts_with_token_and_without_usage_stats(path: Path) -> None:
    config = load(path)
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
    head = load(path)["head_start_ray_commands"]
    (start,) = [command for command in head if "ray start" in command]
    (mlflow,) = [command for command in head if "mlflow server" in command]
    assert "--dashboard-host=127.0.0.1" in start
    assert "--host 127.0.0.1" in mlflow and "--allowed-hosts" in mlflow
    assert "0.0.0.0" not in path.read_text()
    database = re.search(r"--backend-store-uri (\S+)", mlflow)
    assert database is not None and "/shared" not in database[1]  # SQLite is not for NFS


@FILES
def test_commands_are_shell(path: Path) -> None:
    config = load(path)
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
    setup = "\n".join(load(path)["setup_commands"])
    assert "--constraint ~/genpipe/constraints.txt" in setup
    pins = re.findall(r"^ray(?:\[.*\])?==(\S+)", (ROOT / "constraints.txt").read_text(), re.M)
    assert set(pins) <= {installed}


@FILES
def test_mounted_files_are_in_the_project(path: Path) -> None:
    mounts = load(path)["file_mounts"].values()
    ours = {source for source in mounts if not source.startswith("~")}
    assert {"pyproject.toml", "constraints.txt", "gen_models", "pipelines"} <= ours
    assert not any(source.startswith((".", "/")) for source in ours)


def test_aws_head_trains_nothing_and_is_on_demand() -> None:
    config = load(AWS)
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"]["CPU"] == 0 and head["resources"]["GPU"] == 0
    assert isinstance(head["resources"]["driver"], int) and head["resources"]["driver"] > 0
    assert "InstanceMarketOptions" not in head["node_config"]


def test_aws_workers_scale_from_zero_and_prefer_spot() -> None:
    config = load(AWS)
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
    (watch,) = [c for c in load(AWS)["worker_start_ray_commands"] if "drain-node" in c]
    assert "spot/instance-action" in watch and "DRAIN_NODE_REASON_PREEMPTION" in watch
    deadline = re.search(r"--deadline-remaining-seconds (\d+)", watch)
    assert deadline is not None and 0 < int(deadline[1]) < 120


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
    began = time.monotonic()
    with pytest.raises(InputError, match=re.escape(f"address = {address!r}")), connect(address):
        pass
    assert time.monotonic() - began < 15


def test_submit_to_no_cluster_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"address = 'http://127\.0\.0\.1:1'"):
        submit(["--help"], "http://127.0.0.1:1", working_dir=tmp_path)
    with pytest.raises(InputError, match="working_dir"):
        submit(["--help"], "http://127.0.0.1:1", working_dir=tmp_path / "none")
    not_a_url = environment({"RAY_API_SERVER_ADDRESS": "10.0.0.1:6379"})
    with not_a_url, pytest.raises(InputError, match="RAY_API_SERVER_ADDRESS"):
        submit(["--help"], working_dir=tmp_path)


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Token authentication with a token of this module: the environment that says so."""
    import ray.cloudpickle
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    # Workers cannot import this module.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

    path = tmp_path_factory.mktemp("token") / "auth_token"
    path.write_text(TOKEN)
    with environment({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}):
        AuthenticationTokenLoader.instance().reset_cache()
        Config.initialize("")
        yield {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}
    AuthenticationTokenLoader.instance().reset_cache()
    Config.initialize("")


def stop(head: psutil.Process) -> None:
    """Kill a Ray node: asked politely, it first drains for up to 30 s."""
    processes = [head, *head.children(recursive=True)]
    for process in processes:
        if process.is_running():
            process.kill()
    psutil.wait_procs(processes, timeout=10)


@dataclass(frozen=True)
class RayHead:
    """A cluster of one node, as `ray start --head` makes it."""

    address: str
    """`host:port` of its GCS."""
    dashboard: str
    """URL of its job server."""
    env: dict[str, str]
    """What a client's environment needs."""


def free_ports(count: int) -> list[int]:
    import socket

    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture(scope="module")
def ray_head(token: dict[str, str]) -> Iterator[RayHead]:
    import ray

    port, dashboard_port = free_ports(2)
    temp_dir = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short: it holds Unix sockets
    scripts = str(Path(sys.executable).parent)
    path = os.pathsep.join([scripts, os.environ["PATH"]])
    env = {**os.environ, **token, "PATH": path, "RAY_USAGE_STATS_ENABLED": "0"}
    flags = [f"--port={port}", f"--dashboard-port={dashboard_port}", f"--temp-dir={temp_dir}"]
    flags += ["--num-cpus=2", "--disable-usage-stats", "--dashboard-host=127.0.0.1", "--block"]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", *flags]
    head = psutil.Popen(command, env=env, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{dashboard_port}"
        wait_for_dashboard(url, head)
        address = f"{ray.util.get_node_ip_address()}:{port}"  # type: ignore[no-untyped-call]
        yield RayHead(address, url, {**token, "PATH": path})
    finally:
        stop(head)
        shutil.rmtree(temp_dir, ignore_errors=True)


def wait_for_dashboard(url: str, head: Any) -> None:
    import requests

    deadline = time.monotonic() + 60
    headers = {"Authorization": f"Bearer {TOKEN}"}
    while time.monotonic() < deadline and head.poll() is None:
        try:
            if requests.get(f"{url}/api/jobs/", headers=headers, timeout=5).ok:
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.5)
    raise AssertionError(f"no Ray head at {url}")


def project(folder: Path, main: str) -> Path:
    """A working directory whose `python -m pipelines` is `main`."""
    package = folder / "pipelines"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(main)
    return folder


@pytest.mark.slow
def test_job_runs_the_command_and_its_log_comes_back(
    ray_head: RayHead, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    working_dir = project(tmp_path, "import os, sys\nprint('ran', sys.argv[1:], os.getcwd())\n")
    result = submit(["search", "vae", "a b;$c"], ray_head.dashboard, working_dir=working_dir)
    assert (result.status, result.exit_code) == ("SUCCEEDED", 0)
    assert "ran ['search', 'vae', 'a b;$c']" in capsys.readouterr().out


@pytest.mark.slow
def test_job_runs_a_search(ray_head: RayHead, tmp_path: Path) -> None:
    """The project as it stands, sent to the cluster; the result is in MLflow."""
    from mlflow import MlflowClient

    search = ["search", "vae", "--trials", "1", "--epochs", "2", "--grace-period", "1"]
    store = ["--store", str(tmp_path / "runs")]
    result = submit([*search, *store], ray_head.dashboard, working_dir=ROOT)
    assert (result.status, result.exit_code) == ("SUCCEEDED", 0), result.message
    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    (experiment,) = (e for e in client.search_experiments() if e.name == "vae-digits")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 2 and "RUNNING" not in {run.info.status for run in runs}
    assert str(client.get_model_version_by_alias("vae-digits", "champion").version) == "1"


@pytest.mark.slow
def test_exit_code_and_used_id_of_a_failing_job(ray_head: RayHead, tmp_path: Path) -> None:
    working_dir = project(tmp_path, "raise SystemExit(3)\n")
    job_id = "failing-job"
    result = submit(["x"], ray_head.dashboard, True, working_dir, job_id)
    assert (result.job_id, result.status, result.exit_code) == (job_id, "FAILED", 3)
    with pytest.raises(InputError, match="submission_id = 'failing-job'"):
        submit(["x"], ray_head.dashboard, True, working_dir, job_id)


@pytest.mark.slow
def test_job_that_nobody_waits_for(
    ray_head: RayHead, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = submit(["x"], ray_head.dashboard, False, project(tmp_path, "pass\n"))
    assert result.exit_code == 0
    assert f"ray job stop {result.job_id}" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["token", "disabled"])
def test_wrong_or_missing_token_is_the_users_error(
    ray_head: RayHead, tmp_path: Path, mode: str
) -> None:
    """In a process of its own: Ray keeps a token for as long as a process lives."""
    wrong = tmp_path / "wrong"
    wrong.write_text("f" * 64)
    env = {**os.environ, "RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN_PATH": str(wrong)}
    code = (
        "import sys\nfrom pathlib import Path\nfrom gen_models.core.errors import InputError\n"
        "from pipelines.cluster.jobs import submit\n"
        "try:\n    submit(['x'], sys.argv[1], working_dir=Path(sys.argv[2]))\n"
        "except InputError as error:\n    print(error)\n    sys.exit(2)\n"
    )
    command = [sys.executable, "-c", code, ray_head.dashboard, str(tmp_path)]
    ran = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2, ran.stderr
    assert "RAY_AUTH_MODE=token" in ran.stdout


@pytest.mark.slow
def test_connect_refuses_resources_for_a_running_cluster(ray_head: RayHead) -> None:
    with pytest.raises(InputError, match="num_cpus = 4"), connect(ray_head.address, num_cpus=4):
        pass


def report_slowly(config: dict[str, Any]) -> None:
    import ray.train

    for epoch in range(1, 200):
        time.sleep(0.05)
        ray.train.report({"epoch": epoch})


def train_in_trial(config: dict[str, Any]) -> None:
    import ray.train
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    TorchTrainer(
        report_slowly,
        scaling_config=ray.train.ScalingConfig(num_workers=1),
        run_config=ray.train.RunConfig(
            name=f"train-{ray.tune.get_context().get_trial_id()}",
            storage_path=config["storage"],
            callbacks=[TuneReportCallback()],
        ),
    ).fit()


def placement_groups() -> list[str]:
    """States of those that are not gone."""
    from ray.util import placement_group_table

    states = [group["state"] for group in placement_group_table().values()]
    return [state for state in states if state != "REMOVED"]


@pytest.mark.slow
def test_stopped_trial_frees_its_workers_beside_another_ray(
    ray_head: RayHead, tmp_path: Path
) -> None:
    """With one CPU the second trial can only start once the first one's workers are gone."""
    from ray import tune

    with connect("local", num_cpus=1) as cluster:
        assert cluster.is_local and cluster.address != ray_head.address
        results = tune.Tuner(
            tune.with_resources(train_in_trial, {"node:__internal_head__": 0.001}),
            param_space={"storage": str(tmp_path), "trial": tune.grid_search([0, 1])},
            tune_config=tune.TuneConfig(max_concurrent_trials=1),
            run_config=tune.RunConfig(
                storage_path=str(tmp_path), stop={"epoch": 5, "time_total_s": 60}, verbose=0
            ),
        ).fit()
        assert results.num_errors == 0
        assert [result.metrics["epoch"] for result in results] == [5, 5]
        deadline = time.monotonic() + 30
        while placement_groups() and time.monotonic() < deadline:
            time.sleep(0.5)
        assert placement_groups() == []


@pytest.fixture
def two_nodes(token: dict[str, str]) -> Iterator[str]:
    """The address of a cluster of two nodes with one CPU each, both on this machine."""
    from ray.cluster_utils import Cluster as Nodes

    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": True})
    try:
        nodes.add_node(num_cpus=1)
        yield nodes.address
    finally:
        nodes.shutdown()


@pytest.mark.slow
def test_two_nodes_train_one_config(two_nodes: str, tmp_path: Path) -> None:
    """Each worker takes a CPU and each node has one, so a worker runs on either. At the end of
    training the workers compare their parameters, bit by bit."""
    from mlflow import MlflowClient

    args = ["train", "vae", "--epochs", "2", "--num-workers", "2", "--json"]
    where = ["--address", two_nodes, "--store", str(tmp_path)]
    command = [sys.executable, "-m", "pipelines", *args, *where]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout.splitlines()[-1])
    assert result["outcome"] == "completed" and result["epoch"] == 2

    # A run that diverges ends on both, and is marked.
    wild = ["--model.likelihood", "gaussian", "--model.decoder-std", "1e-9", "--optim.lr", "9"]
    ran = subprocess.run([*command, *wild], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 1, ran.stderr
    result = json.loads(ran.stdout.splitlines()[-1])
    assert result["outcome"] == "diverged" and result["value"] is None
    run = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").get_run(result["run_id"])
    assert run.info.status == "FAILED" and run.data.tags["outcome"] == "diverged"
    assert run.data.metrics["diverged"] == 1.0
