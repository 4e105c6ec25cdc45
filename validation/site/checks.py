"""Checks of the built site: links, nothing from elsewhere, and what a real browser says of it."""

from __future__ import annotations

import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

# What a page loads, as opposed to what it links to.
_LOADS = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "src")}
PHONE = (390, 844)
SHOWN = ("index.html", "book/the-flow.html", "tutorials/first-run.html", "reference.html")


class _Page(HTMLParser):
    """The links, loads and anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if key in ("id", "name") and value:
                self.anchors.add(value)
            elif (tag, key) in _LOADS and value:
                self.loads.append(value)
            elif (tag, key) == ("a", "href") and value:
                self.links.append(value)


def broken(site: Path) -> list[str]:
    """Links to pages or anchors that are not there, and what is loaded from elsewhere."""
    pages = {
        path.resolve(): _Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")
    }
    found = []
    for path, page in pages.items():
        here = path.relative_to(site.resolve())
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.loads and parts.scheme != "data":
                    found.append(f"{here}: loads {link}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target = target / "index.html"
            if not target.is_file():
                found.append(f"{here}: {link}: no such file")
                continue
            anchors = pages[target].anchors if target in pages else {parts.fragment}
            if parts.fragment and unquote(parts.fragment) not in anchors:
                found.append(f"{here}: {link}: no such place in it")
    return found


def browser() -> str | None:
    """The path of a Chromium that is installed, or None."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


def seen(site: Path, program: str, pictures: Path | None = None) -> list[str]:
    """What is wrong with the pages in a browser, as files, without a network.

    Every page is opened at a phone's width: its errors, what it asks of the network, and whether
    it is wider than the screen. A search must find a page.

    Args:
        site: the folder of the built site.
        program: path of a Chromium.
        pictures: where to put pictures of the first pages, light and dark; None for none.
    """
    from playwright.sync_api import sync_playwright

    pages = sorted(path for path in site.rglob("*.html") if "_modules" not in path.parts)
    found: list[str] = []
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            page = _Watched(chromium, scheme, found)
            for path in pages if scheme == "light" else pages[:1]:
                page.open(path, site)
            if scheme == "light":
                page.search(site)
            if pictures is not None:
                for name in SHOWN:
                    page.open(site / name, site)
                    page.picture(pictures / f"{name.replace('/', '-')}-{scheme}.png")
        chromium.close()
    return found


class _Watched:
    """A page of a browser whose faults are noted down."""

    def __init__(self, chromium: Any, scheme: str, found: list[str]) -> None:
        size = {"width": PHONE[0], "height": PHONE[1]}
        context = chromium.new_context(viewport=size, color_scheme=scheme, offline=True)
        self.name, self.found, self.page = "", found, context.new_page()
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self._note(str(error)))
        self.page.on("request", self._asked)

    def _note(self, fault: str) -> None:
        self.found.append(f"{self.name}: {fault}")

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self._note(message.text)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            self._note(f"asks for {request.url}")

    def open(self, path: Path, site: Path) -> None:
        """Open a page, and see whether it fits."""
        self.name = path.relative_to(site).as_posix()
        self.page.goto(path.as_uri())
        wide = self.page.evaluate("document.documentElement.scrollWidth")
        if wide > PHONE[0]:
            self._note(f"{wide} pixels wide on a phone of {PHONE[0]}")

    def search(self, site: Path) -> None:
        """A word that the book has must be found."""
        self.name = "search.html"
        self.page.goto((site / self.name).as_uri() + "?q=bandwidth")
        try:
            self.page.wait_for_selector("#search-results li a", timeout=20_000)
        except Exception as error:
            self._note(f"finds nothing for 'bandwidth': {error}")

    def picture(self, path: Path) -> None:
        """What is seen at first, as a PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=str(path))
