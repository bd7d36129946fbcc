"""Settings of an evaluation on the test split."""

from __future__ import annotations

from dataclasses import dataclass

from gen_models.core.errors import require

K_NEAREST = 5
"""k of precision, recall, density and coverage (Naeem et al. 2020)."""


@dataclass(frozen=True, kw_only=True)
class HeldOutConfig:
    """How a model is evaluated on the test split."""

    num: int = 10_000
    """Samples drawn from the model."""
    importance_samples: int = 5_000
    """Samples per image of the importance-weighted likelihood bound."""
    images: int = 1_000
    """Test images whose likelihood is bounded: drawn with a fixed seed, of each class its
    share."""

    def __post_init__(self) -> None:
        require(self.num > K_NEAREST, "num", self.num, f"at least {K_NEAREST + 1}")
        for name in ("importance_samples", "images"):
            value = getattr(self, name)
            require(value >= 1, name, value, "an integer of at least 1")
