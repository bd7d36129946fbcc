"""What worker processes compute for the tests of `gen_models.training.distributed`."""

from pathlib import Path

import psutil
import pytest
import torch
from torch import Generator, Tensor, nn

from gen_models.training.distributed import any_worker, check_replicas, share_batch_norm

ROWS = {
    2: (slice(0, 5), slice(5, 14)),
    4: (slice(0, 1), slice(1, 6), slice(6, 8), slice(8, 14)),
}
"""The rows of each worker, by the number of workers."""


def batch_norm_inputs(mean: float, std: float) -> tuple[Tensor, Tensor]:
    """Return float32 values (14, 3, 5, 5) of a mean and deviation, and weights for a loss."""
    generator = Generator().manual_seed(0)
    values, weights = torch.randn(2, 14, 3, 5, 5, generator=generator)
    return mean + std * values, weights


def listening() -> list[str]:
    """Return the addresses at which this process listens."""
    connections = psutil.Process().net_connections("inet")
    found = [c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN]
    return [ip.removeprefix("::ffff:") for ip in found]


def run_checks(rank: int, world: int, above: Path) -> None:
    """Normalise this worker's rows, compare differing replicas, and write the results."""
    folder = above / str(world)
    folder.mkdir(exist_ok=True)
    for mean, std in ((0.0, 1.0), (10.0, 0.1), (100.0, 0.03)):
        values, weights = (tensor[ROWS[world][rank]] for tensor in batch_norm_inputs(mean, std))
        network = share_batch_norm({"network": nn.Sequential(nn.BatchNorm2d(3))})["network"]
        assert isinstance(network, nn.Sequential)
        values = values.clone().requires_grad_()
        output = network(values)
        (output * weights).sum().backward()
        results = {
            "output": output.detach(),
            "gradient": values.grad,
            "weight_gradient": network[0].weight.grad,
            "bias_gradient": network[0].bias.grad,
            **dict(network[0].named_buffers()),
        }
        torch.save(results, folder / f"{mean}.{rank}.pt")
    (folder / f"listening.{rank}").write_text("\n".join(listening()))
    layer = nn.Linear(1, 1)
    nn.init.constant_(layer.weight, float(rank))
    with pytest.raises(RuntimeError) as raised:
        check_replicas({"layer": layer})
    (folder / f"differing.{rank}").write_text(str(raised.value))
    said = [any_worker(rank == world - 1), any_worker(False)]
    (folder / f"said.{rank}").write_text(f"{said}")
