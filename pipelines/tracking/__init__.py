"""Delivers journals to MLflow, and reads runs back from it.

The journals on disk are the record (`pipelines.store.journal`); MLflow shows them. One process,
the one that runs the command, delivers.
"""
