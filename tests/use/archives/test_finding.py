"""What an archive holds: several places, subfolders, masks among the scans, channels that are missing."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from dicom_series import header, put_pixels, write_series
from PIL import Image

from vpt.errors import VptError
from vpt.use.archives.finding import find_archive

OUT = Path("out")
SCAN = np.zeros((4, 4, 3), np.int16)


@pytest.fixture
def fill(tmp_path: Path, save: Callable[..., Path]) -> Callable[..., Path]:
    def fill(folder: str, *names: str) -> Path:
        for name in names:
            save(tmp_path / folder / name, SCAN)
        return tmp_path / folder

    return fill


def test_several_places_are_one_archive(fill: Callable[..., Path]) -> None:
    places = [fill("a", "x.nii.gz"), fill("b", "y.nii", "w.nii.gz"), fill("c", "z.nii") / "z.nii"]

    found = find_archive(places, "volumes", 1, OUT)

    assert [case.name for case in found.cases] == ["w", "x", "y", "z"]
    with pytest.raises(VptError, match="no such file or folder"):
        find_archive([fill("a"), Path("/nowhere")], "volumes", 1, OUT)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["x_0000", "x_0001", "y_0000", "y_0001"], "x_0000.nii, x_0001.nii count as scans of their own to a model of"),
        (["x_0000", "x_0001", "y_0000"], "x_0000.nii, x_0001.nii count as"),
        (["x_0000", "y_0000", "z_0001"], None),
        (["x_0001", "x_0002"], None),
        (["x_0000", "x_0001", "y_0000", "y_0001", "y_0003"], None),
        ([f"scan_{number:04d}" for number in range(5)], None),
    ],
    ids=str,
)
def test_scans_that_are_numbered_as_channels_are_told(
    fill: Callable[..., Path], names: list[str], told: str | None
) -> None:
    folder = fill("a", *(f"{name}.nii" for name in names))
    for places in ([folder], [*folder.iterdir()]):
        found = find_archive(places, "volumes", 1, OUT)
        assert len(found.cases) == len(names)
        assert [told in note for note in found.notes if told] == [True] * (told is not None)
        assert told or not found.notes


def test_a_scan_that_is_given_twice_is_found_once(fill: Callable[..., Path]) -> None:
    root = fill("all", "x.nii.gz", "y.nii.gz", "p/z.nii.gz")
    for places in ([root, root], [root, root / "x.nii.gz"], [root / "p/../y.nii.gz", root]):
        found = find_archive(places, "volumes", 1, OUT)
        assert ([case.name for case in found.cases], found.failures) == (["x", "y"], ())
    found = find_archive([root / "x.nii.gz", root / "x.nii.gz"], "volumes", 1, OUT)
    assert [case.name for case in found.cases] == ["x"]
    found = find_archive([root, root / "p"], "volumes", 1, OUT, recursive=True)
    assert ([case.name for case in found.cases], found.failures) == (["p/z", "x", "y"], ())


def test_a_sequence_that_is_given_twice_is_two_channels(fill: Callable[..., Path]) -> None:
    """As people do where one was not taken."""
    x, y = (fill("all", "x.nii.gz", "y.nii.gz") / name for name in ("x.nii.gz", "y.nii.gz"))
    (case,) = find_archive([x, x, y], "volumes", 3, OUT).cases
    assert case.images == (x, x, y)


@pytest.mark.slow
def test_subfolders_give_their_names_or_are_counted(fill: Callable[..., Path], tmp_path: Path) -> None:
    root = fill("all", "x.nii.gz", "p1/x.nii.gz", "p2/deep/x.nii.gz", ".hidden/x.nii.gz", "out/x.nii.gz")
    write_series(root / "p3/series")
    (root / "p1/loop").symlink_to(root)

    found = find_archive([root], "volumes", 1, root / "out", recursive=True)
    flat = find_archive([root], "volumes", 1, root / "out")

    assert [case.name for case in found.cases] == ["p1/x", "p2/deep/x", "p3/series", "x"]
    assert [case.name for case in flat.cases] == ["x"]
    assert any("3 subfolders with" in note and "not read" in note for note in flat.notes)


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that another user may enter, as those of pytest are not."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def as_another(task: Callable[[], object]) -> str:
    """What a task gives, as text, where nobody's permissions hold: the super-user has all, so a child is another."""
    if os.geteuid() != 0:
        return repr(task())
    here, there = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.setuid(65534)
            text = repr(task())
        except BaseException as error:
            text = repr(error)
        os.write(there, text.encode())
        os._exit(0)
    os.close(there)
    os.waitpid(child, 0)
    with open(here) as told:
        return told.read()


@pytest.mark.skipif(os.name == "nt", reason="other permissions")
@pytest.mark.parametrize("recursive", [True, False])
def test_a_folder_that_nobody_may_enter_is_told_and_ends_nothing(
    recursive: bool, open_to_all: Path, save: Callable[..., Path]
) -> None:
    save(open_to_all / "x.nii.gz", SCAN)
    write_series(open_to_all / "series")
    for name in ("locked", "seen"):
        write_series(open_to_all / name)
    (open_to_all / "locked").chmod(0)
    (open_to_all / "seen").chmod(0o444)  # its names can be read, nothing in it can

    told = as_another(lambda: find_archive([open_to_all], "volumes", 1, OUT, recursive=recursive))

    assert told.startswith("Found(")
    assert "name='series'" in told
    assert "name='x'" in told
    assert "2 folders that may not be read: locked, seen; have the permission" in told


def test_series_behind_links_and_beside_what_a_system_leaves_are_found(
    fill: Callable[..., Path], tmp_path: Path
) -> None:
    root = tmp_path / "all"
    write_series(tmp_path / "elsewhere/p1/CT")
    write_series(root / "$RECYCLE.BIN/p0/CT")
    write_series(root / "p2/MR")
    for path in sorted((root / "p2/MR").iterdir())[1:]:
        path.unlink()
    for name in ("Thumbs.db", "desktop.ini", "DICOMDIR"):
        (root / "p2/MR" / name).write_bytes(b"of the system")
    (root / "linked").symlink_to(tmp_path / "elsewhere")

    flat = find_archive([root], "volumes", 1, OUT)
    deep = find_archive([root], "volumes", 1, OUT, recursive=True)

    assert [case.images[0].relative_to(root).as_posix() for case in flat.cases] == ["linked/p1/CT", "p2/MR"]
    assert [case.name for case in deep.cases] == ["linked/p1/CT", "p2/MR"]
    assert flat.notes == deep.notes == ()


def save_object(path: Path, modality: str, pixels: np.ndarray | None = None) -> None:
    """A DICOM object of that modality that is no scan."""
    data = header(series=len(modality))
    data.Modality = modality
    if pixels is not None:
        put_pixels(data, pixels)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def test_reports_and_segmentations_beside_dicom_series_are_told_and_no_failures(
    fill: Callable[..., Path], tmp_path: Path
) -> None:
    root = fill("all", "x.nii.gz", "p2/CT/converted.nii.gz")
    for name in ("p1/CT", "p2/CT"):
        write_series(root / name)
    save_object(root / "p1/SR/1.dcm", "SR")
    save_object(root / "p1/SR/2", "SR")
    save_object(root / "p1/CT/0_key_images.dcm", "KO")  # lies among slices
    save_object(root / "p2/drawn/1.dcm", "SEG", np.zeros((2, 6, 8), np.uint16))
    save_object(root / "p2/plan.dcm", "RTPLAN")

    found = find_archive([root], "volumes", 1, OUT, recursive=True)

    assert [case.name for case in found.cases] == ["p1/CT", "p2/CT", "x"]
    assert found.failures == ()
    assert found.notes == (
        "3 DICOM objects are no scans and are left out: p1/SR (SR), p2 (RTPLAN), p2/drawn (SEG)",
        f"{root}: 1 .nii.gz file is not read in p2/CT",
    )
    alone = find_archive([root / "p1/SR"], "volumes", 1, OUT, recursive=True)
    assert [case.name for case in alone.cases] == ["SR"]  # refused by its reader, which says why


def test_masks_are_left_out_where_the_scans_are_called_scan_or_by_their_sequence(fill: Callable[..., Path]) -> None:
    root = fill("all", "s-1_scan.nii.gz", "s-1_label.nii.gz", "p2_T1.nii.gz", "p2_seg.nii.gz", "p3_seg.nii.gz")

    found = find_archive([root], "volumes", 1, OUT)

    assert [case.name for case in found.cases] == ["p2_T1", "p3_seg", "s-1_scan"]
    assert [note for note in found.notes if "left out: p2_seg.nii.gz, s-1_label.nii.gz" in note]


@pytest.mark.parametrize("word", ["lbl", "roi", "msk", "contour", "dseg", "Mask", "label-2"])
def test_every_word_for_masks_that_training_knows_is_one_here(word: str, fill: Callable[..., Path]) -> None:
    found = find_archive([fill("all", "a.nii.gz", f"a_{word}.nii.gz", f"b_{word}.nii.gz")], "volumes", 1, OUT)

    assert [case.name for case in found.cases] == ["a", f"b_{word}"]
    assert [note for note in found.notes if f"left out: a_{word}.nii.gz" in note]


@pytest.mark.parametrize(
    ("scan", "mask"),
    [("ct", "ct_seg"), ("t1", "t1_seg_2"), ("image", "image_mask"), ("scan", "scan-label"), ("0000", "0000_seg")],
)
def test_a_scan_called_by_its_sequence_alone_has_its_mask(fill: Callable[..., Path], scan: str, mask: str) -> None:
    root = fill("all", *(f"p{k}/{name}.nii.gz" for k in range(2) for name in (scan, mask)))

    found = find_archive([root], "volumes", 1, OUT, recursive=True)

    assert [case.name for case in found.cases] == [f"p0/{scan}", f"p1/{scan}"]


def test_a_region_that_stands_alone_is_a_scan(fill: Callable[..., Path]) -> None:
    found = find_archive([fill("all", "a.nii.gz", "roi.nii.gz")], "volumes", 1, OUT)

    assert [case.name for case in found.cases] == ["a", "roi"]


def test_previews_among_slices_are_nobodys_business(tmp_path: Path) -> None:
    write_series(tmp_path / "p1/CT")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "p1/CT/thumb.jpg")

    assert find_archive([tmp_path], "volumes", 1, OUT, recursive=True).notes == ()


def test_masks_called_by_nothing_else_lie_beside_their_scan(fill: Callable[..., Path]) -> None:
    root = fill("all", "case_0/imaging.nii.gz", "case_0/segmentation.nii.gz", "case_1/segmentation.nii.gz")

    found = find_archive([root], "volumes", 1, OUT, recursive=True)

    assert [case.name for case in found.cases] == ["case_0/imaging", "case_1/segmentation"]


def test_masks_beside_their_scans_are_left_out_and_said(fill: Callable[..., Path]) -> None:
    root = fill("all", "a.nii.gz", "a_seg.nii.gz", "b-mask.nii.gz", "c.nii", "c_label_2.nii.gz")

    found = find_archive([root], "volumes", 1, OUT)

    assert [case.name for case in found.cases] == ["a", "b-mask", "c"]
    assert [note for note in found.notes if "left out: a_seg.nii.gz, c_label_2.nii.gz" in note]


def test_a_case_without_all_channels_is_a_failure_of_its_own(fill: Callable[..., Path]) -> None:
    root = fill("all", "a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz")

    found = find_archive([root], "volumes", 2, OUT)

    assert [case.name for case in found.cases] == ["a"]
    assert [failure.name for failure in found.failures] == ["b_0000"]
    assert "b has the channel files 0000, expected 0000 0001" in found.failures[0].reason


def test_what_is_of_another_kind_is_left_out_and_said(fill: Callable[..., Path]) -> None:
    root = fill("all", "a.nii.gz")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(root / "screenshot.png")

    found = find_archive([root], "volumes", 1, OUT)

    assert [case.name for case in found.cases] == ["a"]
    assert "1 image left out: the model was trained on volumes" in found.notes


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
def test_scans_whose_names_cannot_be_written_are_failures_and_stop_no_other(fill, tmp_path: Path) -> None:
    root = fill("all", "a.nii.gz")
    turned = "\u202egnp.nii.gz".encode()
    for name in (b"\xff.nii.gz", b"b\nc.nii.gz", b"\x1b[31m.nii.gz", b"d" * 201 + b".nii.gz", turned):
        shutil.copy(root / "a.nii.gz", os.path.join(os.fsencode(root), name))

    found = find_archive([root], "volumes", 1, OUT)

    assert [case.name for case in found.cases] == ["a"]
    said = {failure.name: failure.reason for failure in found.failures}
    assert said["\\xff"] == "\\xff: the name is not UTF-8; rename it"
    assert set(said) == {"\\xff", "b\\nc", "\\x1b[31m", "d" * 201, "\\u202egnp"}
    assert "reads as another" in said["\\u202egnp"]
    json.dumps(said, ensure_ascii=False).encode()


def test_series_below_a_series_are_scans_of_their_own(tmp_path: Path) -> None:
    root = write_series(tmp_path / "patient")
    write_series(root / "T1"), write_series(root / "deep/T2")

    found = find_archive([root], "volumes", 1, OUT, recursive=True)
    above = find_archive([tmp_path], "volumes", 1, OUT, recursive=True)
    flat = find_archive([root], "volumes", 1, OUT)
    mixed = find_archive([tmp_path], "volumes", 1, OUT)

    assert [case.name for case in found.cases] == ["T1", "deep/T2", "patient"]
    assert [case.name for case in above.cases] == ["patient", "patient/T1", "patient/deep/T2"]
    assert [case.name for case in flat.cases] == [case.name for case in mixed.cases] == ["patient"]
    assert any("2 more DICOM series below it are not read: T1, deep/T2; add --recursive" in note for note in flat.notes)
    assert any("not read" in note and "--recursive" in note for note in mixed.notes)


def test_one_stray_file_hides_no_series_below(tmp_path: Path) -> None:
    write_series(tmp_path / "all/T1")
    write_series(tmp_path / "stray")
    first, *_ = sorted((tmp_path / "stray").iterdir())
    first.rename(tmp_path / "all/stray.dcm")

    found = find_archive([tmp_path / "all"], "volumes", 1, OUT, recursive=True)
    assert "T1" in [case.name for case in found.cases]


def test_of_two_images_of_one_name_one_fails_by_its_own_name_and_stops_no_other(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "b.png"):
        Image.fromarray(SCAN[..., 0].astype(np.uint8)).save(tmp_path / name)

    found = find_archive([tmp_path], "images", 1, OUT)

    assert [case.name for case in found.cases] == ["a", "b"]
    (failure,) = found.failures
    assert (failure.name, failure.reason) == (
        "a.png",
        f"{tmp_path / 'a.png'}: the second image called a; keep one of the two or rename it",
    )
    assert len(found.files) == 3
