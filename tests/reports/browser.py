"""A page in a real browser: opened from disk with the network off, and all that goes wrong in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg.core.colors import lesion_color


@contextmanager
def launched(*switches: str) -> Iterator[Any]:
    """Debian's Chromium; the test is skipped where it or Playwright is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox", *switches])
        yield browser
        browser.close()


class Opened:
    """A page from disk and all that went wrong in it; a page with a viewer is ready when this returns."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900}, **options)
        self.page = self.context.new_page()
        self.trouble: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.trouble.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.on("dialog", lambda dialog: self.trouble.append(dialog.message) or dialog.dismiss())
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(f"file://{path}")
        if options.get("java_script_enabled", True) and self.page.locator("#viewer").count():
            self.page.wait_for_selector("#viewer[data-state=ready]", timeout=60_000)

    def close(self) -> None:
        """Close the page and say what was wrong in it: errors, or a request for anything but the page."""
        own = self.page.url
        self.context.close()
        assert self.trouble == []
        assert {url for url in self.requests if not url.startswith(("blob:", "data:"))} == {own}

    def state(self, name: str) -> str:
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return str(self.page.get_attribute("#viewer", f"data-{name}"))

    def lps(self) -> np.ndarray:
        return np.array(self.state("lps").split(), dtype=float)

    def color_pixels(self, plane: str, lesion_id: int) -> int:
        """Pixels of a picture in a lesion's color."""
        self.state("lps")  # drawn by now
        code = """([id, [r, g, b]]) => {
            const canvas = document.getElementById(id);
            const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            let count = 0;
            for (let p = 0; p < data.length; p += 4)
                if (Math.abs(data[p] - r) + Math.abs(data[p + 1] - g) + Math.abs(data[p + 2] - b) < 30) count++;
            return count;
        }"""
        return int(self.page.evaluate(code, [f"view-{plane}", list(lesion_color(lesion_id))]))
