"""Open MLflow's page on this machine."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.cli.parsing import RecordedSettings, parse_settings

ORDER, USAGE = 8, "browse"


@dataclass(frozen=True, kw_only=True)
class Browse(RecordedSettings):
    """Serve MLflow's page on 127.0.0.1 until interrupted."""

    port: int = 5000
    """Port to listen on."""
    auth: bool = False
    """Ask for a name and a password: MLFLOW_TRACKING_USERNAME (by default admin) and
    MLFLOW_TRACKING_PASSWORD of this command's environment. Without it, every user of this machine
    can read and change what is recorded."""


def main(args: list[str]) -> int:
    """Run the command; return its exit code."""
    settings = parse_settings(Browse, "browse", args)
    from pipelines.catalog.runs import browse  # light: imports rich

    browse(
        store=settings.store,
        tracking_uri=settings.tracking_uri,
        port=settings.port,
        auth=settings.auth,
    )
    return 0
