"""A voxel stays where it is in the patient, whatever the header; what cannot be used is said in one sentence."""

from __future__ import annotations

import csv
import gzip
import itertools
import struct
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpt.data.label_maps import read_label
from vpt.errors import VptError
from vpt.readers import Grid, Voxels, reader_of
from vpt.readers.grid import restore

VOXELS = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
LPS = np.diag([-1.0, -1.5, 3.0, 1.0])


def raw_nifti(path: Path, *, pixdim=(1, 1, 1), sform=None, qform_code=0, shape=(4, 5, 6)) -> Path:
    """A NIfTI whose header nibabel would not write: fields as given, voxels zero."""
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.int16)
    header["pixdim"][1:4], header["qform_code"] = pixdim, qform_code
    if sform is not None:
        header["sform_code"], header["srow_x"], header["srow_y"], header["srow_z"] = 1, *sform
    content = bytearray(header.binaryblock + bytes(4) + bytes(2 * int(np.prod(shape))))
    struct.pack_into("<f", content, 108, 352.0)
    content[344:348] = b"n+1\0"
    path.write_bytes(bytes(content))
    return path


def refuses(sentence: str):
    return pytest.raises(VptError, match=sentence)


# --- what is loaded ---------------------------------------------------------------------------------------------------


def test_image_is_float32_with_channel_and_affine(tmp_path, save):
    path = save(tmp_path / "a.nii.gz", VOXELS, LPS)
    volume = reader_of(path).voxels(1)
    values = volume.values()
    assert (values.dtype, values.shape) == (np.float32, (1, 4, 5, 6))
    assert np.array_equal(values[0], VOXELS)
    assert np.array_equal(volume.grid.affine, LPS)
    assert volume.name == str(path)
    assert np.array_equal(reader_of(nib.load(path)).voxels(1).values(), values)
    assert np.array_equal(reader_of((path,)).voxels(1).values(), values)
    assert np.array_equal(reader_of([nib.load(path)]).voxels(1).values(), values)


def test_channels_from_files_and_from_the_last_axis_are_the_same(tmp_path, save):
    paths = [save(tmp_path / f"a_{number:04d}.nii.gz", VOXELS + number, LPS) for number in range(2)]
    stacked = save(tmp_path / "a.nii.gz", np.stack([VOXELS, VOXELS + 1], -1), LPS)
    joined, split = reader_of(paths).voxels(2), reader_of(stacked).voxels(2)
    assert joined.shape == (2, 4, 5, 6)
    assert np.array_equal(joined.values(), split.values())
    assert joined.values()[1, 0, 0, 0] == 1


def test_scaling_in_the_header_is_applied(tmp_path):
    image = nib.Nifti1Image(VOXELS, LPS)
    image.header.set_slope_inter(0.5, -10)
    nib.save(image, tmp_path / "a.nii.gz")
    assert np.allclose(reader_of(tmp_path / "a.nii.gz").voxels(1).values()[0], VOXELS * 0.5 - 10)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 1, 1)])
def test_flat_scans_are_volumes_of_one_slice(tmp_path, save, shape):
    path = save(tmp_path / "a.nii.gz", VOXELS[:, :, 0].reshape(shape), LPS)
    volume = reader_of(path).voxels(1)
    assert volume.shape == (1, 4, 5, 1)
    assert np.array_equal(volume.values()[0, :, :, 0], VOXELS[:, :, 0])
    assert reader_of(path).grid().shape == (4, 5, 1)
    ras = volume.oriented("RAS")
    assert np.array_equal(restore(ras.values()[0], "RAS", reader_of(path).grid()), volume.values()[0])


@pytest.mark.parametrize("codes", [(0, 1), (1, 0), (1, 1)])
def test_affine_comes_from_sform_or_else_qform(tmp_path, codes):
    sform_code, qform_code = codes
    rotated = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.2, 0.1, 0.3) @ np.diag([1, 2, 3]), [5, 6, 7])
    image = nib.Nifti1Image(VOXELS, None)
    image.set_sform(rotated if sform_code else np.eye(4), sform_code)
    image.set_qform(rotated, qform_code)
    nib.save(image, tmp_path / "a.nii.gz")
    assert np.allclose(reader_of(tmp_path / "a.nii.gz").voxels(1).grid.affine, rotated, atol=1e-5)


def test_affine_is_nibabels_where_pixdim_disagrees(tmp_path):
    """MONAI's LoadImage takes the qform here, and masks, which nibabel writes, would be shifted against it."""
    image = nib.Nifti1Image(VOXELS, np.diag([2.0, 2.0, 2.0, 1.0]))
    image.set_qform(np.diag([3.0, 3.0, 3.0, 1.0]), 1)
    image.set_sform(np.diag([2.0, 2.0, 2.0, 1.0]), 1, update_affine=False)
    nib.save(image, tmp_path / "a.nii.gz")
    assert np.allclose(reader_of(tmp_path / "a.nii.gz").voxels(1).grid.affine, np.diag([2, 2, 2, 1]))
    assert "sform and qform are" in reader_of(tmp_path / "a.nii.gz").doubts()[0]


def test_without_any_affine_the_spacing_counts_and_the_orientation_is_doubted(tmp_path):
    path = raw_nifti(tmp_path / "a.nii", pixdim=(1, 2, 3))
    assert reader_of(path).grid().spacing == (1, 2, 3)
    assert "neither sform nor qform" in reader_of(path).doubts()[0]
    assert reader_of(path).voxels(1).shape == (1, 4, 5, 6)


def test_shear_is_usable_and_doubted(tmp_path, save):
    sheared = LPS.copy()
    sheared[0, 2] = 0.9
    path = save(tmp_path / "a.nii.gz", VOXELS, sheared)
    ras = reader_of(path).voxels(1).oriented("RAS")
    assert np.array_equal(restore(ras.values()[0], "RAS", reader_of(path).grid()), VOXELS)
    assert "sheared by 16.7 degrees" in reader_of(path).doubts()[-1]
    assert reader_of(save(tmp_path / "b.nii.gz", VOXELS, LPS)).doubts() == []


# --- label maps -------------------------------------------------------------------------------------------------------


def test_ids_that_are_not_known_before_are_read(tmp_path, save):
    path = save(tmp_path / "l.nii.gz", np.where(VOXELS == 7, 117, VOXELS % 2 * 300).astype(np.int16))
    label = reader_of(path).labels()
    assert (label.array.shape, label.array.dtype, label.ids) == ((4, 5, 6), np.int16, (0, 117, 300))
    assert label.grid.matches(reader_of(path).grid())
    assert label.name == str(path)
    floats = reader_of(nib.Nifti1Image((VOXELS % 3).astype(np.float32), LPS)).labels()
    assert (floats.array.dtype, floats.ids) == (np.int64, (0, 1, 2))
    assert np.array_equal(floats.array, VOXELS % 3)
    assert reader_of(save(tmp_path / "one.nii.gz", VOXELS[..., None] % 2)).labels().array.shape == (4, 5, 6)


def test_ids_that_a_scale_factor_left_beside_whole_numbers_are_rounded(tmp_path, save):
    scaled = nib.Nifti1Image((VOXELS % 3 * 10).astype(np.int16), LPS)
    scaled.header.set_slope_inter(0.1, 0)  # 0.1 is not a float32: 20 reads as 2.00000003
    nib.save(scaled, tmp_path / "l.nii.gz")
    label = reader_of(tmp_path / "l.nii.gz").labels()
    assert label.ids == (0, 1, 2)
    assert np.array_equal(label.array, VOXELS % 3)
    with refuses(r"image 3: label values 0\.5, 1\.5 are not whole numbers"):
        reader_of(nib.Nifti1Image(VOXELS % 4 / 2.0, LPS), "image 3").labels()
    for value in (np.nan, np.inf):
        with refuses("are not whole numbers"):
            reader_of(nib.Nifti1Image(np.where(VOXELS == 7, value, 0), LPS)).labels()


@pytest.mark.parametrize(
    ("kind", "id", "exact"), [("f4", 614454277, 16777215), ("f4", 2**24 + 1, 16777215), ("f8", 2**53, 9007199254740991)]
)
def test_ids_in_floats_that_skip_whole_numbers_are_refused(tmp_path, kind, id, exact):
    labels = np.zeros((4, 5, 6), kind)
    labels[0, 0, 0] = exact
    nib.save(nib.Nifti1Image(labels, LPS), tmp_path / "a.nii")
    assert reader_of(tmp_path / "a.nii").labels().ids == (0, exact)
    labels[1, 1, 1] = id
    nib.save(nib.Nifti1Image(labels, LPS), tmp_path / "a.nii")
    with refuses(rf"a\.nii: label \d+ in float\d+, which skips whole numbers above {exact}, .*; save .* as integers"):
        reader_of(tmp_path / "a.nii").labels()


def test_label_grid_reads_the_header_alone(tmp_path, save):
    path = save(tmp_path / "l.nii", VOXELS, LPS)
    path.write_bytes(path.read_bytes()[:400])
    assert reader_of(path).label_grid().matches(Grid((4, 5, 6), LPS))
    with refuses(r"l\.nii: truncated or damaged"):
        reader_of(path).labels()
    with refuses(r"m\.nii\.gz: shape \(4, 5, 6, 2\) is 4-D, expected a 3-D label map"):
        reader_of(save(tmp_path / "m.nii.gz", np.zeros((4, 5, 6, 2), np.uint8))).label_grid()


def test_a_volume_in_memory_has_its_files_grid(tmp_path, save):
    path = save(tmp_path / "a.nii.gz", VOXELS, LPS)
    assert reader_of(path).voxels(1).grid.matches(reader_of(path).grid())


# --- what is refused --------------------------------------------------------------------------------------------------


def test_unreadable_files_are_named_with_the_fix(tmp_path, save):
    whole = save(tmp_path / "whole.nii.gz", np.random.default_rng(0).normal(size=(20, 20, 20))).read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 255
    plain = save(tmp_path / "plain.nii", VOXELS).read_bytes()
    for name, content, sentence in [
        ("empty.nii.gz", b"", "an empty file"),
        ("cut.nii.gz", whole[: len(whole) // 2], "truncated or damaged"),
        ("end.nii.gz", whole[:-4], "truncated or damaged"),
        ("bit.nii.gz", bytes(damaged), "truncated or damaged"),
        ("head.nii.gz", whole[:40], "not a NIfTI file, or cut off in its header"),
        ("text.nii.gz", b"This is not a scan.\n" * 30, "not a NIfTI file"),
        ("packed.nii.gz", gzip.compress(b"This is not a scan.\n" * 30, mtime=0), "not a NIfTI file"),
        ("cut.nii", plain[:400], "truncated or damaged"),
        ("scan.mgz", bytes(400), "not a supported ending"),
        ("called.mgz", plain, r"a NIfTI volume by its content, .* rename it to \.nii"),
    ]:
        (tmp_path / name).write_bytes(content)
        with refuses(f"{name}: {sentence}") as caught:
            reader_of(tmp_path / name).voxels(1)
        assert "\n" not in str(caught.value)
    with refuses(r"gone\.nii\.gz: no such file"):
        reader_of(tmp_path / "gone.nii.gz").voxels(1)
    (tmp_path / "folder.nii.gz").mkdir()
    with refuses(r"folder\.nii\.gz: a folder, expected"):
        reader_of(tmp_path / "folder.nii.gz").voxels(1)


def test_voxels_that_are_not_finite_are_counted(tmp_path, save):
    array = VOXELS.astype(np.float32)
    array[0, 0, :3], array[1, 1, 1] = np.nan, -np.inf
    with refuses(r"a\.nii\.gz: 4 of 120 voxels are not finite \(3 NaN, 1 infinite\); replace them"):
        reader_of(save(tmp_path / "a.nii.gz", array)).voxels(1)


def test_dimensions_and_channels_that_do_not_fit(tmp_path, save):
    four = save(tmp_path / "four.nii.gz", np.zeros((4, 5, 6, 3), np.int16))
    with refuses(r"four\.nii\.gz: shape \(4, 5, 6, 3\) is 4-D with 3 channels, expected 1 .* 3-D .* dataset\.json"):
        reader_of(four).voxels(1)
    with refuses("with 3 channels, expected 2"):
        reader_of(four).voxels(2)
    three = save(tmp_path / "three.nii.gz", VOXELS)
    with refuses(r"three\.nii\.gz: one 3-D volume, expected 2 channels"):
        reader_of(three).voxels(2)
    with refuses("2 channel files, expected 3"):
        reader_of([three, three]).voxels(3)
    with refuses(r"shape \(4, 5, 6, 2, 3\), expected a volume"):
        reader_of(save(tmp_path / "five.nii.gz", np.zeros((4, 5, 6, 2, 3), np.int16))).voxels(1)
    with refuses("colour or complex voxels"):
        reader_of(save(tmp_path / "rgb.nii.gz", np.zeros((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")]))).voxels(1)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
@pytest.mark.parametrize("more", [(1,), (1, 1), (1, 1, 1), (1, 3), (3,), (3, 1), (1, 3, 1)])
def test_axes_of_one_step_are_none_and_vectors_are_channels(tmp_path, save, more, ending):
    channels = max(more)
    voxels = np.arange(4 * 5 * 6 * channels, dtype=np.int16).reshape(4, 5, 6, *more, order="F")

    reader = reader_of(save(tmp_path / f"scan{ending}", voxels))
    found = reader.voxels(channels).values()

    assert reader.count_channels() == channels
    assert np.array_equal(np.moveaxis(found, 0, -1), voxels.reshape(4, 5, 6, channels, order="F"))
    assert reader.mask(np.ones((4, 5, 6), np.uint8)).shape == (4, 5, 6)


def test_channels_that_itk_wrote_are_read(tmp_path):
    import SimpleITK

    voxels = np.random.default_rng(0).normal(0, 1, (6, 5, 4, 2)).astype(np.float32)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels, isVector=True), str(tmp_path / "two.nii.gz"))

    assert np.array_equal(reader_of(tmp_path / "two.nii.gz").voxels(2).values(), voxels.transpose(3, 2, 1, 0))


def test_channel_files_on_different_grids(tmp_path, save):
    first, second = save(tmp_path / "a_0000.nii.gz", VOXELS), save(tmp_path / "a_0001.nii.gz", VOXELS, LPS)
    with refuses(r"a_0001\.nii\.gz: not on the grid of .*a_0000\.nii\.gz: spacing .*; resample the channels"):
        reader_of([first, second]).voxels(2)


def test_unusable_affines(tmp_path):
    with refuses(r"its affine \[0 0 0 0; 0 0 0 0; 0 0 0 0\] is singular"):
        reader_of(raw_nifti(tmp_path / "a.nii", sform=np.zeros((3, 4)))).grid()
    with refuses(r"its affine .* is singular, .*; write valid directions and sizes"):
        reader_of(raw_nifti(tmp_path / "a.nii", sform=np.full((3, 4), np.nan))).grid()
    with warnings.catch_warnings(), refuses(r"its affine \[1 0 0 inf; 0 1 0 0; 0 0 1 0\] is singular"):
        warnings.simplefilter("error")
        reader_of(raw_nifti(tmp_path / "a.nii", sform=[[1, 0, 0, np.inf], [0, 1, 0, 0], [0, 0, 1, 0]])).grid()
    with refuses(r"a\.nii: voxel size 0x1x1 mm in its header; write the true size"):
        reader_of(raw_nifti(tmp_path / "a.nii", pixdim=(0, 1, 1))).grid()
    with refuses("voxel size 1x0x1 mm"):
        reader_of(raw_nifti(tmp_path / "a.nii", pixdim=(1, 0, 1), qform_code=1)).grid()
    assert reader_of(raw_nifti(tmp_path / "a.nii", pixdim=(0, 0, 0), sform=np.eye(4)[:3])).grid().axcodes == "RAS"
    assert reader_of(raw_nifti(tmp_path / "a.nii", pixdim=(1, 1, 0), shape=(4, 5))).grid().shape == (4, 5, 1)


# --- orientation ------------------------------------------------------------------------------------------------------

ALL_48 = [
    np.eye(3)[list(order)].T * signs
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1.0, -1.0), repeat=3)
]
TARGETS = ["RAS", "LPS", "SAR", "PIR"]


def world_of(volume: Voxels) -> dict[float, np.ndarray]:
    """Voxel value -> its position in mm; values are all different."""
    array, affine = volume.values()[0], volume.grid.affine
    index = np.argwhere(np.ones(array.shape, bool))
    return dict(zip(array[tuple(index.T)].tolist(), index @ affine[:3, :3].T + affine[:3, 3], strict=True))


def check_round_trip(affine: np.ndarray, axcodes: str) -> None:
    image = nib.Nifti1Image(VOXELS, affine)
    volume = reader_of(image).voxels(1)
    oriented = volume.oriented(axcodes)
    assert "".join(nib.aff2axcodes(oriented.grid.affine)) == axcodes
    before, after = world_of(volume), world_of(oriented)
    assert all(np.allclose(before[value], after[value], atol=1e-6) for value in before)
    assert np.array_equal(restore(oriented.values()[0], axcodes, volume.grid), VOXELS)


@pytest.mark.parametrize("axcodes", TARGETS)
@pytest.mark.filterwarnings("error")
def test_every_orientation_goes_and_comes_back(axcodes):
    for axes in ALL_48:
        check_round_trip(nib.affines.from_matvec(axes * [0.5, 1.5, 3.0], [10, -20, 30]), axcodes)


@given(
    axes=st.sampled_from(ALL_48),
    angles=st.tuples(*[st.floats(-0.6, 0.6)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 20)] * 3),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
    axcodes=st.sampled_from(TARGETS),
)
@settings(max_examples=60, deadline=None)
def test_oblique_orientations_go_and_come_back(axes, angles, spacing, origin, axcodes):
    rotation = nib.eulerangles.euler2mat(*angles)
    check_round_trip(nib.affines.from_matvec(rotation @ axes * spacing, origin), axcodes)


def test_restore_refuses_another_shape():
    with pytest.raises(ValueError, match=r"on a grid of \(4, 5, 6\)"):
        restore(np.zeros((4, 5, 7)), "RAS", Grid((4, 5, 6), np.eye(4)))


# --- real scans -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def odd(data_root) -> Path:
    return data_root / "odd_volumes"


@pytest.mark.data
def test_odd_volumes_are_what_their_manifest_says(odd):
    rows = [row for row in csv.DictReader((odd / "manifest.csv").open()) if row["file"].endswith(".nii.gz")]
    assert len(rows) > 20
    for row in rows:
        if row["file"].startswith("four_d"):
            continue
        grid = reader_of(odd / row["file"]).grid()
        assert "x".join(map(str, grid.shape)) == row["shape"], row["file"]
        assert np.allclose(grid.spacing, [float(value) for value in row["spacing"].split()], atol=1e-3), row["file"]
        assert grid.axcodes == row["axes"], row["file"]
        if not row["file"].startswith("nonfinite"):
            volume = reader_of(odd / row["file"]).voxels(1)
            low, _, high = row["values"].partition(" values ")[2].partition("..")
            if high:
                values = volume.values()
                assert (float(values.min()), float(values.max())) == pytest.approx((float(low), float(high)), rel=1e-3)
        if row["label_for_this_image"] and not row["label_for_this_image"].endswith("heart.nii.gz"):
            label = read_label(odd / row["label_for_this_image"], range(118), volume.grid, volume.name)
            assert label.array.shape == volume.grid.shape, row["file"]
            assert label.array.any(), row["file"]


@pytest.mark.data
@pytest.mark.parametrize(("name", "kind"), [("mtr_inf", "infinite"), ("fmri_tsnr_nan", "NaN")])
def test_scans_that_are_not_finite_are_refused_with_the_number(odd, name, kind):
    path = odd / f"nonfinite/{name}.nii.gz"
    bad = int((~np.isfinite(nib.load(path).get_fdata())).sum())
    with refuses(rf"{name}\.nii\.gz: {bad} of \d+ voxels are not finite \(.*{bad} {kind}"):
        reader_of(path).voxels(1)


@pytest.mark.data
def test_four_d_scans_are_refused_or_read_as_channels(odd):
    for channels in (1, 7):
        with refuses(
            r"dmri\.nii\.gz: 4-D with 7 volumes in steps of 2\.2 s by its header, so a series and no channels"
        ):
            reader_of(odd / "four_d/dmri.nii.gz").voxels(channels)
    with refuses(r"venc\.nii\.gz: shape \(256, 256, 1, 3\) is 4-D"):
        reader_of(odd / "four_d/venc.nii.gz").voxels(1)
    assert reader_of(odd / "four_d/venc.nii.gz").voxels(3).shape == (3, 256, 256, 1)


@pytest.mark.data
def test_oblique_prostate_with_qform_only(odd):
    path = odd / "prostate_oblique/Prostatex_0000.nii.gz"
    image = nib.load(path)
    volume = reader_of(path).voxels(1)
    assert image.header["sform_code"] == 0
    assert np.allclose(volume.grid.affine, image.header.get_qform())
    assert not np.allclose(np.abs(volume.grid.affine)[:3, :3], np.diag([0.5, 0.5, 3.0]), atol=0.1)
    assert np.array_equal(restore(volume.oriented("RAS").values()[0], "RAS", volume.grid), np.asarray(image.dataobj))


# --- masks like the scan ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [nib.Nifti1Image, nib.Nifti2Image])
def test_a_mask_has_the_scans_header_and_is_made_when_the_file_is_gone(tmp_path, make):
    scan = make(VOXELS, LPS)
    scan.set_qform(LPS, 1)
    scan.header.set_slope_inter(2.5, -7)
    scan.header.set_xyzt_units("mm", "sec")
    nib.save(scan, tmp_path / "a.nii.gz")
    reader = reader_of(tmp_path / "a.nii.gz")
    reader.voxels(1)
    (tmp_path / "a.nii.gz").unlink()
    labels = (VOXELS % 3).astype(np.uint8)
    reader.write_mask(tmp_path / "m.nii.gz", reader.mask(labels))
    mask = nib.load(tmp_path / "m.nii.gz")
    assert isinstance(mask, make)
    assert np.array_equal(np.asarray(mask.dataobj), labels)
    assert mask.get_data_dtype() == np.uint8
    assert np.array_equal(mask.affine, LPS)
    assert [int(mask.header[code]) for code in ("sform_code", "qform_code")] == [
        int(scan.header[code]) for code in ("sform_code", "qform_code")
    ]
    assert mask.header.get_xyzt_units() == ("mm", "sec")


def test_channels_and_depth_are_told_by_the_header(tmp_path, save):
    four = save(tmp_path / "four.nii", np.zeros((4, 5, 6, 3), np.int16))
    four.write_bytes(four.read_bytes()[:400])
    assert reader_of(four).count_channels() == 3
    assert reader_of(four).is_deep()
    assert not reader_of(save(tmp_path / "a.nii.gz", VOXELS.astype(np.uint8))).is_deep()
    assert reader_of([tmp_path / "a.nii.gz"] * 2).count_channels() == 2
