"""Commands on Ray clusters of one and two nodes on this machine."""

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from mlflow import MlflowClient
from ray import tune
from ray.cluster_utils import Cluster as Nodes
from ray.util import placement_group_table
from support.family_package import write_family_package
from support.pipeline import SMALL, start, wait_until
from support.ray_head import RayHead, can_mount, running_head, running_node, token_mode

from benchmarks.processes import free_ports
from gen_models.core import families
from gen_models.core.errors import InputError
from pipelines.cluster.connection import connect
from pipelines.tuning.node_metrics import metered_nodes

ROOT = Path(__file__).parents[2]

DISCARDS_REFERENCES = """
import gc, threading, time
import ray
from pipelines.cluster.connection import connect

class Cycle:
    def __init__(self, ref):
        self.ref, self.me = ref, self

def discard(references):
    while references:
        Cycle(references.pop())
        [[] for _ in range(1500)]  # enough for Python to collect garbage
        time.sleep(0.0002)

with connect("local", num_cpus=1, dashboard=False):
    references = [ray.put(number) for number in range(6000)]
    threading.Thread(target=discard, args=(references,), daemon=True).start()
print(gc.isenabled())
"""
"""A program of which a thread discards object references while Ray shuts down."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Authenticate with a token of this module; the variables that are set."""
    # Workers cannot import this module.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with token_mode(tmp_path_factory.mktemp("token")) as variables:
        yield variables


@pytest.fixture(scope="module")
def ray_head(token: dict[str, str]) -> Iterator[RayHead]:
    with running_head(token) as head:
        yield head


def test_connect_refuses_resources_for_a_running_cluster(ray_head: RayHead) -> None:
    with pytest.raises(InputError, match="num_cpus = 4"), connect(ray_head.address, num_cpus=4):
        pass


def test_worker_knows_a_family_of_another_package(
    ray_head: RayHead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_family_package(tmp_path, model="wae", space="wae_space", value="wae:WAE")
    monkeypatch.delitem(sys.modules, "wae", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))

    def locate() -> tuple[str, str]:
        return families.space_module("wae"), str(importlib.import_module("wae_space").__file__)

    with connect(ray_head.address):
        space, file = ray.get(ray.remote(locate).remote())
    assert space == "wae_space" and not Path(file).is_relative_to(tmp_path)


def test_connection_puts_the_environment_back(ray_head: RayHead) -> None:
    before = dict(os.environ)
    with connect(ray_head.address) as cluster:
        assert cluster.num_cpus == 2 and not cluster.is_local
    assert dict(os.environ) == before


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
    """States of the placement groups that are not removed."""
    states = [group["state"] for group in placement_group_table().values()]
    return [state for state in states if state != "REMOVED"]


def test_garbage_of_a_thread_does_not_end_the_process_while_ray_shuts_down() -> None:
    command = [sys.executable, "-c", DISCARDS_REFERENCES]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (ran.returncode, ran.stdout) == (0, "True\n"), ran.stderr


@pytest.mark.long
def test_stopped_trial_frees_its_workers_beside_another_ray(
    ray_head: RayHead, tmp_path: Path
) -> None:
    """With one CPU the second trial can only start once the first one's workers are gone."""
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
def head_of_one(token: dict[str, str]) -> Iterator[Nodes]:
    """A cluster of one node with one CPU."""
    (port,) = free_ports(1)  # Ray's own choice is one port a machine
    flags = {"num_cpus": 1, "include_dashboard": True, "dashboard_port": port}
    nodes = Nodes(initialize_head=True, head_node_args=flags)
    try:
        yield nodes
    finally:
        nodes.shutdown()


@pytest.fixture
def two_nodes(head_of_one: Nodes) -> str:
    """The address of a cluster of two nodes with one CPU each, both on this machine."""
    head_of_one.add_node(num_cpus=1)
    return head_of_one.address


@pytest.mark.long
def test_two_nodes_train_one_config(two_nodes: str, tmp_path: Path) -> None:
    """Each worker takes a CPU and each node has one, so a worker runs on either. At the end of
    training the workers compare their parameters, bit by bit."""
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


@pytest.mark.long
def test_each_machine_of_a_cluster_is_metered(head_of_one: Nodes) -> None:
    """Two that share a host's name are told apart by their addresses."""
    head_of_one.add_node(num_cpus=1, node_ip_address="127.0.0.2")
    with connect(head_of_one.address) as cluster, metered_nodes(cluster) as metrics:
        found: dict[str, float] = {}

        def is_whole() -> bool:
            found.update(metrics.read())
            return sum(name.endswith("/cpu_utilization_percentage") for name in found) == 2

        wait_until(is_whole)
        here = ray.util.get_node_ip_address()
    hosts = {name.split("/")[1] for name in found}
    assert hosts == {here, "127.0.0.2"}
    assert all(name.startswith("system/") for name in found)


def alive_nodes(address: str) -> int:
    """Return how many nodes a cluster has."""
    command = [sys.executable, "-c", "import ray; ray.init(); print(len(ray.nodes()))"]
    ran = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "RAY_ADDRESS": address}
    )
    assert ran.returncode == 0, ran.stderr
    return int(ran.stdout.splitlines()[-1])


@pytest.mark.long
@pytest.mark.skipif(not can_mount(), reason="needs the right to mount a file system")
@pytest.mark.parametrize(
    "args",
    [
        ["search", "vae", "--trials", "2", "--epochs", "2", "--grace-period", "1"],
        ["train", "vae", "--epochs", "2", "--num-workers", "2"],
    ],
    ids=["search", "train"],
)
def test_store_that_a_node_does_not_see(
    head_of_one: Nodes, token: dict[str, str], tmp_path: Path, args: list[str]
) -> None:
    """Refused with the node's name, before a run is recorded."""
    address = head_of_one.address
    store = tmp_path / "store"
    store.mkdir()
    with running_node(address, token, hidden=store):
        wait_until(lambda: alive_nodes(address) == 2)
        where = ["--address", address, "--store", str(store)]
        command = [sys.executable, "-m", "pipelines", *args, *SMALL, *where]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 2, ran.stderr
    (message,) = (line for line in ran.stderr.splitlines() if "store = " in line)
    assert f"store = '{store}': expected a folder that every node of the cluster mounts" in message
    assert message.count("node ") == 2 and "Ray's id" in message  # "every node", and the one
    assert "Traceback" not in ran.stderr
    assert not list(store.rglob("journal"))


@pytest.mark.faults
@pytest.mark.skipif(not can_mount(), reason="needs the right to mount a file system")
def test_store_that_a_later_node_does_not_see(
    head_of_one: Nodes, token: dict[str, str], tmp_path: Path
) -> None:
    """A node is lost, and the one that takes its place lacks the store: the run ends with one
    message, as interrupted, and can be resumed."""
    node = head_of_one.add_node(num_cpus=1)
    store, log = tmp_path / "store", tmp_path / "log"
    store.mkdir()
    args = ["train", "vae", "--num-workers", "2", "--epochs", "3000", "--max-failures", "1"]
    where = ["--address", head_of_one.address, "--store", str(store), "--name", "one"]
    training = start([*args, *SMALL, *where], log)
    wait_until((store / "runs/one/journal/reports/000002.json").exists)
    head_of_one.remove_node(node, allow_graceful=False)
    with running_node(head_of_one.address, token, hidden=store):
        training.communicate(timeout=240)
    text = log.read_text()
    assert training.returncode == 2, text
    (message,) = (line for line in text.splitlines() if "store = " in line)
    assert message.startswith("genpipe train: error: store = ") and "Ray's id" in message
    assert "resumes from the last checkpoint" in text and "Traceback" not in text
    outcome = json.loads((store / "runs/one/journal/outcome.json").read_text())
    assert outcome["ending"] == "interrupted"
