"""Training steps recorded as CUDA graphs and replayed.

With a small model a GPU waits for the launch of each kernel; a replay launches all kernels at
once. A replay reads and writes the memory that it was recorded with, and runs no Python. So a
recording is checked before it is used: two replayed steps must change the state as the same two
steps do without a graph.
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
"""Whether each objective runs on this step, in the order of objectives."""
Run = Callable[[Batch, Draws, Due], None]

_WARM_UP = 3
_OTHER = 0.9
"""Factor on the inputs of the second step of a check, so that the two steps differ."""
_AGREE = 0.05
"""Allowed difference of a tensor, relative to its change: Adam amplifies rounding errors."""
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
    """Runs a step by a recording for each shape of batch and set of objectives that are due.

    Besides its arguments `run(batch, draws, due)` reads only tensors of `state()`, and changes
    those in place. A step that cannot be recorded runs without a graph, and a warning says why.
    """

    def __init__(self, run: Run, state: Callable[[], Sequence[Tensor]]) -> None:
        self._run, self._state = run, state
        self._recordings: dict[tuple[torch.Size, Due], _Recording | None] = {}
        self._seen: set[tuple[torch.Size, Due]] = set()

    def __call__(self, batch: Batch, draws: Draws, due: Due) -> None:
        key = (batch.images.shape, due)
        if key not in self._seen:  # the first step creates tensors, such as sums of metrics
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
        """Record a step and check the recording. Restores the state."""
        before = _copies(self._state())
        other = Batch(batch.images * _OTHER, batch.labels.flip(-1))
        try:
            recording = self._capture(batch, draws, due)
            states = []
            for step in (self._run_with(due), recording.replay):
                self._put_back(before)
                step(batch, draws)
                step(other, {name: d * _OTHER for name, d in draws.items()})
                states.append(_copies(self._state()))
        except RuntimeError as error:  # such as an operation that waits for the device
            _log.warning("steps are not recorded as CUDA graphs: %s", str(error).split("\n")[0])
            return None
        finally:
            self._put_back(before)
        if not all(map(_agree, before, *states)):
            _log.warning("steps are not recorded as CUDA graphs: a replay computes something else")
            return None
        return recording

    def _capture(self, batch: Batch, draws: Draws, due: Due) -> _Recording:
        batch = Batch(batch.images.clone(), batch.labels.clone())
        draws = {name: d.clone() for name, d in draws.items()}
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        now = torch.cuda.current_stream()
        side.wait_stream(now)
        with torch.cuda.stream(side):  # as torch.cuda.graph requires
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
    """Return whether a run and a replay changed a tensor by the same, up to rounding."""
    if not run.is_floating_point():  # such as numbers of batches
        before, run, replayed = before.double(), run.double(), replayed.double()
    allowed = _AGREE * (run - before).norm() + 1e-6 * run.norm()
    return bool((replayed - run).norm() <= allowed)
