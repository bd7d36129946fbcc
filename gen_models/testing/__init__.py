"""Tests that every family must pass, and the example data that they use. Imports pytest."""

import pytest

for _module in ("conformance", "states", "suite"):
    pytest.register_assert_rewrite(f"gen_models.testing.{_module}")

from gen_models.testing.conformance import FamilyConformance  # noqa: E402  (after the line above)

__all__ = ["FamilyConformance"]
