"""The viewer in a real browser: it shows the scan, names the labels, goes where masks differ, and asks no one else."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import COLOURS

from vpt.view.scenes import find_cases
from vpt.view.server import Server, Viewer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scans, the truth and a prediction of each; the prediction lacks a corner."""
    import nibabel as nib

    root, rng = tmp_path_factory.mktemp("viewed"), np.random.default_rng(0)
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "liver": 1, "tumour": 3}}))
    for name in ("first", "second"):
        truth = np.zeros((24, 20, 16), np.uint8)
        truth[4:16, 4:14, 3:12], truth[8:12, 8:12, 6:9] = 1, 3
        found = truth.copy()
        found[12:16, 10:14, 9:12] = 0
        scan = (rng.normal(100, 20, truth.shape) + 60 * truth).astype(np.int16)
        for kind, array in (("images", scan), ("truth", truth), ("found", found)):
            (root / kind).mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.diag([-1.0, -1.0, 2.0, 1.0])), root / kind / f"{name}.nii.gz")
    return root


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    cases = find_cases(folder / "images", [folder / "truth", folder / "found"])
    with Server(Viewer(cases, None)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.address
        server.shutdown()
        thread.join()


@pytest.fixture
def shown(opened, address):
    found = opened(address, width=900, height=420)  # few pixels, since the processor draws them
    ready(found.page)
    return found


def ready(page, name: str = "first") -> None:
    page.locator('body[data-ready="yes"]').wait_for(timeout=60_000)
    assert page.locator("#name").inner_text() == name


def test_it_shows_the_scan_and_asks_no_one_else(shown, address) -> None:
    assert shown.page.evaluate(COLOURS) > 50  # the canvas is not blank
    assert shown.said == []
    assert all(each.startswith((address, "data:", "blob:")) for each in shown.asked)


def test_labels_have_their_names(shown) -> None:
    page = shown.page
    names = [text.strip() for text in page.locator(".layer li").all_inner_texts()]
    assert names == ["liver (1)", "tumour (3)"] * 2
    assert page.locator(".layer h2").all_inner_texts() == ["truth/first.nii.gz", "found/first.nii.gz"]


def test_it_goes_to_the_largest_difference(shown) -> None:
    page = shown.page
    page.locator("#error").click()
    x, y, z = page.evaluate("[...nv.frac2mm(nv.scene.crosshairPos)].slice(0, 3)")
    assert 12 <= -x <= 15.5
    assert 10 <= -y <= 13.5
    assert 18 <= z <= 22.5
    assert "0.096 ml" in page.locator("#error").inner_text()


def test_labels_opacity_window_and_outlines_change_the_picture(shown) -> None:
    page = shown.page
    picture = lambda: page.locator("#canvas").screenshot()  # noqa: E731
    before = picture()
    page.locator("#label-0-0").uncheck()
    without = picture()
    page.locator("#outline").uncheck()
    filled = picture()
    page.locator("#opacity-1").fill("0.2")
    faint = picture()
    page.locator("#high").fill("400")
    page.locator("#high").press("Enter")
    dark = picture()
    page.locator('input[name="plane"][value="4"]').check()
    assert len({before, without, filled, faint, dark, picture()}) == 6


def test_the_next_case_comes_by_button_list_and_key(shown) -> None:
    page = shown.page
    page.locator("#next").click()
    ready(page, "second")
    page.locator("#case").select_option("0")
    ready(page, "first")
    page.locator("#canvas").focus()
    page.keyboard.press("n")
    ready(page, "second")


def test_it_has_no_serious_fault_and_fits_a_phone(opened, address) -> None:
    for width, dark in ((900, False), (900, True), (390, False)):
        found = opened(address, width=width, height=420, dark=dark)
        ready(found.page)
        assert found.faults() == []
        assert found.page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_keyboard_reaches_every_control(shown) -> None:
    page, reached = shown.page, set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.name || 'other'"))
    wanted = {
        "canvas",
        "case",
        "previous",
        "next",
        "plane",
        "low",
        "high",
        "reset",
        "opacity-0",
        "label-1-1",
        "outline",
    }
    assert wanted | {"error"} <= reached
