"""A headless Chromium for tests of pages, where this machine has one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

VARIABLE = "NASRUN_CHROMIUM"
"""Environment variable: the program; empty: none is wanted."""

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def chromium() -> str:
    """The path of the program; skips the test where there is none, and says so."""
    named = os.environ.get(VARIABLE)
    if named == "":
        pytest.skip(f"the browser tests are left out: {VARIABLE} is empty")
    found = named or next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"the browser tests are left out: no chromium on PATH, and no {VARIABLE}")
    return found


class Tab:
    """A page that is open, and what it complained about."""

    def __init__(self, page: Any) -> None:
        self.page, self.complaints = page, []
        page.on("console", lambda said: self.complaints.append(f"{said.type}: {said.text}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))
        page.on("request", self._requested)

    def _requested(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.complaints.append(f"asks for {request.url}")

    def open(self, path: Path) -> Tab:
        self.page.goto(path.absolute().as_uri())
        return self

    def ask(self, script: str) -> Any:
        return self.page.evaluate(script)


@contextmanager
def browser() -> Iterator[Any]:
    """A browser, which opens pages by ``new_page``."""
    program = chromium()
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="the browser tests are left out: playwright is not installed"
    )
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield opened
        finally:
            opened.close()
