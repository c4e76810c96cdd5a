"""Archives as MedSAM keeps cases: the scan and its labels in one file, doubted before they are believed."""

from __future__ import annotations

import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpt.errors import VptError
from vpt.readers import reader_of

SPACING = (0.5, 0.7, 3.0)


def volume() -> tuple[np.ndarray, np.ndarray]:
    """(D, H, W) of 3 x 4 x 5, every voxel another value; label 2 where x is above 2."""
    scan = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    labels = np.zeros((3, 4, 5), np.uint16)
    labels[..., 3:] = 2
    return scan, labels


def saved(path: Path, **arrays: Any) -> Path:
    np.savez_compressed(path, **arrays)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_volume_lies_with_x_last_and_its_labels_on_the_same_grid(tmp_path: Path, save: Any, order: Any) -> None:
    scan, labels = volume()
    save(tmp_path / "a.npz", imgs=np.asarray(scan, order=order), gts=labels, spacing=SPACING)
    reader = reader_of(tmp_path / "a.npz")
    voxels = reader.voxels(1)
    assert (voxels.shape, voxels.grid.spacing, voxels.grid.axcodes) == ((1, 5, 4, 3), SPACING, "LPS")
    assert np.array_equal(voxels.values()[0], scan.T)
    found = reader.labels()
    assert found.grid.matches(voxels.grid)
    assert (found.ids, np.array_equal(found.array, labels.T)) == ((0, 2), True)
    assert np.array_equal(next(voxels.oriented("SPL").slices(0)), scan[0])  # as it is seen
    assert reader.doubts() == []
    assert (reader.kind, reader.count_channels(), reader.is_deep()) == ("volumes", 1, False)


def test_a_picture_is_a_slice_with_or_without_colours(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (4, 6, 3), np.uint8)
    colour = reader_of(saved(tmp_path / "c.npz", imgs=picture, gts=picture[..., 0] > 99))
    assert colour.count_channels() == 3
    assert np.array_equal(colour.voxels(3).values()[..., 0], picture.transpose(2, 1, 0))
    assert np.array_equal(colour.labels().array[..., 0], (picture[..., 0] > 99).T)
    assert colour.doubts() == []
    grey = reader_of(saved(tmp_path / "g.npz", imgs=picture[..., 0]))
    assert np.array_equal(grey.voxels(1).values()[0, ..., 0], picture[..., 0].T)
    thin = np.zeros((4, 6, 3), np.uint8)  # three columns, as the labels have
    assert reader_of(saved(tmp_path / "t.npz", imgs=thin, gts=thin)).voxels(1).shape == (1, 3, 6, 4)


def test_a_mask_is_nifti_at_the_same_place(tmp_path: Path) -> None:
    scan, labels = volume()
    reader = reader_of(saved(tmp_path / "a.npz", imgs=scan, gts=labels, spacing=SPACING))
    reader.write_mask(tmp_path / "m.nii.gz", reader.mask(reader.labels().array))
    written = reader_of(tmp_path / "m.nii.gz")
    assert written.grid().matches(reader.grid())
    assert np.array_equal(nib.load(tmp_path / "m.nii.gz").get_fdata(), labels.T)
    assert written.doubts() == []


@pytest.mark.parametrize(
    ("spacing", "doubt"),
    [
        (None, "no `spacing`, so voxels count as cubes of 1 mm"),
        ((5.0, 0.7, 0.7), r"`spacing` 5x0.7x0.7 is read as x, y, z, but looks like z, y, x"),
        ((0.001, 0.001, 0.002), "which no scanner has"),
    ],
)
def test_what_a_spacing_leaves_open_is_said(tmp_path: Path, spacing: Any, doubt: str) -> None:
    more = {} if spacing is None else {"spacing": spacing}
    reader = reader_of(saved(tmp_path / "a.npz", imgs=volume()[0], **more))
    assert reader.grid().spacing == pytest.approx(spacing or (1, 1, 1))
    assert any(doubt in text for text in reader.doubts())


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"images": np.zeros(3)}, "holds images, expected the arrays `imgs`"),
        (
            {"imgs": np.zeros((2, 2, 2)), "spaging": np.ones(3)},
            "holds `spaging` and no `spacing`, without",
        ),
        ({"imgs": np.zeros((2, 2, 2)), "Spacing": np.ones(3)}, "holds `Spacing` and no `spacing`"),
        ({"imgs": np.zeros((2, 2, 2)), "spacings": np.ones(3)}, "holds `spacings` and no `spacing`"),
        ({"gts": volume()[1]}, r"holds gts, expected a scan \(`imgs`\); add the array"),
        ({"imgs": np.zeros((2, 2, 2, 2))}, r"`imgs` has the shape \(2, 2, 2, 2\), expected \(D, H, W\) or \(H, W, 3\)"),
        ({"imgs": np.zeros((0, 2, 2))}, r"shape \(2, 2, 0\), expected a volume"),
        ({"imgs": np.array([{}, []], object)}, "`imgs` is of type object, expected plain numbers"),
        ({"imgs": np.zeros((2, 2, 2), complex)}, "`imgs` is of type complex128, expected plain numbers"),
        ({"imgs": np.full((2, 2, 2), np.nan)}, "8 of 8 voxels are not finite"),
        ({"imgs": np.zeros((2, 2, 2)), "spacing": np.ones(4)}, r"`spacing` has the shape \(4,\), expected 3 numbers"),
        ({"imgs": np.zeros((2, 2, 2)), "spacing": (1, 0, 1)}, "`spacing` is 1x0x1, expected 3 numbers above 0"),
    ],
)
def test_what_is_no_scan_is_refused_by_name(tmp_path: Path, arrays: dict[str, Any], reason: str) -> None:
    with pytest.raises(VptError, match=rf"a\.npz.*{reason}"):
        reader_of(saved(tmp_path / "a.npz", **arrays)).voxels(1)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (None, r"holds imgs, expected labels \(`gts`\); add the array"),
        (np.zeros((3, 4, 4), np.uint8), "`gts` is 4x4x3, `imgs` 5x4x3"),
        (np.zeros((1, 3, 4, 5), np.uint8), r"`gts` has the shape \(1, 3, 4, 5\), expected"),
        (np.full((3, 4, 5), 0.5), "label values 0.5 are not whole numbers"),
        (np.array([None]), "`gts` is of type object"),
    ],
)
def test_labels_that_are_none_are_refused_by_name(tmp_path: Path, labels: Any, reason: str) -> None:
    arrays = {"imgs": volume()[0]} | ({} if labels is None else {"gts": labels})
    with pytest.raises(VptError, match=rf"a\.npz.*{reason}"):
        reader_of(saved(tmp_path / "a.npz", **arrays)).labels()


def test_a_missing_and_an_empty_file_and_no_archive_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.npz").touch()
    (tmp_path / "text.npz").write_text("no archive")
    for name, reason in (("gone", "no such file"), ("empty", "an empty file"), ("text", "truncated, damaged or no")):
        with pytest.raises(VptError, match=rf"{name}\.npz: {reason}"):
            reader_of(tmp_path / f"{name}.npz").grid()


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1), value=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_file_is_refused_or_gives_what_was_saved(
    tmp_path_factory: pytest.TempPathFactory, place: float, value: int, cut: bool
) -> None:
    scan, labels = volume()
    path = saved(tmp_path_factory.mktemp("npz") / "a.npz", imgs=scan, gts=labels, spacing=SPACING)
    content = bytearray(path.read_bytes())
    at = min(int(place * len(content)), len(content) - 1)
    content[at] = value
    path.write_bytes(content[:at] if cut else content)
    reader = reader_of(path)
    for read, expected in ((lambda: reader.voxels(1).values()[0], scan), (lambda: reader.labels().array, labels)):
        try:
            assert np.array_equal(read(), expected.T)
        except VptError as error:
            assert "a.npz" in str(error)  # noqa: PT017 (either is right)


def test_a_header_that_claims_too_much_takes_no_memory(tmp_path: Path) -> None:
    header = b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': '|u1', 'fortran_order': False, 'shape': (4000, 4000, 4000), }"
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("imgs.npy", header.ljust(127) + b"\n")
    tracemalloc.start()
    with pytest.raises(VptError, match=r"`imgs` claims 4000x4000x4000 numbers, more than the file can hold"):
        reader_of(tmp_path / "a.npz").voxels(1)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


@pytest.mark.slow
def test_only_the_array_that_is_asked_for_is_held(tmp_path: Path) -> None:
    scan = np.random.default_rng(0).integers(0, 99, (64, 256, 256), np.uint8)
    reader = reader_of(saved(tmp_path / "a.npz", imgs=scan, gts=scan // 50))
    tracemalloc.start()
    reader.grid(), reader.label_grid(), reader.doubts()
    headers = tracemalloc.get_traced_memory()[1]
    voxels = reader.voxels(1)
    whole = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert headers < 2**20
    assert whole < scan.nbytes + 2**21
    assert voxels.channels[0].stored.nbytes == scan.nbytes


def test_a_name_that_is_damaged_in_the_list_of_contents_alone_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", imgs=volume()[0], spacing=SPACING)
    content = path.read_bytes()
    at = content.rindex(b"spacing.npy")
    path.write_bytes(content[: at + 1] + b"\x7f\xff" + content[at + 3 :])
    with pytest.raises(VptError, match=r"a\.npz: truncated, damaged or no \.npz \(File name in directory"):
        reader_of(path).grid()
