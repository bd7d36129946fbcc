"""Provenance of a run: git commit, versions, host."""

from __future__ import annotations

import platform
import socket
import subprocess  # nosec B404  # for git alone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("genpipe", "torch", "torchvision", "ray", "mlflow")
_GIT_SECONDS = 5


def provenance() -> dict[str, str]:
    """Return the git commit (`-dirty` if files differ from it), versions and host, as tags.

    The commit is `unknown` where this file is not under version control, as when installed.
    """
    commit, dirty = _commit(Path(__file__).resolve())
    tags = {"git_commit": f"{commit}-dirty" if dirty else commit, "hostname": socket.gethostname()}
    if commit != "unknown":
        tags["mlflow.source.git.commit"] = commit
    tags["version.python"] = platform.python_version()
    return tags | {f"version.{name}": _version(name) for name in _PACKAGES}


def _commit(file: Path) -> tuple[str, bool]:
    """Return the commit of the repository that tracks a file, and whether files differ from it."""
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return "unknown", False
    commit = _git(file.parent, "rev-parse", "HEAD")
    return commit or "unknown", bool(commit and _git(file.parent, "status", "--porcelain"))


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git prints; None if it fails, takes too long, or is not installed."""
    try:
        # The git of the user's PATH, without a shell; the folder is that of our own code.
        done = subprocess.run(  # nosec B603 B607
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
