"""The page in a real browser: silent, closed to the network, sortable, reached by the keyboard, and without faults."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from compared import put, scores

from vpt.cli import app
from vpt.data.check import check_dataset
from vpt.report.comparison import write_comparison
from vpt.report.continual_page import MethodRow, continual_page
from vpt.scores.continual import Order
from vpt.use.check_page import write_check_page
from vpt.use.evaluation.scoring import evaluate
from vpt.use.pages.evaluation import write_evaluation_page
from vpt.use.pages.paired import write_paired_page
from vpt.use.paired import compare_masks, compare_runs

pytestmark = pytest.mark.slow
PAGES = ("tiny_run", "class_run", "two_masks", "two_classifiers")


@pytest.fixture(scope="module")
def two_masks(tmp_path_factory: pytest.TempPathFactory, tiny_run: Path, tiny_data: Path) -> Path:
    """Of the page of two folders of masks: the model's, and the same without a label."""
    root, masks = tmp_path_factory.mktemp("two"), tiny_run / "validation"
    (root / "less").mkdir()
    for path in masks.glob("*.nii.gz"):
        mask = nibabel.Nifti1Image.from_filename(path)
        nibabel.save(
            nibabel.Nifti1Image(np.asarray(mask.dataobj) % 2, mask.affine, mask.header), root / "less" / path.name
        )
    report = compare_masks(masks, root / "less", tiny_data / "labelsTr")
    return write_paired_page(report.save(root / "page").parent, report).parent


@pytest.fixture(scope="module")
def two_classifiers(tmp_path_factory: pytest.TempPathFactory, class_run: Path) -> Path:
    folder = tmp_path_factory.mktemp("classifiers")
    report = compare_runs(class_run, class_run, split="val", device="cpu")
    return write_paired_page(report.save(folder).parent, report, class_run).parent


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory, tiny_run: Path, tiny_data: Path) -> Path:
    """A folder of the other pages: of methods compared, a data set, predictions, prompts, tasks in turn."""
    root = tmp_path_factory.mktemp("others")
    for seed, method in [(0, "deep"), (1, "deep"), (0, "head")]:
        put(root / "compared", method, seed, scores(*np.linspace(0.5 + 0.1 * seed, 0.9, 12)))
    methods = {"deep": "VPT-deep, 10", "head": "head only", "unet": "U-Net from scratch"}
    write_comparison(root / "compared", methods, 2, "Blobs: 3 methods", "Dice", control="head")
    write_check_page(check_dataset(tiny_data), root / "check.html", command=["vpt", "check"])
    (root / "few").mkdir()
    for scan in sorted((tiny_data / "imagesTr").iterdir())[:2]:
        (root / "few" / scan.name).write_bytes(scan.read_bytes())
    with pytest.raises(SystemExit):
        app(["predict", "-i", str(root / "few"), "-o", str(root / "pred"), "-m", str(tiny_run), "--report"])
    scan = sorted((tiny_data / "imagesTr").iterdir())[0]
    with pytest.raises(SystemExit):
        app(["explain", str(tiny_run), str(scan), "--images", "2", "--no-volume", "-o", str(root / "prompts")])
    (root / "masks").mkdir()
    lines = ["case,site"]
    for k, path in enumerate(sorted((tiny_data / "labelsTr").glob("*.nii.gz"))):
        truth = nibabel.Nifti1Image.from_filename(path)
        data = np.asarray(truth.dataobj).copy()
        data[: 6 + 2 * k] = 0
        nibabel.save(nibabel.Nifti1Image(data, truth.affine, truth.header), root / "masks" / path.name)
        lines.append(f"{path.name.removesuffix('.nii.gz')},{'AB'[k % 2]}")
    (root / "groups.csv").write_text("\n".join(lines))
    report = evaluate(
        root / "masks", tiny_data / "labelsTr", lesions="all", by="site", groups=root / "groups.csv", workers=1
    )
    write_evaluation_page(report.save(root / "grouped").parent)
    order = Order(("liver", "lung"), ((0.9,), (0.7, 0.8)), {"a": 0.8}, {"a": 0.8}, {"a": 0}, 3.0)
    row = MethodRow("prompts of its own", [order], 0.75, (0.7, 0.8), 0.75, 0.8, 0.2, 3.0)
    (root / "continual.html").write_text(continual_page("organs", [row]))
    return root


OTHERS = (
    "grouped/report.html",
    "compared/compare.html",
    "check.html",
    "pred/report.html",
    "prompts/explain.html",
    "continual.html",
)


@pytest.fixture(params=[*PAGES, *OTHERS])
def page_file(request: pytest.FixtureRequest) -> Path:
    """Every kind of page."""
    if request.param in OTHERS:
        return request.getfixturevalue("others") / request.param
    return request.getfixturevalue(request.param) / "report.html"


@pytest.mark.parametrize("name", ["check.html", "prompts/explain.html"])
def test_it_says_how_to_repeat_it(opened, others, name) -> None:
    assert {"command", "started in", "versions"} <= set(opened(others / name).page.locator("dt").all_inner_texts())


@pytest.fixture(params=PAGES)
def report(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param) / "report.html"


def column(page, number: int) -> list[str]:
    return page.eval_on_selector_all(
        f"#all-cases tbody tr > :nth-child({number})", "cells => cells.map(c => c.innerText)"
    )


def test_it_says_nothing_and_asks_for_nothing(opened, page_file) -> None:
    shown = opened(page_file)
    shown.page.wait_for_timeout(200)
    assert shown.said == []
    assert [address for address in shown.asked if not address.startswith("data:")] == [page_file.as_uri()]


@pytest.mark.parametrize("dark", [False, True])
def test_it_has_no_serious_fault(opened, page_file, dark) -> None:
    assert opened(page_file, dark=dark).faults() == []


@pytest.mark.parametrize("width", [360, 768, 1600])
def test_it_fits_every_width(opened, page_file, width) -> None:
    page = opened(page_file, width=width).page
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_headings_sort_by_mouse_and_by_keyboard(opened, report) -> None:
    page = opened(report).page
    heading, button = page.locator("#all-cases thead th").first, page.locator("#all-cases thead button").first
    button.click()
    assert heading.get_attribute("aria-sort") == "ascending"
    names = column(page, 1)
    assert names == sorted(names)
    button.focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert column(page, 1) == names[::-1]
    last = page.locator("#all-cases thead button").last
    last.click()
    values = [float(each) for each in column(page, page.locator("#all-cases thead th").count()) if each != "-"]
    assert values == sorted(values)
    assert page.locator("#all-cases th[aria-sort]").count() == 1


def number(cell: str) -> float:
    """What a cell begins with, without its thousands."""
    return float(re.match(r"[+-]?[\d,]+\.?\d*", cell).group().replace(",", ""))


def cells_of(table) -> list[list[str]]:
    """By column."""
    return table.evaluate(
        "t => [...t.tHead.rows[0].cells].map((_, k) => [...t.tBodies[0].rows].map(r => r.cells[k].innerText.trim()))"
    )


def test_every_table_sorts_numbers_as_numbers_and_gets_its_order_back(opened, page_file) -> None:
    page = opened(page_file).page
    for table in page.locator("main table").all():
        heads = table.locator("thead th").all()
        before = cells_of(table)
        for k, head in enumerate(heads):
            for way, back in (("ascending", False), ("descending", True)):
                head.locator("button").press("Enter")
                assert head.get_attribute("aria-sort") == way
                found = [cell for cell in cells_of(table)[k] if cell not in ("", "-")]
                if all(re.match(r"[+-]?\d[\d,.]*($|\s)", cell) for cell in found):
                    assert [*map(number, found)] == sorted(map(number, found), reverse=back)
            head.locator("button").press("Enter")
            assert head.get_attribute("aria-sort") is None
            assert cells_of(table) == before


def test_groups_and_lesions_sort(opened, others) -> None:
    page = opened(others / "grouped/report.html").page
    table = page.locator("h3:has-text('by site') + .wide table")
    assert sorted(table.locator("tbody th").all_inner_texts()) == ["A *", "B *"]
    table.locator("thead button").first.click()
    table.locator("thead button").first.click()
    assert table.locator("tbody th").all_inner_texts() == ["B *", "A *"]
    assert page.locator("h3:has-text('Lesions') + .wide thead button").count() == 9


def test_everything_that_can_be_used_is_reached_by_tab(opened, page_file) -> None:
    page = opened(page_file).page
    wanted = page.evaluate("document.querySelectorAll('a[href], button, input, [tabindex=\"0\"]').length")
    reached = set()
    for _ in range(wanted + 5):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("[...document.querySelectorAll('*')].indexOf(document.activeElement)"))
    body = page.evaluate("[...document.querySelectorAll('*')].indexOf(document.body)")
    assert len(reached - {body, -1, 0}) == wanted


def test_methods_are_sorted_by_their_numbers_and_named_beside_their_dots(opened, others) -> None:
    page = opened(others / "compared/compare.html", width=390).page
    page.locator("#costs thead button").nth(7).click()  # seconds in all
    assert page.locator("#costs tbody th").all_inner_texts() == ["head only", "VPT-deep, 10", "U-Net from scratch"]
    names = page.locator(".strips .name").all()
    assert [name.inner_text() for name in names] == ["VPT-deep, 10", "head only"]
    for name, strip in zip(names, page.locator(".strips svg:not(.axis)").all(), strict=True):
        box, words = strip.bounding_box(), name.bounding_box()
        assert words["y"] < box["y"]  # above its dots, which have the whole width
        assert box["width"] > 300
        assert all(
            box["x"] <= dot.bounding_box()["x"] <= box["x"] + box["width"] for dot in strip.locator("circle").all()
        )


def test_outlines_can_be_taken_away(opened, tiny_run) -> None:
    page = opened(tiny_run / "report.html").page
    outline = page.locator(".panel path.edge.truth").first
    assert outline.evaluate("each => getComputedStyle(each).visibility") == "visible"
    page.locator("#show-truth").uncheck()
    assert outline.evaluate("each => getComputedStyle(each).visibility") == "hidden"
    assert (
        page.locator(".panel path.edge.found").first.evaluate("each => getComputedStyle(each).visibility") == "visible"
    )


def test_truth_and_prediction_differ_in_their_lines_not_their_colours(opened, tiny_run) -> None:
    page = opened(tiny_run / "report.html").page
    styles = {
        whose: page.locator(f".panel path.edge.{whose}").first.evaluate(
            "each => getComputedStyle(each).strokeDasharray"
        )
        for whose in ("truth", "found")
    }
    assert styles["truth"] == "none"
    assert styles["found"] != "none"


def test_printed_it_is_light_and_whole(opened, tiny_run) -> None:
    page = opened(tiny_run / "report.html", dark=True).page
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("nav").is_hidden()
    assert page.evaluate("[...document.querySelectorAll('.wide')].every(e => e.scrollHeight <= e.clientHeight + 1)")


def test_the_same_planes_of_both_that_are_compared_lie_one_above_the_other(opened, two_masks) -> None:
    page = opened(two_masks / "report.html", width=1280).page
    first, second = (page.locator(".twice").first.locator(".panels").nth(k).locator("svg") for k in (0, 1))
    assert first.count() == second.count() == 3
    for one, other in zip(first.all(), second.all(), strict=True):
        (a, b) = (each.bounding_box() for each in (one, other))
        assert (a["x"], a["width"], a["height"]) == pytest.approx((b["x"], b["width"], b["height"]), abs=1)
        assert a["y"] + a["height"] <= b["y"]


def test_the_matrices_of_both_are_beside_each_other_where_there_is_room(opened, two_classifiers) -> None:
    tables = opened(two_classifiers / "report.html", width=1280).page.locator(".beside table.matrix")
    left, right = (each.bounding_box() for each in tables.all())
    assert left["y"] == pytest.approx(right["y"], abs=1)
    assert left["x"] + left["width"] < right["x"]
