"""Pages in a real browser: light and dark, on a desk and on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from surgery.reporting import report
from tests.reporting.browser import COMMAND, Browser, browsing
from tests.reporting.courses import SVG, png, recovered
from tests.reporting.measures import pruned, quantized, study
from tests.reporting.pages import HOSTILE, benchmark, export, hostile_result, row, stranded_result

pytestmark = pytest.mark.skipif(COMMAND is None, reason="no Chromium here (on Debian: apt install chromium)")

CONTRAST = """
(() => {
  const number = text => text.match(/[\\d.]+/g).map(Number);
  const light = rgb => rgb.slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = node => {
    for (; node; node = node.parentElement) {
      const color = number(getComputedStyle(node).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; node = walker.nextNode();) {
    const element = node.parentElement;
    if (!node.data.trim() || element.closest("script, title, desc")) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(number(element.closest("svg") ? style.fill : style.color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${node.data.trim()}: ${ratio.toFixed(2)}`);
  }
  return poor;
})()
"""
"""Texts with less contrast than 4.5 to 1 (WCAG 2.2, AA)."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("pages")
    long = "encoder." * 30
    timed = benchmark(
        (row("masked", 4.2), row("slim", 1.4, seed=1), row("again", 4.2, scatter=0.4, seed=2)), (row(long, 9.0),)
    )
    hostile = benchmark((row(HOSTILE, 2.0), row("b", 1.0)))
    drawn = place / "b.svg"
    drawn.write_text(SVG)
    return {
        "whole": report(place / "whole.html", result=stranded_result(), benchmark=timed, exports=[export()]),
        "measured": report(
            place / "measured.html", result=pruned(), sensitivity=study(name=long), quantized=quantized()
        ),
        "timed": report(place / "timed.html", benchmark=timed),
        "trained": report(
            place / "trained.html",
            result=recovered(notes=(long,)),
            figures=[(png(place / "a.png", 900, 300), long), drawn],
        ),
        "hostile": report(place / "hostile.html", result=hostile_result(), benchmark=hostile, title=HOSTILE),
    }


@pytest.mark.parametrize("name", ["whole", "measured", "timed", "trained", "hostile"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "phone"), [(1280, False), (390, True)], ids=["desk", "phone"])
def test_it_opens_without_a_complaint(
    browser: Browser, pages: dict[str, Path], name: str, dark: bool, width: int, phone: bool
) -> None:
    browser.open(pages[name], width=width, dark=dark, phone=phone)
    assert browser.troubles == []
    assert [request for request in browser.requests if not request.startswith("data:")] == [pages[name].as_uri()]
    assert browser.run("[...document.images].every(image => image.naturalWidth > 0)")
    assert browser.run("[document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth]") == [width] * 3
    brightness = browser.run("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]")
    assert brightness < 40 if dark else brightness > 200
    assert browser.run(CONTRAST) == []
    assert browser.picture().startswith(b"\x89PNG")


def test_tables_sort_and_whole_layers_hide(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["whole"], width=1280)
    shown = "[...document.querySelectorAll('#layers tbody tr')].filter(row => row.offsetParent)"
    names = f"{shown}.map(row => row.querySelector('.name').textContent)"
    assert browser.run(names) == ["stem", "norm", "inner", "back", "head"]
    browser.run("document.querySelectorAll('#layers thead button')[2].click()")
    assert browser.run(names) == ["norm", "head", "back", "stem", "inner"]
    assert browser.run("document.querySelectorAll('#layers thead th')[2].getAttribute('aria-sort')") == "ascending"
    browser.run("document.querySelectorAll('#layers thead button')[2].click()")
    assert browser.run(names) == ["inner", "stem", "back", "head", "norm"]
    browser.run("document.querySelector('input[data-hides]').click()")
    assert browser.run(names) == ["inner", "back"]
    assert browser.troubles == []


def test_it_prints_with_everything_open(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["whole"], width=1280)
    browser.run("dispatchEvent(new Event('beforeprint'))")
    shut = "document.querySelectorAll('details:not([data-long]):not([open])').length"
    assert browser.run(shut) == 0
    assert browser.print().startswith(b"%PDF")


def test_what_a_page_loads_or_complains_of_is_seen(browser: Browser, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text("<!doctype html><img src=none.png><script>console.error('no'); throw Error('why')</script><p>wide")
    browser.open(bad, width=390, phone=True)
    assert len(browser.requests) == 2
    assert len(browser.troubles) >= 2
