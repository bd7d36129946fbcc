"""Reads and writes everything in a store: layout, journals, checkpoints, cache."""
