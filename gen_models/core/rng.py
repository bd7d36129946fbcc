"""Where every random number comes from: a seed and a position, never the past.

A generator is seeded anew for each use from what it is for ("draws", step 812). So nothing has
to be stored to resume exactly, and a trial's numbers do not depend on who runs beside it.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Generator, Tensor


def derive_seed(seed: int, *stream: str | int) -> int:
    """A seed in [0, 2**63) of its own for each `stream` of numbers, such as `("draws", 812)`."""
    text = "/".join(str(part) for part in (seed, *stream))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def seeded(generator: Generator, seed: int, *stream: str | int) -> Generator:
    """`generator` itself, set to the beginning of the stream."""
    return generator.manual_seed(derive_seed(seed, *stream))


@contextmanager
def global_seed(seed: int, *stream: str | int) -> Iterator[None]:
    """Torch's global CPU generator at the beginning of the stream; as it was, afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, *stream))
        yield


def permutation(num: int, seed: int, epoch: int, device: torch.device | str = "cpu") -> Tensor:
    """The order of `num` training images in an epoch, int64 (num,), the same on every rank."""
    generator = seeded(Generator(device), seed, "order", epoch)
    return torch.randperm(num, generator=generator, device=device)
