"""The random numbers of training steps, made for several steps at once.

On a GPU a few numbers take as long to make as many, and each trial of a population has a stream
of its own. So a step's numbers are some rows of what is drawn for a block of steps, and which
rows of which block follows from the position in training alone.
"""

from __future__ import annotations

from collections.abc import Callable

from gen_models.core.contract import Draws

STEPS_AT_ONCE = 16


class DrawnAhead:
    """The numbers of each step, out of blocks of up to 16 steps of an epoch.

    `make(rows, first)` draws `rows` rows for the steps after `first` steps; `rows_dim` is the
    dimension in which they lie.
    """

    def __init__(
        self, make: Callable[[int, int], Draws], steps_per_epoch: int, rows_dim: int = 0
    ) -> None:
        self._make, self._steps_per_epoch, self._rows_dim = make, steps_per_epoch, rows_dim
        self._block: Draws = {}
        self._made_for: tuple[int, int] | None = None

    def of(self, num: int, step_count: int) -> Draws:
        """Those of the step after `step_count` steps, over `num` images. Views."""
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
        """Draw anew: what is drawn depends on more than the position, and that has changed."""
        self._block, self._made_for = {}, None
