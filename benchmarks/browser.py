"""Pages in Chromium, as a person sees them: Debian's, which Playwright drives."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_LIMIT_SECONDS = 120.0
_FLAGS = ["--no-sandbox", "--enable-unsafe-swiftshader"]
"""WebGL on the CPU, because there may be no GPU."""
_NO_ASSISTANT = """
    localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
    localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
"""
"""MLflow's page opens its assistant over a third of the window at a browser's first visit."""


def find_browser() -> str | None:
    """Return the path of Chromium; None if it is not installed."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def require_browser() -> str:
    """Return the path of Chromium; exit if it is not installed."""
    browser = find_browser()
    if browser is None:
        raise SystemExit(f"no browser: expected one of {', '.join(BROWSERS)}")
    return browser


@contextmanager
def browser_page(width: int = 1_400, height: int = 900) -> Iterator[Page]:
    """Open an empty page of a new headless browser, of this many pixels, for the block."""
    from playwright.sync_api import sync_playwright

    path = require_browser()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_FLAGS)
        try:
            context = browser.new_context(viewport={"width": width, "height": height})
            context.add_init_script(_NO_ASSISTANT)
            context.set_default_timeout(1_000 * _LIMIT_SECONDS)
            yield context.new_page()
        finally:
            browser.close()
