"""A page in Chromium, driven by Playwright, that remembers what goes wrong on it."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@dataclass
class Opened:
    """A page, and what must stay empty."""

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, address: str, *, width: int = 1200, height: int = 1000) -> None:
        """Open a page and wait for its map."""
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.goto(address)
        self.page.wait_for_selector("#map[data-ready]")
        self.requests.clear()  # of the page itself

    @property
    def data(self) -> dict[str, Any]:
        """What the page holds of its pictures."""
        found: dict[str, Any] = json.loads(self.page.text_content("#map-data"))
        return found

    def places(self) -> list[tuple[float, float]]:
        """Return where each point of the whole map is in the window."""
        self.page.click("#map-whole")
        self.page.locator("#map-canvas").scroll_into_view_if_needed()
        box = self.page.locator("#map-canvas").bounding_box()
        scale = (min(box["width"], box["height"]) - 48) / 10_000
        left = box["x"] + (box["width"] - 10_000 * scale) / 2
        top = box["y"] + (box["height"] - 10_000 * scale) / 2
        data = self.data
        return [
            (left + scale * x, top + scale * y) for x, y in zip(data["x"], data["y"], strict=True)
        ]

    @property
    def said(self) -> str:
        """What a screen reader says."""
        text: str = self.page.text_content("#map-said")
        return text


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Start Chromium, without its sandbox, which containers do not allow."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs PyPI's playwright")
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium: Any) -> Iterator[Opened]:
    """Return an empty page; the test fails if there was an error on it."""
    context = chromium.new_context(accept_downloads=True)
    each = Opened(context.new_page())
    each.page.on("console", lambda line: each.errors.append(f"{line.type}: {line.text}"))
    each.page.on("pageerror", lambda error: each.errors.append(str(error)))
    each.page.on("dialog", lambda dialog: each.errors.append(f"dialog {dialog.message}"))
    each.page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith(("data:", "blob:"))
            else each.requests.append(request.url)
        ),
    )
    yield each
    context.close()
    assert each.errors == []
