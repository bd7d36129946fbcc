"""A training step recorded once as a CUDA graph and replayed.

A small model leaves a GPU waiting for its kernels to be launched one by one; a replay launches
them all at once. What is recorded sees the memory that it was recorded with, and nothing that
Python does between steps. So a recording is tried before it is trusted: two steps of it must
change the state as the same two steps do that are not recorded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gen_models.core.contract import Draws
from gen_models.core.data import Batch

Due = tuple[bool, ...]
"""Which objectives run, in their order."""
Run = Callable[[Batch, Draws, Due], None]

_WARM_UP = 3
_OTHER = 0.9
"""What the second of the two steps multiplies its inputs by, so that they differ."""
_AGREE = 0.05
"""The part of its change that a tensor may differ by: Adam makes much of rounding."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    batch: Batch
    draws: Draws

    def replay(self, batch: Batch, draws: Draws) -> None:
        self.batch.images.copy_(batch.images)
        self.batch.labels.copy_(batch.labels)
        for name, numbers in draws.items():
            self.draws[name].copy_(numbers)
        self.graph.replay()


class StepGraphs:
    """Runs a step, recorded for each shape of batch and set of objectives that are due.

    `run(batch, draws, due)` reads nothing else that changes but tensors of `state()`, and changes
    those in place. A step that cannot be recorded is run as it is, and a warning says why.
    """

    def __init__(self, run: Run, state: Callable[[], Sequence[Tensor]]) -> None:
        self._run, self._state = run, state
        self._recordings: dict[tuple[torch.Size, Due], _Recording | None] = {}
        self._seen: set[tuple[torch.Size, Due]] = set()

    def __call__(self, batch: Batch, draws: Draws, due: Due) -> None:
        key = (batch.images.shape, due)
        if key not in self._seen:  # the first step makes what is made once, such as sums
            self._seen.add(key)
            self._run(batch, draws, due)
            return
        if key not in self._recordings:
            self._recordings[key] = self._record(batch, draws, due)
        recording = self._recordings[key]
        if recording is None:
            self._run(batch, draws, due)
        else:
            recording.replay(batch, draws)

    def _record(self, batch: Batch, draws: Draws, due: Due) -> _Recording | None:
        """A recording that can be trusted. The state is as it was."""
        before = _copies(self._state())
        other = Batch(batch.images * _OTHER, batch.labels.flip(-1))
        try:
            recording = self._capture(batch, draws, due)
            found = []
            for step in (self._run_with(due), recording.replay):
                self._put_back(before)
                step(batch, draws)
                step(other, {name: d * _OTHER for name, d in draws.items()})
                found.append(_copies(self._state()))
        except RuntimeError as error:  # such as an operation that waits for the device
            _log.warning("steps are not recorded as CUDA graphs: %s", str(error).split("\n")[0])
            return None
        finally:
            self._put_back(before)
        if not all(map(_agree, before, *found)):
            _log.warning("steps are not recorded as CUDA graphs: a replay computes something else")
            return None
        return recording

    def _capture(self, batch: Batch, draws: Draws, due: Due) -> _Recording:
        batch = Batch(batch.images.clone(), batch.labels.clone())
        draws = {name: d.clone() for name, d in draws.items()}
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        now = torch.cuda.current_stream()
        side.wait_stream(now)
        with torch.cuda.stream(side):  # as torch.cuda.graph asks for
            for _ in range(_WARM_UP):
                self._run(batch, draws, due)
        now.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._run(batch, draws, due)
        return _Recording(graph, batch, draws)

    def _run_with(self, due: Due) -> Callable[[Batch, Draws], None]:
        return lambda batch, draws: self._run(batch, draws, due)

    @torch.no_grad()
    def _put_back(self, state: Sequence[Tensor]) -> None:
        for tensor, value in zip(self._state(), state, strict=True):
            tensor.copy_(value)


def _copies(state: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in state]


def _agree(before: Tensor, run: Tensor, replayed: Tensor) -> bool:
    """Whether two ways have changed a tensor alike."""
    if not run.is_floating_point():  # such as batches that were counted
        before, run, replayed = before.double(), run.double(), replayed.double()
    allowed = _AGREE * (run - before).norm() + 1e-6 * run.norm()
    return bool((replayed - run).norm() <= allowed)
