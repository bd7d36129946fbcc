"""Devices of this machine and of clusters, and what is refused."""

import os

import pytest
import torch

from gen_models.core.errors import InputError
from pipelines.cluster.connection import Cluster
from pipelines.cluster.resources import (
    Devices,
    check_machine,
    cluster_devices,
    local_devices,
    uses_gpu,
)

REMOTE = Cluster("10.0.0.1:6379", 4, 2, {"CPU": 4, "GPU": 2, "memory": 2.0**33}, is_local=False)
WITHOUT_GPU = Cluster("10.0.0.1:6379", 4, 0, {"CPU": 4}, is_local=False)


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_local_devices_are_the_cores_and_main_memory() -> None:
    devices = local_devices(None, "cpu")
    assert devices is not None and not devices.on_gpu
    assert devices.num == os.cpu_count()
    assert devices.memory is not None and 2**28 < devices.memory < 2**50


def test_no_local_devices_where_a_cluster_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert local_devices("10.0.0.1:6379", "cpu") is None
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert local_devices(None, "cpu") is None


def test_cluster_devices() -> None:
    assert cluster_devices(REMOTE, on_gpu=True) == Devices(2, True, None)
    assert cluster_devices(REMOTE, on_gpu=False) == Devices(4, False, 2**33)
    assert cluster_devices(WITHOUT_GPU, on_gpu=False) == Devices(4, False, None)


def test_cluster_whose_head_has_no_cpu_counts_as_one_device() -> None:
    head = Cluster("10.0.0.1:6379", 0, 0, {}, is_local=False)
    assert cluster_devices(head, on_gpu=False).num == 1


def test_workers_take_gpus_where_the_cluster_has_them() -> None:
    assert uses_gpu(REMOTE, "auto", 2) and uses_gpu(REMOTE, "cuda", 1)
    assert not uses_gpu(REMOTE, "cpu", 4) and not uses_gpu(WITHOUT_GPU, "auto", 4)


def test_more_workers_than_a_cluster_has_devices_are_refused() -> None:
    with pytest.raises(InputError, match=r"num_workers = 3.*at most 2.*has 2 GPUs"):
        uses_gpu(REMOTE, "auto", 3)
    with pytest.raises(InputError, match=r"num_workers = 5.*at most 4.*has 4 CPUs"):
        uses_gpu(REMOTE, "cpu", 5)
    with pytest.raises(InputError, match=r"gpus_per_worker = 1.*at most 0"):
        uses_gpu(WITHOUT_GPU, "cuda", 1)


def test_more_workers_than_this_machine_has_cores_are_refused() -> None:
    cores = os.cpu_count() or 1
    check_machine(None, "cpu", cores)
    with pytest.raises(InputError, match=rf"num_workers = {cores + 1}.*at most {cores}, .*cores"):
        check_machine(None, "cpu", cores + 1)
    check_machine("10.0.0.1:6379", "cpu", cores + 1)  # the cluster is checked when connected


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_on_a_machine_without_a_gpu_is_refused() -> None:
    with pytest.raises(InputError, match="device = 'cuda': expected cpu or auto"):
        check_machine(None, "cuda", 1)
