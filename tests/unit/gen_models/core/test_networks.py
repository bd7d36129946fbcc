"""The memory format of a model, wherever it is built."""

from pathlib import Path

import pytest
import torch
from support.models import make_learner, make_model, some_batch
from torch import nn

from gen_models.core.checkpoint import load_checkpoint, load_sampler, save_checkpoint
from gen_models.core.networks import build_networks


def is_channels_last(network: nn.Module) -> bool:
    weights = [t for t in network.state_dict().values() if t.dim() == 4]
    assert weights
    return all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)


@pytest.mark.parametrize("variant", ["vae-conv", "gan-conv"])
def test_a_model_has_the_same_memory_format_wherever_it_is_built(
    variant: str, tmp_path: Path
) -> None:
    """Convolutions round differently in another format, on CPUs with AVX2 and without AVX-512."""
    learner = make_learner(variant)
    learner.step(some_batch(16))
    save_checkpoint(tmp_path, variant.split("-")[0], learner.optim, learner)
    sampler, _ = load_sampler(tmp_path)
    places = {
        "built": build_networks(make_model(variant)),
        "learner": learner.networks,
        "validation": learner.sampling_networks(),
        "checkpoint": load_checkpoint(tmp_path).networks,
        "sampler": dict(sampler.networks.items()),
    }
    for place, networks in places.items():
        assert all(is_channels_last(network) for network in networks.values()), place
