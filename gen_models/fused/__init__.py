"""Trains many learners on one device, stacked where they are of one structure."""
