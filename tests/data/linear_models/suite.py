"""The conformance suite of the family, as its package would run it."""

from gen_models.testing import FamilyConformance


class TestLinear(FamilyConformance):
    family = "linear"
    variants = {"small": {"latent_dim": 2}}  # noqa: RUF012
