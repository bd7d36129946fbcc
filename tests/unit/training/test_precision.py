"""The choice between float32 and bfloat16."""

from collections.abc import Iterator
from typing import Any, get_args

import pytest
import torch
from support.models import SPEC
from support.training import small_run

from gen_models.training import cpu
from gen_models.training.precision import Precision
from pipelines.cluster.connection import Cluster
from pipelines.config.run import Train
from pipelines.config.search import Search
from pipelines.config.serialization import to_dict
from pipelines.training.precision import faster_precision, fastest_precision, resolve_precision

LOCAL = Cluster("127.0.0.1:1", 2.0, 0.0, {}, is_local=True)


@pytest.mark.parametrize(
    ("fp32", "bf16", "chosen"),
    [
        (1.0, 1.0, "fp32"),
        (1.0, 0.9, "fp32"),  # not worth the lower precision
        (1.15, 1.0, "fp32"),
        (1.16, 1.0, "bf16"),
        (2.0, 1.0, "bf16"),
        (1.0, 9.0, "fp32"),
    ],
)
def test_bfloat16_must_be_much_faster(fp32: float, bf16: float, chosen: Precision) -> None:
    assert faster_precision({"fp32": fp32, "bf16": bf16}) == chosen


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_it_is_measured_and_leaves_the_process_as_it_was(three_threads: None) -> None:
    state = torch.get_rng_state()
    content = to_dict(small_run(Train, precision="auto"))
    assert fastest_precision(content, SPEC, on_gpu=False) in get_args(Precision)
    assert torch.get_num_threads() == 3
    assert not cpu._flushes_denormals()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", [Train, Search])
def test_auto_is_replaced_by_what_is_measured(kind: Any) -> None:
    settings = {"precision": "auto"} | ({"grace_period": 1} if kind is Search else {})
    run = small_run(kind, **settings)
    resolved = resolve_precision(run, SPEC, LOCAL, on_gpu=False)
    assert type(resolved) is kind and resolved.precision in get_args(Precision)


@pytest.mark.parametrize("precision", get_args(Precision))
def test_a_precision_that_was_given_is_kept(precision: Precision) -> None:
    run = small_run(Train, precision=precision)
    assert resolve_precision(run, SPEC, LOCAL, on_gpu=False) is run
