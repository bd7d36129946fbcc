"""How long the page of a search takes: to build, and to answer in a browser.

The searches have 30, 1,000 and 5,000 trials, whose journals are written here, without training, as
ASHA would have left them: values over three settings with a best place, noise, trials that were
stopped at a rung, diverged or failed, and pictures. `genpipe report` is then timed as a process of
its own, and the page is opened in headless Chromium: `answers` is the time from the navigation
until the figures in the window are drawn, measured by the page itself; `drawn` until all are.

    python -m benchmarks.report
    python -m benchmarks.report --pictures FOLDER     # and take screenshots of three widths
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import exp, inf, log10
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro
from PIL import Image

from benchmarks.browser import browser_page
from benchmarks.catalog import METRIC, recorded_info
from benchmarks.figures import finish, run_genpipe, say, scratch, setting
from pipelines.config.run import defaults
from pipelines.config.search import Search
from pipelines.config.serialization import dump_config
from pipelines.store.checkpoints import MODEL_FILE, checkpoint_folder
from pipelines.store.files import LocalFiles
from pipelines.store.journal import Journal, Outcome, RunStatus
from pipelines.store.layout import SearchFolder, Store
from pipelines.store.usage import Usage, write_usage
from pipelines.training.run_info import trial_label

if TYPE_CHECKING:
    from playwright.sync_api import Page

WIDTHS = (400, 1_000, 1_600)
_EPOCHS, _GRACE, _FACTOR = 20, 3, 3
_SEARCHED = ("model.latent_dim", "model.kl_weight", "optim.lr")
_MESSAGES = ("CUDA out of memory: tried to allocate {0} MiB", "the fused worker died (trial {0})")


@dataclass(frozen=True)
class Options:
    """Build and open the pages of small and large searches."""

    trials: tuple[int, ...] = (30, 1_000, 5_000)
    """Trials of each search."""
    repeats: int = 3
    """Times that each page is built and opened; the figures are medians."""
    store: Path | None = None
    """Folder of the store, kept and used again; without it, one that is removed."""
    pictures: Path | None = None
    """Folder for screenshots of each page, at three widths."""


# -- searches that nothing was trained for -------------------------------------------------------
class UnsyncedFiles(LocalFiles):
    """Files that a power loss may take: writing 5,000 trials then takes seconds, not minutes."""

    def write(self, path: Path, content: bytes | str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def write_search(
    folder: SearchFolder, trials: int, seed: int = 0, *, epochs: int = _EPOCHS
) -> None:
    """Write the journals of a search of so many trials. `epochs`: of a trial that is not stopped,
    6 at least."""
    rng, folder = np.random.default_rng(seed), SearchFolder(folder.path, UnsyncedFiles())
    given: dict[str, Any] = {"metric": METRIC, "trials": trials, "grace_period": _GRACE}
    run = replace(defaults(Search, "vae"), epochs=epochs, **given)
    folder.files.write(folder.config, dump_config(run))
    info: dict[str, Any] = {"kind": "search", "search_id": folder.name}
    named = {"searched": " ".join(_SEARCHED)}
    folder.journal.open(recorded_info(folder.name, 0, named, **info))
    rungs: dict[int, list[float]] = {3: [], 9: []}
    pictures = [_picture(sharpness) for sharpness in np.linspace(0.3, 2.5, 12)]
    for number in range(trials):
        _write_trial(folder, number, rng, rungs, pictures, epochs)
    folder.journal.close(Outcome("completed", 0))
    write_usage(folder, Usage(seconds=4.0 * trials, device_seconds=16.0 * trials, devices=4))
    delivered = {"uri": "sqlite:///mlflow.db", "run_id": f"{0:032x}", "experiment_id": "1"}
    folder.journal.mark_delivered(delivered)


def _write_trial(
    folder: SearchFolder,
    number: int,
    rng: np.random.Generator,
    rungs: dict[int, list[float]],
    pictures: list[bytes],
    epochs: int,
) -> None:
    """Write one trial, which goes on at a rung if it is among the best third there so far."""
    config: dict[str, Any] = {
        "model.latent_dim": int(rng.choice([4, 8, 12, 16, 24, 32])),
        "model.kl_weight": float(np.exp(rng.uniform(np.log(0.25), np.log(4.0)))),
        "optim.lr": float(np.exp(rng.uniform(np.log(3e-4), np.log(1e-2)))),
    }
    final = 22.0 + 9.0 * (log10(config["optim.lr"]) + 2.3) ** 2
    final += 2.0 * log10(config["model.kl_weight"]) ** 2 + 12.0 / config["model.latent_dim"]
    final += float(rng.normal(0.0, 0.15))
    name = f"{folder.name[-4:]}_{number:05d}"
    trial = folder.trial(name)
    ids: dict[str, Any] = {
        "kind": "trial",
        "search_id": folder.name,
        "trial_id": name,
        "parent": "../..",
    }
    ids["label"] = trial_label(config, _SEARCHED)
    trial.journal.open(recorded_info(name, number, config, **ids))
    trial.journal.write_start({"samples": pictures[0]})
    epoch, ending, message = 0, "completed", ""
    if rng.uniform() < 0.02:
        ending, message = "failed", str(rng.choice(_MESSAGES)).format(number)
    elif config["optim.lr"] > 8e-3 and rng.uniform() < 0.3:
        ending = "diverged"
    last = int(rng.integers(1, 6)) if ending != "completed" else epochs
    seconds = float(rng.uniform(0.5, 1.5)) * (1.0 + config["model.latent_dim"] / 32)
    best = (inf, 0)
    for epoch in range(1, last + 1):
        value = final + 14.0 * exp(-epoch / 3.0) + float(rng.normal(0.0, 0.05))
        _write_epoch(trial.journal, epoch, value, seconds, pictures, final)
        best = min(best, (value, epoch))
        if epoch in rungs and ending == "completed":
            rungs[epoch].append(value)
            if sorted(rungs[epoch]).index(value) > len(rungs[epoch]) // _FACTOR:
                ending = "stopped_early"
                break
    trial.files.write(checkpoint_folder(trial.path, epoch) / MODEL_FILE, "{}")
    tags = {"message": message} if message else {}
    summary = {f"best/{METRIC}": best[0], "best/epoch": float(best[1])}
    trial.journal.close(Outcome(_status(ending), epoch, summary, tags=tags))
    delivered = {
        "uri": "sqlite:///mlflow.db",
        "run_id": f"{number + 1:032x}",
        "experiment_id": "1",
    }
    trial.journal.mark_delivered(delivered)


def _status(ending: str) -> RunStatus:
    known: dict[str, RunStatus] = {
        "completed": "completed",
        "stopped_early": "stopped_early",
        "diverged": "diverged",
        "failed": "failed",
    }
    return known[ending]


def _write_epoch(
    journal: Journal, epoch: int, value: float, seconds: float, pictures: list[bytes], final: float
) -> None:
    metrics = {"train/loss": value + 1.0, METRIC: value, "epoch_seconds": seconds}
    metrics |= {"val/kl": 8.0 + 0.1 * epoch, "val/reconstruction": value - 8.0}
    drawn = pictures[max(0, min(11, int(12 - (final - 22.0))))]
    is_drawn = epoch == 1 or epoch % 5 == 0
    journal.write_epoch(epoch, metrics, {"samples": drawn} if is_drawn else {})


def _picture(sharpness: float) -> bytes:
    """Return a grid of 8 x 8 rings of 8 x 8 pixels, more or less sharp."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:8, :8]
    tiles = []
    for _ in range(64):
        centre, radius = rng.uniform(2.5, 4.5, 2), rng.uniform(1.5, 3.0)
        away = np.abs(np.hypot(y - centre[0], x - centre[1]) - radius)
        tiles.append(np.exp(-sharpness * away**2))
    grid = np.block([tiles[row * 8 : row * 8 + 8] for row in range(8)])
    out = io.BytesIO()
    Image.fromarray((255 * grid).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


# -- the browser ---------------------------------------------------------------------------------
@contextmanager
def drawn_page(path: Path, width: int = 1_280, height: int = 900) -> Iterator[Page]:
    """Open the page of a search for the block, once all figures that can be seen are drawn."""
    with browser_page(width, height) as page:
        page.goto(f"{path.as_uri()}#draw-all")
        page.wait_for_function("document.documentElement.dataset.drawnMs")
        yield page


def page_seconds(path: Path) -> dict[str, float]:
    """Return how long a page takes in headless Chromium, as it measures itself."""
    with drawn_page(path) as page:
        found: dict[str, str] = page.evaluate("({...document.documentElement.dataset})")
    return {name: int(found[f"{name}Ms"]) / 1_000.0 for name in ("answers", "drawn")}


def take_picture(path: Path, to: Path, width: int) -> None:
    """Take a screenshot of a whole page with all figures."""
    with drawn_page(path, width) as page:
        page.screenshot(path=to, full_page=True)


def main() -> None:
    options = tyro.cli(Options, description=__doc__, args=sys.argv[1:])
    found = setting(options)
    figures: dict[str, float] = {}
    with ExitStack() as stack:
        store = Store.at(options.store or stack.enter_context(scratch()))
        for trials in options.trials:
            folder = store.search(f"vae-digits-{trials}")
            if not folder.files.exists(folder.journal.outcome_file):
                say(f"writing journals of {trials} trials")
                write_search(folder, trials)
            args = ["report", folder.name, "--store", str(store.root)]
            times = [run_genpipe(args)[1] for _ in range(options.repeats)]
            figures[f"build_seconds_{trials}"] = median(times)
            figures[f"megabytes_{trials}"] = folder.report.stat().st_size / 1e6
            opened = [page_seconds(folder.report) for _ in range(options.repeats)]
            for name in ("answers", "drawn"):
                figures[f"{name}_seconds_{trials}"] = median(each[name] for each in opened)
            for width in WIDTHS if options.pictures else ():
                assert options.pictures
                options.pictures.mkdir(parents=True, exist_ok=True)
                picture = options.pictures / f"{trials}-{width}.png"
                take_picture(folder.report, picture, width)
    finish("report", figures, found)


if __name__ == "__main__":
    main()
