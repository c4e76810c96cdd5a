"""Headers that are doubted: said by check, before training and beside new masks; and resizing has a bound."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from plans import plan_with

from vpt.data.check import check_dataset
from vpt.data.doubts.headers import header_doubts, scan_doubts, single_slices, unusual_spacing
from vpt.data.doubts.said import doubts_of
from vpt.data.layouts import read_dataset
from vpt.data.scans import find_scans
from vpt.data.slices.cached_slices import prepare_image, prepare_label
from vpt.data.splits import read_splits
from vpt.errors import VptError
from vpt.readers import Grid, reader_of


def grids(*spacings: tuple[float, float, float], shape: tuple[int, int, int] = (4, 5, 6)) -> list[tuple[str, Grid]]:
    return [(f"{k}", Grid(shape, np.diag([*mm, 1.0]))) for k, mm in enumerate(spacings)]


ONE = (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("others", "odd"),
    [
        ([(20.0, 20.0, 20.0)], True),
        ([(0.02, 0.02, 0.02)], True),
        ([(1.0, 1.0, 16.0)], True),
        ([(1.0, 12.0, 12.0)], True),
        ([(0.5, 0.5, 7.0)], False),
        ([(4.0, 4.0, 4.0)], False),
        ([(50.0, 50.0, 50.0)], False),  # which the reader itself says
    ],
)
def test_voxels_unlike_those_of_the_set(others, odd):
    found = [name for name, _ in unusual_spacing(grids(ONE, ONE, ONE, *others))]
    assert found == (["3"] if odd else [])
    assert list(unusual_spacing(grids(*others, ONE))) == []  # of two none is usual


def test_a_lone_slice_has_no_distance():
    assert not list(unusual_spacing([*grids(ONE, ONE, ONE), *grids((1, 1, 25.0), shape=(4, 5, 1))]))


def test_a_lone_slice_among_volumes_is_told_but_not_among_its_like():
    lone = grids((1, 1, 25.0), shape=(4, 5, 1))
    assert [text for _, text in single_slices([*grids(ONE, ONE, ONE), *lone])] == [
        "a single slice, the others have about 4; is the export complete?"
    ]
    assert list(single_slices([*lone, *lone, *grids(ONE)])) == []
    assert list(single_slices([])) == []


def rescale(path: Path, factor: float) -> None:
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), image.affine @ np.diag([factor] * 3 + [1])), path)


@pytest.mark.parametrize(
    ("factor", "text"), [(50, "which no scanner has"), (1 / 1000, "which no scanner has"), (9, "usual")]
)
def test_check_and_the_start_of_a_training_say_it(make_dataset, factor, text):
    root = make_dataset(cases=4)
    for file in ("imagesTr/case_01_0000.nii.gz", "labelsTr/case_01.nii.gz"):
        rescale(root / file, factor)
    dataset, check = read_dataset(root), check_dataset(root)
    (warned,) = [problem for problem in check.warnings if text in problem.text]
    assert check.ok
    assert warned.file == "imagesTr/case_01_0000.nii.gz"
    (doubted,) = [doubt for doubt in doubts_of(dataset, read_splits(dataset)) if text in doubt]
    assert doubted == f"{root / warned.file}: {warned.text}"


def test_files_of_the_same_doubt_are_one_line_and_broken_ones_are_left_to_reading(make_dataset):
    root = make_dataset(cases=4)
    for number in range(3):
        path = root / f"imagesTr/case_{number:02d}_0000.nii.gz"
        image = nib.load(path)
        image.header["intent_code"] = 3
        nib.save(image, path)
    (root / "imagesTr/case_03_0000.nii.gz").write_bytes(b"")
    (line,) = header_doubts(read_dataset(root).cases)
    assert line.startswith(f"{root}/imagesTr/case_00_0000.nii.gz (and 2 more files): a statistical map")


@pytest.mark.parametrize(
    ("factor", "said"), [(1, ""), (25, "pixels of"), (1 / 25, "pixels of"), (500, "no scanner has")]
)
def test_a_new_scan_is_compared_with_the_plan(tmp_path, save, factor, said):
    save(tmp_path / "a.nii.gz", np.ones((4, 5, 6), np.int16), np.diag([1.0, 1.0, 1.0, 1.0]))
    rescale(tmp_path / "a.nii.gz", factor)
    found = scan_doubts(find_scans(tmp_path, 1), plan_with(pixel_mm=1.0))
    assert [said in text for text in found] == ([True] if said else [])
    assert scan_doubts(find_scans(tmp_path, 1), plan_with(kind="images", pixel_mm=None, neighbours=False)) == []


@pytest.mark.parametrize("factor", [50, 1000, 1e30])
def test_a_spacing_far_too_large_takes_no_memory(tmp_path, save, factor):
    path = save(tmp_path / "a.nii.gz", np.ones((64, 64, 30), np.int16), np.diag([factor, factor, factor, 1.0]))
    plan, reader = plan_with(pixel_mm=1.0), reader_of(path)
    for work in (
        lambda: prepare_image(reader.voxels(1).oriented(plan.orientation), plan),
        lambda: prepare_label(reader.labels().oriented(plan.orientation), (0, 1), plan),
    ):
        with pytest.raises(
            VptError, match=rf"{path}: (slices of 64x64 pixels of .* would be|voxels of .* by its header)"
        ):
            work()


@pytest.mark.parametrize("spacing", [(17.0, 1.0, 0.8), (1.0, 17.0, 0.8), (6.0, 6.0, 6.0)])
def test_what_scanners_have_is_resized(tmp_path, save, spacing):
    path = save(tmp_path / "a.nii.gz", np.ones((8, 9, 10), np.int16), np.diag([*spacing, 1.0]))
    plan = plan_with(pixel_mm=0.8)
    assert prepare_image(reader_of(path).voxels(1).oriented(plan.orientation), plan).shape[1] == 1
