"""The metrics of every variant's first steps, compared with recorded ones.

After a change that is meant to change the computation, record them again from the folder `tests`:
`python -m unit.gen_models.training.test_golden`.
"""

import json
from pathlib import Path

import pytest
import torch
from support.models import VARIANTS, make_learner, some_batch

GOLDEN = Path(__file__).parents[3] / "golden"
STEPS = 12


def first_steps(variant: str) -> list[dict[str, float]]:
    """The metrics of each of the first steps, in float64."""
    torch.set_default_dtype(torch.float64)
    try:
        learner, batch = make_learner(variant), some_batch(32)
        found = []
        for _ in range(STEPS):
            learner.step(batch)
            found.append(learner.pop_metrics())
    finally:
        torch.set_default_dtype(torch.float32)
    return found


def test_first_steps_are_as_they_were(variant: str) -> None:
    golden = json.loads((GOLDEN / f"{variant}.json").read_text())
    for step, (now, then) in enumerate(zip(first_steps(variant), golden["steps"], strict=True)):
        assert now == pytest.approx(then, rel=1e-6, abs=1e-9), f"step {step}, {golden['torch']}"


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name in VARIANTS:
        content = {"torch": torch.__version__, "steps": first_steps(name)}
        (GOLDEN / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
