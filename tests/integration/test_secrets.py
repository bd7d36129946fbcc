"""Secrets are planted in the tracking URI, in URLs for notices and in the environment: after every
command no file of the store and no output has one of them."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.mlflow_page import USER, page
from support.pipeline import ROOT

from pipelines.store.layout import Store

pytestmark = [pytest.mark.slow, pytest.mark.long]

PASSWORD = "planted-in-the-uri-1"
PLANTED = {
    "RAY_AUTH_TOKEN": "planted-ray-token-0123456789abcdef",
    "AWS_SECRET_ACCESS_KEY": "planted-aws-secret",
    "MY_API_KEY": "planted-api-key",
    "MLFLOW_TRACKING_TOKEN_OF_ANOTHER": "not-a-secret-name",
    "GENPIPE_NOTIFY_URL": "http://127.0.0.1:9/planted-notices-of-the-environment",
}
GIVEN_HOOK = "http://127.0.0.1:9/planted-notices-of-a-flag"
SECRETS = [
    PASSWORD,
    *(value for value in PLANTED.values() if value.startswith("planted")),
    *("planted-notices-of-the-environment", "planted-notices-of-a-flag"),
    base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode(),
]
SMALL = [
    *("--data", "digits", "--epochs", "1", "--batch-size", "256", "--precision", "fp32"),
    *("--model.hidden", "32", "--features", "pca"),
]


def run(args: list[str], expect: int = 0, **variables: str) -> str:
    """Run a command in a process of its own; return its output, which holds no secret."""
    unset = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")
    environment = {name: text for name, text in os.environ.items() if name not in unset}
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", *args],
        cwd=ROOT,
        env=environment | PLANTED | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    output = done.stdout + done.stderr
    assert done.returncode == expect, output
    for secret in SECRETS:
        assert secret not in output, (args[0], secret)
    return output


def check_files(folder: Path) -> None:
    """Check that no file below the folder holds a secret."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        content = path.read_bytes()
        for secret in SECRETS:
            assert secret.encode() not in content, (path, secret)


@pytest.mark.timeout(1800)  # some 25 processes
def test_no_command_writes_or_prints_a_secret(tmp_path: Path, mlflow_database: Path) -> None:
    server = Store.at(tmp_path / "server")
    server.root.mkdir()
    shutil.copy(mlflow_database, server.database)
    store = tmp_path / "store"
    with page(server, PASSWORD, "--auth") as address:
        uri = address.replace("://", f"://{USER}:{PASSWORD}@")
        where = ["--store", str(store), "--tracking-uri", uri]
        log_in = {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": PASSWORD}
        token = PLANTED["MY_API_KEY"]

        run(["train", "vae", *SMALL, "--name", "a run", *where, "--json"])
        check_files(store)
        text = run(
            [
                *("search", "vae", *SMALL, "--trials", "2", "--grace-period", "1", *where),
                *("--notify", GIVEN_HOOK, "--json"),
            ]
        )
        assert "notice" in text  # nobody listens there
        check_files(store)
        search_id = str(re.search(r'"search_id": "(vae-[^"]+)"', text)[1])  # type: ignore[index]
        # The config has the URI without the password, which comes from the environment.
        run(["search", "vae", "--resume", search_id, "--store", str(store)], **log_in)
        run(["search", "vae", "--resume", search_id, *where])
        check_files(store)
        run(["confirm", "vae-digits@champion", "--seeds", "2", *where])
        check_files(store)
        run(["runs", *where, "--json"])
        run(["runs", "--store", str(store), "--tracking-uri", address, "--verbose"], **log_in)
        run(["best", "vae", *where, "--json"])
        run(["sample", "vae-digits@champion", "--out", str(tmp_path / "store/x.png"), *where])
        few = ["--num", "50", "--images", "5", "--importance-samples", "5"]
        run(["evaluate", "vae-digits@champion", *few, *where])
        run(["sync", *where, "--json"])
        run(["search", "vae", *SMALL, "--grace-period", "1", "--dry-run", *where])
        run(["search", "vae", f"--notify={GIVEN_HOOK}", "--dry-run"])
        run(["search", "vae", "--notify", GIVEN_HOOK, "--no-such-flag"], 2)
        run(["status", "--store", str(store), "--json"])
        run(["stop", search_id, "--store", str(store)], 2)
        run(["browse", *where])  # prints the server's address
        code = "import genpipe, sys; print(genpipe.load(*sys.argv[1:2], store=sys.argv[2], "
        code += "tracking_uri=sys.argv[3]).sample(1).shape)"
        loading = [sys.executable, "-c", code, "vae-digits@champion", str(store), uri]
        subprocess.run(loading, cwd=ROOT, check=True, timeout=300, capture_output=True)
        check_files(store)

        # What goes wrong names the place, and not the password.
        wrong = uri.replace(PASSWORD, f"{PASSWORD}-wrong")
        assert "does not answer" in run(
            ["runs", "--store", str(store), "--tracking-uri", wrong], 2
        )
        closed = re.sub(r":\d+$", ":9", uri)
        run(["train", "vae", *SMALL, "--store", str(store), "--tracking-uri", closed], 2)
        run(["train", "vae", "--tracking-url", uri], 2)
        run(["runs", f"--tracking-uri={uri}", "--num", "none"], 2)
        run(["sample", uri, *where], 2)
        run([uri], 2)
        refused = run(["submit", "--", "train", "vae", *SMALL, "--dry-run", *where], 2)
        assert "expected no password" in refused
        hooked = [
            "submit",
            "--",
            "search",
            "vae",
            *SMALL,
            "--grace-period",
            "1",
            "--store",
            "/shared",
        ]
        assert "no URL for notices" in run([*hooked, "--notify", GIVEN_HOOK], 2)
        run(["train", "vae", *SMALL, "--data", f"npz:/{token}.npz", *where], 2)
        check_files(store)
    check_files(server.artifacts)
