"""Random numbers as functions of a seed and a position.

A generator is seeded for each use, from a name of the use and a position ("draws", step 812). So
no generator's state has to be stored to resume exactly, and a trial's numbers do not depend on
the trials that run in the same process.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Generator, Tensor


def derive_seed(seed: int, *stream: str | int) -> int:
    """Derive a seed in [0, 2**63) for a `stream` of numbers, such as `("draws", 812)`."""
    text = "/".join(str(part) for part in (seed, *stream))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def seeded(generator: Generator, seed: int, *stream: str | int) -> Generator:
    """Seed `generator` for the beginning of a stream, and return it."""
    return generator.manual_seed(derive_seed(seed, *stream))


@contextmanager
def global_seed(seed: int, *stream: str | int) -> Iterator[None]:
    """Seed torch's global CPU generator for a stream within the context; restore it afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, *stream))
        yield


def permutation(num: int, seed: int, epoch: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the order of `num` training images in an epoch, int64 (num,), equal on all ranks."""
    generator = seeded(Generator(device), seed, "order", epoch)
    return torch.randperm(num, generator=generator, device=device)
