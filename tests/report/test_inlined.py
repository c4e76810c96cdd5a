"""Volumes inside a page: packed, in order, while there is room."""

from __future__ import annotations

import gzip
import shutil
from base64 import b64decode
from pathlib import Path

import nibabel
import numpy as np
import pytest
from browser import COLOURS

from vpt.report.inlined import MOST_CASES, InlinedViewer, Inlining
from vpt.use.pages.evaluation import write_evaluation_page, write_run_page
from vpt.use.pages.paired import write_paired_page
from vpt.use.paired import compare_masks
from vpt.use.runs import evaluate_run


def test_what_does_not_fit_is_left_out_and_counted_and_what_comes_after_it_may_fit() -> None:
    inlining, noise = Inlining(room=700), bytes(range(256)) * 4
    for name, data in (("a", b"x" * 999), ("b", gzip.compress(noise, mtime=0) + noise[::7] * 9), ("c", b"y" * 999)):
        inlining.take({"name": name}, {"scan": data})
    viewer = InlinedViewer(inlining.scenes, asked=4)

    assert viewer.names == ["a", "c"]
    assert gzip.decompress(b64decode(viewer.scenes[0]["files"]["scan"])) == b"x" * 999
    assert viewer.note.startswith("2 of 4 cases are in this page. A page holds 20 MB")
    unknown = InlinedViewer([], asked=4, without=4).note
    assert unknown.startswith(
        "0 of 4 cases are in this page. Of 4 the scan is not known or cannot be read; scans are looked"
    )
    assert InlinedViewer(inlining.scenes, asked=2).note == ""


def test_a_volume_that_does_not_fit_is_not_packed_to_its_end() -> None:
    read = list[int]()

    class Large(bytes):
        def __getitem__(self, part):
            read.append(part.start)
            return super().__getitem__(part)

    inlining = Inlining(room=2_000_000)
    inlining.take({"name": "large"}, {"scan": Large(np.random.default_rng(0).bytes(16 << 20))})
    assert inlining.scenes == []
    assert max(read) < 4 << 20
    inlining.take({"name": "small"}, {"scan": b"x" * 999})
    assert len(inlining.scenes) == 1


def test_a_page_holds_so_many_cases_at_most() -> None:
    inlining = Inlining()
    for number in range(MOST_CASES + 1):
        inlining.take({"name": str(number)}, {})
    assert len(inlining.scenes) == MOST_CASES


@pytest.fixture(scope="module", params=["evaluation", "training"])
def page(request: pytest.FixtureRequest, tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of an evaluation, or that a training ends with, with the viewer in it, away from run and data."""
    folder = tmp_path_factory.mktemp("page")
    if request.param == "training":
        run = shutil.copytree(tiny_run, folder / "run")
        shown = {"dice": "mean Dice", "dice_dark": "dark", "dice_bright": "bright"}
        return write_run_page(run, shown, "dice", viewer=True).rename(folder / "alone.html")
    report, out = evaluate_run(tiny_run, out=folder / "test")
    report.save(out)
    return write_evaluation_page(out, tiny_run, viewer=True).rename(folder / "alone.html")


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1100])
def test_the_page_alone_shows_its_volumes_and_asks_no_one(opened, page: Path, width: int) -> None:
    found = opened(page, width=width, height=700)
    assert found.page.locator("#viewer canvas").is_hidden()

    found.page.get_by_role("button", name="Open the viewer").click()
    found.page.locator('body[data-ready="yes"]').wait_for(timeout=60_000)

    assert found.page.evaluate(COLOURS) > 50
    assert found.page.locator(".layer h2").all_inner_texts() == ["truth", "prediction"]
    assert "bright" in found.page.locator("#layers").inner_text()
    assert found.said == []
    assert [address for address in found.asked if not address.startswith(("data:", "blob:"))] == [page.as_uri()]
    assert found.page.evaluate("document.documentElement.scrollWidth") <= width
    assert found.faults() == []


@pytest.mark.slow
def test_keys_of_the_viewer_mean_nothing_elsewhere_in_the_page(opened, page: Path) -> None:
    found = opened(page, height=700).page
    found.get_by_role("button", name="Open the viewer").click()
    found.locator('body[data-ready="yes"]').wait_for(timeout=60_000)
    where = "[...nv.scene.crosshairPos].map((each) => each.toFixed(3)).join()"
    start = found.evaluate(where)
    found.evaluate("goTo([0, 0, 0])")
    moved = found.evaluate(where)
    assert moved != start

    found.locator("#all-cases thead button").first.press("e")
    assert found.evaluate(where) == moved
    found.locator("#canvas").press("e")
    assert found.evaluate(where) == start


@pytest.mark.slow
def test_two_compared_show_both_masks_and_the_truth(opened, tiny_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    masks = tiny_run / "validation"
    other = tmp_path / "other"
    other.mkdir()
    for path in masks.glob("*.nii.gz"):
        mask = nibabel.nifti1.load(path)
        nibabel.save(nibabel.Nifti1Image(np.asarray(mask.dataobj) % 2, mask.affine), other / path.name)
    report = compare_masks(masks, other, tiny_data / "labelsTr")
    report.save(tmp_path / "page")
    found = opened(write_paired_page(tmp_path / "page", report, viewer=True), width=1100)
    found.page.get_by_role("button", name="Open the viewer").click()
    found.page.locator('body[data-ready="yes"]').wait_for(timeout=60_000)

    assert found.page.locator(".layer h2").all_inner_texts() == ["A", "B", "truth"]
    assert "Go to the largest difference" in found.page.locator("#error").inner_text()
    colours = found.page.locator(".layer .swatch").evaluate_all("all => all.map((each) => each.style.background)")
    assert len(set(colours)) == len(colours)
    assert (found.said, found.faults()) == ([], [])
