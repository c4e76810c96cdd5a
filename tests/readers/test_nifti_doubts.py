"""Headers that other programs would refuse or read otherwise: said by name, and masks that carry none of it."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from vpt.data.check import check_dataset
from vpt.errors import VptError
from vpt.readers import reader_of

AFFINE = np.diag([1.0, 1.2, 2.5, 1.0])
QUATERN_B = 256  # its place in the header


def save(path: Path, *, sform: int = 2, qform: int = 1, affine: np.ndarray = AFFINE, quaternion: float = 0.0) -> Path:
    """A small volume; quaternion: by how much more than 1 the sum of its squares is."""
    image = nib.Nifti1Image(np.arange(120, dtype=np.int16).reshape(4, 5, 6), None)
    image.set_qform(AFFINE, qform)
    image.set_sform(affine, sform)
    header = image.header
    header["descrip"], header["db_name"], header["intent_name"] = b"DOE^JANE", b"DOE", b"JANE"
    header["aux_file"] = b"doe.txt"
    header.extensions.append(nib.nifti1.Nifti1Extension(6, b"patient: Jane Doe"))
    nib.save(image, path)
    if quaternion:  # nibabel writes none that it would not read
        content = bytearray(path.read_bytes())
        struct.pack_into("<f", content, QUATERN_B, np.sqrt(1 + quaternion))
        path.write_bytes(content)
    return path


@pytest.mark.parametrize("excess", [5e-6, 1e-3, 0.5])
def test_an_unreadable_qform_is_a_doubt_where_there_is_a_sform(tmp_path: Path, excess: float) -> None:
    reader = reader_of(save(tmp_path / "a.nii", quaternion=excess))

    assert any("its qform is unreadable" in text and "sform is used" in text for text in reader.doubts())
    np.testing.assert_allclose(reader.grid().affine, AFFINE)


@pytest.mark.parametrize("excess", [5e-6, 0.5])
def test_without_a_sform_it_is_refused_for_what_is_wrong(tmp_path: Path, excess: float) -> None:
    path = save(tmp_path / "a.nii", sform=0, quaternion=excess)

    with pytest.raises(VptError, match=r"a\.nii: its qform is unreadable .* no sform"):
        reader_of(path).grid()


@pytest.mark.parametrize("degrees", [0.02, 0.05, 0.5, 2.0, 20.0])
def test_shear_that_itk_refuses_is_a_doubt(tmp_path: Path, degrees: float) -> None:
    sheared = AFFINE.copy()
    sheared[0, 1] = sheared[1, 1] * np.tan(np.radians(degrees))

    assert any("sheared by" in text for text in reader_of(save(tmp_path / "a.nii", affine=sheared)).doubts())


@pytest.mark.parametrize("degrees", [0.0, 3.0, 45.0])
def test_a_turned_volume_is_not_sheared(tmp_path: Path, degrees: float) -> None:
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]

    assert not any("sheared" in text for text in reader_of(save(tmp_path / "a.nii", affine=turn @ AFFINE)).doubts())


def test_a_mask_carries_no_text_of_its_scan(tmp_path: Path) -> None:
    reader = reader_of(save(tmp_path / "a.nii", quaternion=5e-6))

    reader.write_mask(tmp_path / "mask.nii.gz", reader.mask(np.ones((4, 5, 6), np.uint8)))

    mask = nib.load(tmp_path / "mask.nii.gz")
    texts = [mask.header[text].tobytes().strip(b"\0") for text in ("descrip", "db_name", "intent_name", "aux_file")]
    assert texts == [b""] * 4
    assert len(mask.header.extensions) == 0
    np.testing.assert_allclose(mask.affine, AFFINE)
    np.testing.assert_allclose(mask.get_qform(), AFFINE, atol=1e-5)


# --- units, scales, intents, time, spacing ----------------------------------------------------------------------------


def volume(path: Path, shape: tuple[int, ...] = (4, 5, 6), affine: np.ndarray = AFFINE, **header: float) -> Path:
    """A volume whose header fields are written into the file as they are."""
    image = nib.Nifti1Image(np.arange(np.prod(shape), dtype=np.int16).reshape(shape), affine)
    image.header["xyzt_units"] = 2
    nib.save(image, path)
    raw = bytearray(path.read_bytes())
    for name, value in header.items():
        place, form = PLACES[name]
        struct.pack_into(form, raw, place, value)
    path.write_bytes(raw)
    return path


PLACES = {  # field -> its place in the header, and its type
    "intent": (68, "<h"),
    "step": (92, "<f"),
    "slope": (112, "<f"),
    "inter": (116, "<f"),
    "units": (123, "<B"),
}


@pytest.mark.parametrize(
    ("units", "factor", "said"),
    [
        (0, 1.0, ""),
        (2, 1.0, ""),
        (10, 1.0, ""),
        (1, 1e3, "says metres"),
        (3, 1e-3, "says microns"),
        (11, 1e-3, "says mic"),
    ],
)
def test_distances_are_mm_whatever_their_unit(tmp_path: Path, units: int, factor: float, said: str) -> None:
    small = np.diag([*np.array([1.0, 1.2, 2.5]) / factor, 1.0])
    reader = reader_of(volume(tmp_path / "a.nii", affine=small, units=units))

    assert reader.grid().spacing == pytest.approx((1.0, 1.2, 2.5), rel=1e-5)
    assert reader.voxels(1).grid.spacing == pytest.approx((1.0, 1.2, 2.5), rel=1e-5)
    assert [text for text in reader.doubts() if said and said in text] == (reader.doubts() if said else [])
    reader.write_mask(tmp_path / "mask.nii.gz", reader.mask(np.ones((4, 5, 6), np.uint8)))
    assert reader_of(tmp_path / "mask.nii.gz").labels().grid.matches(reader.grid())
    np.testing.assert_allclose(nib.load(tmp_path / "mask.nii.gz").affine, small, rtol=1e-5)


def test_itk_sees_the_same_place_where_units_are_converted(tmp_path: Path) -> None:
    itk = pytest.importorskip("SimpleITK")
    for units, factor in ((1, 1e3), (3, 1e-3)):
        path = volume(tmp_path / "a.nii", affine=np.diag([*np.array([1.0, 1.2, 2.5]) / factor, 1.0]), units=units)
        assert itk.ReadImage(str(path)).GetSpacing() == pytest.approx(reader_of(path).grid().spacing, rel=1e-4)


@pytest.mark.parametrize(
    ("slope", "inter", "first", "said"),
    [
        (0.0, 0.0, 0.0, ""),
        (2.0, -5.0, -5.0, ""),
        (np.nan, np.nan, 0.0, "its slope is nan and its intercept nan, so values are taken as they are stored"),
        (np.nan, 0.0, 0.0, "its slope is nan and its intercept 0, so"),
        (0.0, np.nan, 0.0, "its slope is 0 and its intercept nan, so"),
        (0.0, np.inf, 0.0, "its slope is 0 and its intercept inf, so"),
        (
            0.0,
            -1024.0,
            0.0,
            "its slope is 0, which is no scaling by the standard, so its intercept of -1024 is not added",
        ),
        (np.nan, 7.0, 0.0, "its slope is nan, which is no scaling"),
    ],
)
def test_scales_are_the_standards(tmp_path: Path, slope: float, inter: float, first: float, said: str) -> None:
    reader = reader_of(volume(tmp_path / "a.nii", slope=slope, inter=inter))

    assert reader.voxels(1).values()[0, 0, 0, 0] == first
    assert [text.startswith(said) for text in reader.doubts()] == ([True] if said else [])


@pytest.mark.parametrize(
    ("slope", "inter"), [(2.0, np.nan), (2.0, np.inf), (np.inf, 0.0), (-np.inf, -1024.0), (np.inf, np.nan)]
)
def test_a_scale_that_is_no_number_is_refused(tmp_path: Path, slope: float, inter: float) -> None:
    with pytest.raises(VptError, match=r"a\.nii: its scale is unusable .*; write numbers into scl_slope and scl_inter"):
        reader_of(volume(tmp_path / "a.nii", slope=slope, inter=inter)).voxels(1)


@pytest.mark.parametrize(
    ("intent", "what"),
    [(3, "a statistical map"), (1002, "a label map"), (1006, "displacements"), (1005, "symmetric"), (2006, "a field")],
)
def test_an_intent_that_is_no_scan_is_doubted(tmp_path: Path, intent: int, what: str) -> None:
    (text,) = reader_of(volume(tmp_path / "a.nii", intent=intent)).doubts()

    assert text.startswith(what)
    assert f"(intent {intent}), expected a scan" in text


@pytest.mark.parametrize("units", [8, 16, 24, 32, 40])
@pytest.mark.parametrize("step", [2.2, 0.5])
def test_a_series_is_refused_as_channels(tmp_path: Path, units: int, step: float) -> None:
    reader = reader_of(volume(tmp_path / "a.nii", (4, 5, 6, 3), units=units + 2, step=step))

    with pytest.raises(VptError, match=rf"a\.nii: 4-D with 3 volumes in steps of {step} .* a series and no channels"):
        reader.voxels(3)
    assert reader.doubts() == []


def test_the_intent_of_a_series_is_enough(tmp_path: Path) -> None:
    with pytest.raises(VptError, match="in the intent `time series` by its header"):
        reader_of(volume(tmp_path / "a.nii", (4, 5, 6, 3), intent=2001)).voxels(3)


@pytest.mark.parametrize(
    ("units", "step", "doubted"), [(2, 2.2, False), (0, 3.0, False), (10, 1.0, True), (10, 0, True)]
)
def test_channels_whose_header_says_no_step_are_read(tmp_path: Path, units: int, step: float, doubted: bool) -> None:
    reader = reader_of(volume(tmp_path / "a.nii", (4, 5, 6, 3), units=units, step=step))

    assert reader.voxels(3).shape == (3, 4, 5, 6)
    assert any("unit of time" in text for text in reader.doubts()) == doubted


@pytest.mark.parametrize(
    ("mm", "odd"), [(0.001, True), (0.05, False), (1.0, False), (17.0, False), (50, True), (1000, True)]
)
def test_voxels_that_no_scanner_has_are_doubted(tmp_path: Path, mm: float, odd: bool) -> None:
    reader = reader_of(volume(tmp_path / "a.nii", affine=np.diag([mm, mm, mm, 1.0])))

    assert any("which no scanner has (expected 0.01 to 30 mm)" in text for text in reader.doubts()) == odd


def test_the_thickness_of_a_lone_slice_is_no_doubt(tmp_path: Path) -> None:
    assert reader_of(volume(tmp_path / "a.nii", (4, 5, 1), np.diag([1.0, 1.0, 300.0, 1.0]))).doubts() == []


def patched(path: Path, form: str, place: int, value: float) -> Path:
    content = bytearray(path.read_bytes())
    struct.pack_into(f"<{form}", content, place, value)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("start", [0.0, 1.0, 16.0, 348.0, 351.0])
def test_voxels_that_begin_inside_the_header_are_refused(tmp_path: Path, start: float) -> None:
    """nibabel would read the header as the first voxels, and all others from a wrong place."""
    with pytest.raises(VptError, match=rf"a\.nii: its voxels begin at byte {start:g} .*expected 352 to"):
        reader_of(patched(save(tmp_path / "a.nii"), "f", 108, start)).grid()


@pytest.mark.parametrize("size", [5.0, 0.5, 1.1, 0.0, float("nan")])
def test_sizes_other_than_those_of_the_sform_are_a_doubt(tmp_path: Path, size: float) -> None:
    """SimpleITK reads a volume's spacing from them."""
    path = patched(save(tmp_path / "a.nii", qform=0), "f", 80, size)
    said = [text for text in reader_of(path).doubts() if "in pixdim" in text]
    assert len(said) == 1
    assert said[0].startswith(
        f"voxels of {size:.4g}x1.2x2.5 mm in pixdim and of 1x1.2x2.5 mm in the sform, which is used"
    )
    np.testing.assert_allclose(reader_of(path).grid().spacing, (1, 1.2, 2.5), rtol=1e-5)


@pytest.mark.parametrize("size", [1.0, 1.0001, -1.0])
def test_the_same_sizes_are_none(tmp_path: Path, size: float) -> None:
    path = patched(save(tmp_path / "a.nii", qform=0), "f", 80, size)
    assert not [text for text in reader_of(path).doubts() if "pixdim" in text]


def test_a_negative_size_that_is_used_and_a_unit_that_is_none_are_doubts(tmp_path: Path) -> None:
    negative = reader_of(patched(save(tmp_path / "a.nii", sform=0), "f", 80, -1.0)).doubts()
    assert any("voxels of -1x1.2x2.5 mm, and no size is below 0" in text for text in negative)
    unknown = reader_of(patched(save(tmp_path / "b.nii"), "B", 123, 7)).doubts()
    assert any("its unit of distances is 7, which is none" in text for text in unknown)


@pytest.mark.parametrize("degrees", [0.02, 0.5, 2.0, 10.0])
def test_itk_opens_the_mask_of_a_sheared_scan_and_nibabel_puts_it_where_the_scan_is(
    tmp_path: Path, degrees: float
) -> None:
    itk = pytest.importorskip("SimpleITK")
    sheared = AFFINE.copy()
    sheared[0, 1] = sheared[1, 1] * np.tan(np.radians(degrees))
    reader = reader_of(save(tmp_path / "a.nii", qform=0, affine=sheared))
    labels = np.arange(120, dtype=np.uint8).reshape(4, 5, 6)

    reader.write_mask(tmp_path / "mask.nii.gz", reader.mask(labels))

    with pytest.raises(RuntimeError, match="orthonormal"):
        itk.ReadImage(str(tmp_path / "a.nii"))
    assert np.array_equal(itk.GetArrayFromImage(itk.ReadImage(str(tmp_path / "mask.nii.gz"))).T, labels)
    np.testing.assert_allclose(nib.load(tmp_path / "mask.nii.gz").affine, sheared, atol=1e-5)


@pytest.mark.parametrize(("kind", "place", "value"), [("h", 252, -3), ("f", 80, 0.0), ("f", 84, -1.2)])
def test_nibabel_prints_nothing_of_a_header_that_is_read_here_and_what_it_did_of_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, place: int, value: float
) -> None:
    """A code that is none, a size that is none, one below 0."""
    path = patched(save(tmp_path / "a.nii"), kind, place, value)
    reader_of(path).doubts()
    reader_of(path).voxels(1).values()
    assert caplog.messages == []
    nib.load(path)
    assert caplog.messages != []


def test_a_masks_own_transforms_are_a_doubt_where_they_are_not_its_scans(make_dataset) -> None:
    root = make_dataset()
    for folder in ("imagesTr", "labelsTr"):
        for path in sorted((root / folder).iterdir()):
            image = nib.load(path)
            image.set_qform(image.affine, 1)
            if "case_01" in path.name or (folder, path.name) == ("labelsTr", "case_02.nii.gz"):
                image.header["quatern_b"], image.header["quatern_c"] = 0.9, 0.9
            image.header["scl_slope"], image.header["scl_inter"] = 1, 0
            image.header["vox_offset"], data = 352, np.asarray(image.dataobj)
            path.write_bytes(gzip.compress(image.header.binaryblock + bytes(4) + data.tobytes(order="F")))
    said = [(each.file, each.text) for each in check_dataset(root).warnings]
    unreadable = "its qform is unreadable (its quaternion is no rotation), the sform is used; write it again"
    assert said == [("imagesTr/case_01_0000.nii.gz", unreadable), ("labelsTr/case_02.nii.gz", unreadable)]
