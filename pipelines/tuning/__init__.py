"""Searches over configs with Ray Tune, and records every trial."""
