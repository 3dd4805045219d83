"""The report and the comparison in a real browser: nothing overflows, overlaps, fails or is fetched."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alignx.report.page import write_report
from alignx.runs import RunDirectory
from alignx.workflow import compare
from browser import chromium, find_chromium, visit

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="playwright is not installed"),
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium here; name one in ALIGNX_CHROMIUM"),
]
VIEWS = [
    (360, "light", "screen"),
    (360, "dark", "screen"),
    (768, "light", "screen"),
    (1280, "dark", "screen"),
    (700, "light", "print"),  # A4 without its margins
    (700, "dark", "print"),
]
HOSTILE_AXES = [
    "helpful",
    "مفيد-جدا",
    "a-very-long-name-of-an-axis-that-nobody-would-choose",
    "Verantwortungsbewusstsein_und_Hilfsbereitschaft",
    "x",
]
HOSTILE_TEXTS = [
    "<script>document.title = 'broken'; throw new Error('ran')</script>",
    "</style></title><img src='http://127.0.0.1:9/x.png' onerror='throw 1'>",
    "Donaudampfschifffahrtsgesellschaftskapitän" * 12,
    "مرحبا بالعالم " * 30,
    "{{ contents.model }} {% raw %} &amp; \u202e backwards",
    "line\n" * 12 + "\t| a | b |",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def tiny(evaluated_runs: tuple[RunDirectory, RunDirectory]) -> Path:
    return write_report(evaluated_runs[0])[0]


@pytest.fixture(scope="module")
def comparison(evaluated_runs: tuple[RunDirectory, RunDirectory], tmp_path_factory: pytest.TempPathFactory) -> Path:
    first, second = evaluated_runs
    return compare(first.root, second.root, out=tmp_path_factory.mktemp("compared") / "both.html")[1][0]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, hostile_run: Any) -> Path:
    return write_report(hostile_run(tmp_path_factory.mktemp("hostile") / "run", HOSTILE_AXES, HOSTILE_TEXTS))[0]


@pytest.mark.parametrize("name", ["tiny", "hostile", "comparison"])
@pytest.mark.parametrize(("width", "scheme", "media"), VIEWS)
def test_the_page_holds(
    name: str, width: int, scheme: str, media: str, browser: Any, request: pytest.FixtureRequest
) -> None:
    found = visit(browser, request.getfixturevalue(name), width=width, scheme=scheme, media=media)
    assert found.messages == []
    assert found.requests == []
    assert found.faults == []


def test_faults_are_seen(browser: Any, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        "<body><script>throw new Error('ran')</script><div style='width:900px'>wide</div>"
        "<img src='gone.png'><svg aria-label='picture' width='100' height='40' style='overflow:visible'>"
        "<text x='10' y='20'>one</text><text x='12' y='20'>other</text><text x='90' y='35'>outside</text></svg>",
        encoding="utf-8",
    )
    found = visit(browser, page, width=360)
    assert any("ran" in message for message in found.messages)
    assert [address.rsplit("/", 1)[-1] for address in found.requests] == ["gone.png"]
    assert any("wide in 360" in fault for fault in found.faults)
    assert any('"other" lies on "one"' in fault for fault in found.faults)
    assert any('"outside" leaves the picture' in fault for fault in found.faults)


def test_dark_and_light_have_grounds_of_their_own_and_paper_is_white(browser: Any, tiny: Path) -> None:
    grounds = {}
    for scheme, media in (("light", "screen"), ("dark", "screen"), ("dark", "print")):
        page = browser.new_page(color_scheme=scheme)
        page.emulate_media(media=media, color_scheme=scheme)
        page.goto(tiny.as_uri())
        grounds[scheme, media] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.close()
    assert grounds["light", "screen"] == grounds["dark", "print"] == "rgb(255, 255, 255)"
    assert grounds["dark", "screen"] != "rgb(255, 255, 255)"
