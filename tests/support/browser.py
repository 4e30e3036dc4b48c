"""Chromium, driven by playwright: a tab that notes what a page asks for and what it complains about."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

_ARGUMENTS = [
    "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
]  # fmt: skip


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the Chromium of the system. A test is skipped if there is none."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("Chromium is not installed (on Debian: apt install chromium)")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=_ARGUMENTS)
        yield browser
        browser.close()


class Tab:
    """A page that is open.

    Attributes
    ----------
    requests
        Addresses that it asked for, without its own.
    complaints
        Messages on the console, and errors of scripts.
    """

    def __init__(self, browser: Browser, path: Path, width: int = 1600, **options: Any) -> None:
        self.page: Page = browser.new_page(viewport={"width": width, "height": 900}, **options)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        own = path.absolute().as_uri()
        self.page.on("request", lambda each: self.requests.append(each.url) if each.url != own else None)
        self.page.on("console", lambda each: self.complaints.append(each.text))
        self.page.on("pageerror", lambda each: self.complaints.append(str(each)))
        self.page.goto(own)

    @property
    def outside(self) -> list[str]:
        """Addresses that are neither in the page nor files."""
        return [each for each in self.requests if not each.startswith(("data:", "file:"))]
