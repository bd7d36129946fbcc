"""Draws the random numbers of several training steps at once.

On a GPU a few numbers take as long to draw as many, and each fused trial has its own stream. So
the numbers of a step are rows of those drawn for a block of steps; which rows of which block
depends on the position in training alone.
"""

from __future__ import annotations

from collections.abc import Callable

from gen_models.core.contract import Draws

STEPS_AT_ONCE = 16
"""Most steps in a block."""


class DrawnAhead:
    """The random numbers of each step, drawn in blocks of up to 16 steps of an epoch.

    `make(rows, first)` draws `rows` rows for the steps after the first `first` ones; `rows_dim` is
    the dimension of the rows.
    """

    def __init__(
        self, make: Callable[[int, int], Draws], steps_per_epoch: int, rows_dim: int = 0
    ) -> None:
        self._make, self._steps_per_epoch, self._rows_dim = make, steps_per_epoch, rows_dim
        self._block: Draws = {}
        self._made_for: tuple[int, int] | None = None

    def of(self, num: int, step_count: int) -> Draws:
        """Return the numbers of the step after `step_count` steps, over `num` images. Views."""
        step = step_count % self._steps_per_epoch
        within = step % STEPS_AT_ONCE
        first = step_count - within
        if self._made_for != (num, first):
            steps = min(STEPS_AT_ONCE, self._steps_per_epoch - step + within)
            self._block, self._made_for = self._make(num * steps, first), (num, first)
        return {
            name: numbers.narrow(self._rows_dim, within * num, num)
            for name, numbers in self._block.items()
        }

    def forget(self) -> None:
        """Drop the current block, because the learner's state has changed."""
        self._block, self._made_for = {}, None
