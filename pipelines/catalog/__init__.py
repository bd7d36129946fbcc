"""Finds recorded runs and models, to list, load, sample and evaluate them."""
