"""A page in a real browser: what it fetched and said, and where its boxes lie."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

# Boxes of text in pictures are compared as they stand, turned text too: corners, then the separating axis theorem.
# Lines of a block touch by design, so each box keeps the middle of its height only.
_FAULTS = """() => {
  const faults = [];
  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth) faults.push(`the page is ${root.scrollWidth} wide in ${root.clientWidth}`);
  for (const element of document.querySelectorAll('body *')) {
    const own = element.closest('.scroll, pre');
    if (element.closest('svg') && element.tagName !== 'svg' || own && own !== element) continue;
    const box = element.getBoundingClientRect();
    const words = element.textContent.slice(0, 40);
    if (box.width && (box.right > root.clientWidth + 1 || box.left < -1))
      faults.push(`<${element.tagName}> reaches from ${box.left} to ${box.right}: ${words}`);
  }
  const corners = text => {
    const box = text.getBBox(), to = text.getScreenCTM(), trim = box.height * 0.25;
    return [[0, trim], [1, trim], [1, -trim], [0, -trim]].map(([across, shift]) => {
      const point = new DOMPoint(box.x + across * box.width, box.y + (shift > 0 ? 0 : box.height) + shift);
      return point.matrixTransform(to);
    });
  };
  const apart = (one, other) => [one, other].some(shape => shape.some((point, at) => {
    const next = shape[(at + 1) % shape.length];
    const axis = {x: point.y - next.y, y: next.x - point.x};
    const [a, b] = [one, other].map(corners => corners.map(corner => corner.x * axis.x + corner.y * axis.y));
    const size = Math.hypot(axis.x, axis.y) || 1;
    return (Math.min(...a) - Math.max(...b)) / size > -1 || (Math.min(...b) - Math.max(...a)) / size > -1;
  }));
  for (const svg of document.querySelectorAll('svg')) {
    const frame = svg.getBoundingClientRect(), name = svg.getAttribute('aria-label').slice(0, 50);
    if (!frame.width) continue;
    const texts = [...svg.querySelectorAll('text')].filter(text => text.textContent.trim());
    const shapes = texts.map(corners);
    shapes.forEach((shape, at) => {
      const out = p => p.x < frame.left - 1.5 || p.x > frame.right + 1.5
        || p.y < frame.top - 1.5 || p.y > frame.bottom + 1.5;
      if (shape.some(out))
        faults.push(`${name}: "${texts[at].textContent}" leaves the picture`);
      for (let to = 0; to < at; to++)
        if (!apart(shape, shapes[to]))
          faults.push(`${name}: "${texts[at].textContent}" lies on "${texts[to].textContent}"`);
    });
  }
  return faults;
}"""


@dataclass
class Visit:
    """One page as it was shown.

    Attributes:
        faults: what lies where it should not.
        messages: errors and warnings of the console, and script errors.
        requests: addresses asked for beside the page itself.
    """

    faults: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def find_chromium() -> str | None:
    """A system Chromium: `ALIGNX_CHROMIUM`, or the first of the usual names."""
    return os.environ.get("ALIGNX_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def visit(browser: Any, path: Path, *, width: int, scheme: str = "light", media: str = "screen") -> Visit:
    """Open a file and look at it."""
    found = Visit()
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    try:
        page.on("console", lambda message: message.type in {"error", "warning"} and found.messages.append(message.text))
        page.on("pageerror", lambda error: found.messages.append(str(error)))
        page.on("request", lambda request: found.requests.append(request.url))
        page.emulate_media(media=media, color_scheme=scheme)
        page.goto(path.as_uri(), timeout=180_000)  # a busy machine draws slowly
        for details in page.query_selector_all("details"):
            details.evaluate("element => { element.open = true }")
        found.faults = page.evaluate(_FAULTS)
        found.requests.remove(path.as_uri())
    finally:
        page.close()
    return found
