"""Thread settings of training on a CPU."""

import torch

from gen_models.training.cpu import cpu_thread_settings


def flushes() -> bool:
    """Whether a denormal number counts as 0."""
    return float(torch.full((8,), 1e-310, dtype=torch.float64).mul(1.0).sum()) == 0.0


def test_denormal_numbers_are_flushed_within_the_scope_alone() -> None:
    assert not flushes()
    with cpu_thread_settings():
        assert flushes()
    assert not flushes()


def test_a_thread_that_flushes_already_still_does_afterwards() -> None:
    torch.set_flush_denormal(True)
    try:
        with cpu_thread_settings():
            assert flushes()
        assert flushes()
    finally:
        torch.set_flush_denormal(False)
