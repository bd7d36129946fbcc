"""Tracking: journals are delivered to MLflow, and runs are read back from it.

The journals on disk are the record (`pipelines.store.journal`); MLflow shows them. One process,
the one that runs the command, delivers.
"""
