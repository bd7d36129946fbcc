"""Addresses of runs on MLflow's page."""

from __future__ import annotations

from urllib.parse import urlsplit

from pipelines.store.layout import RunFolder

LOCAL_PAGE = "http://127.0.0.1:5000"
"""Where `genpipe browse` serves MLflow's page over a database."""


def tracking_page(uri: str) -> str:
    """Return the address of MLflow's page at a tracking URI, without a login."""
    if not uri.startswith("http"):
        return LOCAL_PAGE
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")


def run_page(folder: RunFolder) -> str | None:
    """Return the address of a run on MLflow's page; None if it is not delivered yet."""
    delivered = folder.journal.delivered()
    run_id, experiment = delivered.get("run_id"), delivered.get("experiment_id")
    if not run_id:
        return None
    within = f"experiments/{experiment}/" if experiment else ""
    return f"{tracking_page(str(delivered.get('uri', '')))}/#/{within}runs/{run_id}"
