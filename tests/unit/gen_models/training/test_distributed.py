"""Training on several workers: batch norm over all rows, and the check that replicas are equal.
That two and four workers compute what one does is in the conformance suite of families."""

from pathlib import Path

import pytest
import torch
from support.workers import ROWS, batch_norm_inputs, run_checks
from torch import nn

from gen_models.core.networks import convert_modules
from gen_models.testing.workers import run_workers
from gen_models.training.distributed import GlobalBatchNorm, share_batch_norm


@pytest.fixture(scope="module", params=ROWS)
def workers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, int]:
    """A folder with what two or four workers computed, and their number."""
    above, world = tmp_path_factory.mktemp("workers"), int(request.param)
    run_workers(world, run_checks, world, above)
    return above / str(world), world


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (10.0, 0.1), (100.0, 0.03)])
def test_batch_norm_in_float32_is_that_of_one_worker_in_float64(
    mean: float, std: float, workers: tuple[Path, int]
) -> None:
    """Workers hold unequal numbers of rows, one of four only one."""
    folder, world = workers
    values, weights = (tensor.double() for tensor in batch_norm_inputs(mean, std))
    expected = nn.BatchNorm2d(3).double()
    values.requires_grad_()
    output = expected(values)
    (output * weights).sum().backward()
    for rank in range(world):
        found = torch.load(folder / f"{mean}.{rank}.pt", weights_only=True)
        rows = ROWS[world][rank]
        assert found["output"].dtype == torch.float32
        torch.testing.assert_close(found["output"].double(), output[rows], rtol=0, atol=1e-5)
        assert values.grad is not None
        largest = float(values.grad.abs().max())
        torch.testing.assert_close(
            found["gradient"].double(), values.grad[rows], rtol=0, atol=1e-6 * largest
        )
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            statistic = getattr(expected, name).detach()
            torch.testing.assert_close(
                found[name].to(statistic.dtype), statistic, rtol=1e-6, atol=1e-7
            )


def test_parameter_gradients_add_up_to_those_of_one_worker(workers: tuple[Path, int]) -> None:
    folder, world = workers
    values, weights = batch_norm_inputs(10.0, 0.1)
    norm = nn.BatchNorm2d(3).double()
    (norm(values.double()) * weights.double()).sum().backward()
    files = [folder / f"10.0.{rank}.pt" for rank in range(world)]
    parts = [torch.load(file, weights_only=True) for file in files]
    for name in ("weight", "bias"):
        total = sum(part[f"{name}_gradient"].double() for part in parts)
        torch.testing.assert_close(total, getattr(norm, name).grad, rtol=1e-5, atol=1e-5)


def test_differing_replicas_are_noticed(workers: tuple[Path, int]) -> None:
    folder, world = workers
    for rank in range(world):
        assert "the workers' networks differ" in (folder / f"differing.{rank}").read_text()


def test_all_workers_hear_what_one_says(workers: tuple[Path, int]) -> None:
    folder, world = workers
    heard = {(folder / f"said.{rank}").read_text() for rank in range(world)}
    assert heard == {"[True, False]"}


def test_workers_listen_at_their_address_alone(workers: tuple[Path, int]) -> None:
    """Torch's store listens at every address by default, and has no login."""
    folder, world = workers
    found = [(folder / f"listening.{rank}").read_text().split() for rank in range(world)]
    assert all(each for each in found)
    assert {ip for each in found for ip in each} == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (nn.BatchNorm1d, (6, 4)),
        (nn.BatchNorm1d, (6, 4, 3)),
        (nn.BatchNorm2d, (6, 4, 3, 2)),
        (nn.BatchNorm3d, (6, 4, 3, 2, 2)),
    ],
)
@pytest.mark.parametrize("momentum", [0.1, None])
def test_on_one_worker_it_is_torch_s_batch_norm(
    kind: type[nn.BatchNorm2d], shape: tuple[int, ...], momentum: float | None
) -> None:
    norm, ours = kind(4, momentum=momentum), GlobalBatchNorm.of(kind(4, momentum=momentum))
    for step in range(3):
        values = torch.randn(shape, generator=torch.Generator().manual_seed(step))
        torch.testing.assert_close(ours(values), norm(values))
    torch.testing.assert_close(ours.state_dict(), norm.state_dict())
    torch.testing.assert_close(ours.eval()(values), norm.eval()(values))


def test_converted_modules_keep_names_parameters_and_the_class_of_others() -> None:
    shared = nn.BatchNorm2d(3)
    network = nn.Sequential(nn.Conv2d(1, 3, 1), shared, nn.Sequential(shared, nn.ReLU()))
    before, classes = dict(network.state_dict(keep_vars=True)), type(shared)

    def convert(module: nn.Module) -> nn.Module | None:
        return GlobalBatchNorm.of(module) if isinstance(module, nn.BatchNorm2d) else None

    converted = convert_modules(network, convert)
    after = dict(converted.state_dict(keep_vars=True))
    assert after.keys() == before.keys() and all(after[n] is before[n] for n in before)
    assert type(converted[1]) is GlobalBatchNorm and converted[1] is converted[2][0]
    assert type(shared) is classes is nn.BatchNorm2d
    root = convert_modules(nn.BatchNorm2d(3), convert)
    assert type(root) is GlobalBatchNorm


def test_one_worker_keeps_its_networks() -> None:
    networks = {"network": nn.Sequential(nn.BatchNorm2d(3))}
    assert share_batch_norm(networks)["network"] is networks["network"]
