"""Tests that every family must pass, and the example data that they use. Imports pytest."""

import pytest

pytest.register_assert_rewrite("gen_models.testing.conformance", "gen_models.testing.states")

from gen_models.testing.conformance import FamilyConformance  # noqa: E402  (after the line above)

__all__ = ["FamilyConformance"]
