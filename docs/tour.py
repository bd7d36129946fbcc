"""Takes the pictures of docs/tour.md: `python -m docs.tour`.

Searches in a store of its own, and does what the page tells in a real terminal and in Chromium.
The pictures lie in `docs/tour/`.
"""

from __future__ import annotations

import fcntl
import io
import logging
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from rich.console import Console
from rich.text import Text

from benchmarks.browser import browser_page
from benchmarks.figures import ROOT, environment
from benchmarks.mlflow_pages import TALL, MlflowPages, recorded, served
from benchmarks.processes import kill_tree, wait_for
from pipelines.tracking.mlflow.server import TRIALS

FOLDER = Path(__file__).parent / "tour"
WIDTH, HEIGHT = 1_400, 800
_COLUMNS, _ROWS = 100, 50
_COLOURS = 128
_WEB_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
_SECONDS = 300.0
SEARCH = (
    *("search", "vae", "--name", "first look", "--tag", "team=vision"),
    *("--note", "which latent dimension do the digits need?"),
    *("--space", "optim.lr=loguniform(1e-4, 9)"),
    *("--trials", "24", "--epochs", "20", "--grace-period", "3", "--features", "pca"),
)
"""The search of the page; a learning rate above 1 does not train."""
LOAD = """\
import genpipe
model = genpipe.load("vae-digits@champion", store="runs")
print(model.sample(64).shape, model.encode(model.sample(2)))
"""
_log = logging.getLogger(__name__)


def main() -> None:
    """Take every picture."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    with TemporaryDirectory() as folder:
        in_terminals(Path(folder))
        in_browser(Path(folder) / "runs")


# -- in a terminal ------------------------------------------------------------------------------
def in_terminals(folder: Path) -> None:
    """Search, follow the search from a second terminal, and list what is recorded."""
    search = subprocess.Popen(
        [sys.executable, "-m", "pipelines", *SEARCH],
        cwd=folder,
        env=_environment(),
        stdout=subprocess.DEVNULL,
    )
    try:
        ended = "runs/searches/*/trials/*/journal/outcome.json"
        wait_for(
            lambda: search.poll() is not None or len(list(folder.glob(ended))) >= 8,
            _SECONDS,
            "no trial has ended",
        )
        take("follow", "status", folder=folder)
        if search.wait(_SECONDS) not in (0, 1):  # 1: trials have failed
            raise SystemExit("the search did not end")
    finally:
        kill_tree(search.pid)
    take("best", "best", "vae", folder=folder)
    take("failed", "runs", "--where", "outcome == 'diverged'", "--num", "5", folder=folder)
    take("data", "runs", "--where", "data == 'digits'", "--num", "5", folder=folder)
    take("tagged", "runs", "--tag", "team=vision", "--kind", "search", folder=folder)
    (folder / "load.py").write_text(LOAD)
    picture("load", "python load.py", [sys.executable, "load.py"], folder, before=f"{LOAD}\n")


def take(name: str, *args: str, folder: Path) -> None:
    """Give a command in a terminal, and draw what it shows."""
    said = " ".join(f'"{arg}"' if " " in arg else arg for arg in args)
    picture(name, f"genpipe {said}", [sys.executable, "-m", "pipelines", *args], folder)


def picture(
    name: str, title: str, command: Sequence[str], folder: Path, *, before: str = ""
) -> None:
    """Run a program in a terminal; draw the terminal as `NAME.svg`, below `before`."""
    console = Console(record=True, width=_COLUMNS, file=io.StringIO())
    console.print(Text.from_ansi(before + in_terminal(command, folder)))
    drawn = console.export_svg(title=title, unique_id=name)
    save(name, ".svg", _WEB_FONTS.sub("", drawn).encode())


def in_terminal(command: Sequence[str], folder: Path) -> str:
    """Run a program in a terminal of its own; return what it shows."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
    running = subprocess.Popen(
        command, cwd=folder, env=_environment(), stdout=theirs, stderr=subprocess.DEVNULL
    )
    os.close(theirs)
    parts = []
    with suppress(OSError):  # the terminal is closed when the program has ended
        while part := os.read(ours, 65_536):
            parts.append(part)
    os.close(ours)
    if running.wait(_SECONDS):
        raise SystemExit(f"{' '.join(command)} ended with {running.returncode}")
    return b"".join(parts).decode().replace("\r\n", "\n").strip("\n")


def _environment() -> dict[str, str]:
    return {**environment(), "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}


# -- in a browser -------------------------------------------------------------------------------
def in_browser(store: Path) -> None:
    """Look at the search on MLflow's pages, and at its report."""
    client, experiment = recorded(store, "vae")
    (search,) = client.search_runs([experiment], "tags.kind = 'search'")
    (failed, *_) = client.search_runs([experiment], "tags.outcome = 'diverged'")
    (report,) = store.glob("searches/*/report.html")
    with served(store) as address, browser_page(WIDTH, HEIGHT) as page:
        pages = MlflowPages(page, address)

        def shot(name: str) -> None:
            time.sleep(2.0)  # what moves has come to rest
            save(name, ".png", smaller(page.screenshot()))

        rows = pages.table(experiment, TRIALS)
        shot("trials")
        for number in range(5):
            page.click(
                f".ag-pinned-left-cols-container .ag-row[row-index='{number}'] input >> nth=0"
            )
        page.click("button:has-text('Compare')")
        page.wait_for_selector("text=Parallel Coordinates Plot")
        shot("compare")
        pages.run_charts(experiment, rows[0].run_id)
        pages.cards()  # which draws all of them
        page.set_viewport_size({"width": WIDTH, "height": TALL})
        samples = page.locator("[data-testid=experiment-view-compare-runs-card]").filter(
            has_text="samples"
        )
        for key in ("ArrowRight", "End"):  # from step 0 to the first picture, and to the last
            samples.locator("[role=slider]").press(key)
            time.sleep(1.0)
        samples.locator("img").first.wait_for()
        time.sleep(2.0)
        save("samples", ".png", smaller(samples.screenshot()))
        page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
        pages.run(experiment, failed.info.run_id)
        page.set_viewport_size({"width": WIDTH, "height": HEIGHT + 200})
        shot("failed")
        page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
        pages.run(experiment, search.info.run_id)
        page.wait_for_selector("text=ranked by")
        page.click("button:has-text('Show more')")
        shot("search")
        pages.charts(experiment, TRIALS)
        shot("charts")
        page.goto(f"{report.as_uri()}#draw-all")
        page.wait_for_selector("html[data-drawn-ms]")
        shot("report")
        page.locator("[data-figure^=slice-]").first.scroll_into_view_if_needed()
        shot("setting")


def smaller(png: bytes) -> bytes:
    """Return a picture of fewer colours, which a page of text and lines needs no more of."""
    out = io.BytesIO()
    few = Image.open(io.BytesIO(png)).convert("RGB").quantize(_COLOURS)
    few.save(out, "PNG", optimize=True)
    return out.getvalue()


def save(name: str, suffix: str, content: bytes) -> None:
    path = (FOLDER / name).with_suffix(suffix)
    path.write_bytes(content)
    _log.info("%s, %d KiB", path, len(content) // 1024)


if __name__ == "__main__":
    main()
