"""A real browser without a window, for the tests of pages and of the viewer."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

AXE = Path(__file__).parent / "assets" / "axe" / "axe.min.js"
# WebGL on the processor: machines that test have no graphics card.
FLAGS = ("--use-angle=swiftshader", "--use-gl=angle", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")
# How many colours the viewer's canvas has: of an empty one it is 1.
COLOURS = """async () => {
  nv.drawScene();
  const canvas = document.getElementById("canvas"), copy = document.createElement("canvas");
  [copy.width, copy.height] = [canvas.width, canvas.height];
  const context = copy.getContext("2d");
  context.drawImage(canvas, 0, 0);
  const pixels = context.getImageData(0, 0, copy.width, copy.height).data;
  return new Set(new Uint32Array(pixels.buffer)).size;
}"""


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Chromium as the system has it; without it the test is skipped, in CI it fails."""
    program, reason = (
        shutil.which("chromium"),
        "needs chromium and playwright: apt-get install chromium, and the extra dev",
    )
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        program = None
    if program is None:
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=list(FLAGS))
        yield browser
        browser.close()


class Opened:
    """A page, what its console said that is no mere note, and the addresses that it asked for."""

    def __init__(self, page: Any):
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: message.type == "error" and self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def faults(self) -> list[str]:
        """What axe-core calls serious or critical: rule and element. Its way past the page's policy is a debugger's."""
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found = self.page.evaluate("axe.run().then((result) => result.violations)")
        return [
            f"{each['id']}: {each['nodes'][0]['html'][:120]}"
            for each in found
            if each["impact"] in ("serious", "critical")
        ]


@pytest.fixture
def opened(chromium: Any) -> Iterator[Callable[..., Opened]]:
    """opened(address, width=1280, height=900, dark=False): the page there, open."""
    contexts = []

    def show(address: str | Path, width: int = 1280, height: int = 900, dark: bool = False) -> Opened:
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        contexts.append(context)
        found = Opened(context.new_page())
        found.page.goto(address.as_uri() if isinstance(address, Path) else address)
        return found

    yield show
    for context in contexts:
        context.close()
