"""Families of generative models and what trains and measures them, in plain PyTorch.

A module in this folder is a family, and its name is the family's name; the folders hold what
families share. Neither Ray nor MLflow is imported here.
"""

from gen_models.core.families import Family, family, names, space_module

__all__ = ["Family", "family", "names", "space_module"]
