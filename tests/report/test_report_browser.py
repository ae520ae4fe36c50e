"""The page in headless Chromium: nothing is wider than a phone or a desk, and every picture is drawn."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from geodiff import report
from geodiff.data import load
from geodiff.report.parts import magnitudes, memorisation, ode_jump

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome") or ""
MEASURE = """<script>addEventListener("load", () => { document.body.dataset.measured = JSON.stringify({
  page: document.documentElement.scrollWidth, window: innerWidth, pictures: [...document.images].length,
  blank: [...document.images].filter(image => !image.naturalWidth).length,
  narrowest: Math.min(...[...document.querySelectorAll("figure.wide img")].map(image => image.clientWidth)),
  beyond: [...document.querySelectorAll("article *")].filter(
    part => !part.closest(".scroll") && part.getBoundingClientRect().right > innerWidth).length }) })</script></body>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short report whose page tells, once loaded, how large it came out."""
    out = tmp_path_factory.mktemp("page")
    report.run(load("digits"), out, num=16, parts=(magnitudes, ode_jump, memorisation))
    html = (out / "report.html").read_text(encoding="utf-8")
    measured = out / "measured.html"
    measured.write_text(html.replace("</body>", MEASURE), encoding="utf-8")
    return measured


def chromium(*options: str) -> str:
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed: apt-get install chromium")
@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_fits_its_window(page: Path, width: int) -> None:
    # A window is at least 500 wide; a frame is as wide as one asks.
    frame = page.with_name(f"frame{width}.html")
    frame.write_text(f'<iframe src="measured.html" width="{width}" height="900"></iframe>', encoding="utf-8")
    copied = """<script>addEventListener("load", () => { const inside = document.querySelector("iframe");
      document.body.dataset.measured = inside.contentDocument.body.dataset.measured })</script>"""
    with frame.open("a", encoding="utf-8") as file:
        file.write(copied)
    dom = chromium("--allow-file-access-from-files", "--window-size=1400,1000", "--dump-dom", frame.as_uri())
    found = re.search(r'data-measured="([^"]*)"', dom)
    assert found, dom[:2000]
    measured = json.loads(found[1].replace("&quot;", '"'))
    assert measured["window"] == width
    assert measured["page"] <= width
    assert measured["beyond"] == 0
    assert measured["pictures"] >= 5
    assert measured["blank"] == 0
    assert measured["narrowest"] >= 500, "rows of pictures are scrolled on a phone, so that their labels can be read"


@pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed: apt-get install chromium")
def test_the_page_prints(page: Path) -> None:
    target = page.with_name("report.pdf")
    chromium("--no-pdf-header-footer", f"--print-to-pdf={target}", page.as_uri())
    assert target.read_bytes().startswith(b"%PDF-")
    assert target.stat().st_size > 50_000
