"""A voxel stays where it is in the patient, whatever the header; what cannot be used is said in one sentence."""

from __future__ import annotations

import csv
import gzip
import itertools
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from PIL import Image
from vpt.data.grid import Grid
from vpt.data.volumes import doubts, grid_of, label_grid, load_image, load_label, orient, read_ids, restore

from vpt.data.cases import Case
from vpt.errors import VptError

LABELS = {0: "background", 1: "rim", 2: "core"}
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
    volume = load_image(path, 1)
    assert isinstance(volume, MetaTensor)
    assert (volume.dtype, tuple(volume.shape)) == (torch.float32, (1, 4, 5, 6))
    assert np.array_equal(np.asarray(volume[0]), VOXELS)
    assert np.array_equal(np.asarray(volume.affine), LPS)
    assert volume.meta["filename_or_obj"] == str(path)
    image = nib.load(path)
    assert torch.equal(load_image(image, 1).as_tensor(), volume.as_tensor())
    assert torch.equal(load_image(Case("a", (path,), None), 1).as_tensor(), volume.as_tensor())


def test_channels_from_files_and_from_the_last_axis_are_the_same(tmp_path, save):
    paths = [save(tmp_path / f"a_{number:04d}.nii.gz", VOXELS + number, LPS) for number in range(2)]
    stacked = save(tmp_path / "a.nii.gz", np.stack([VOXELS, VOXELS + 1], -1), LPS)
    joined, split = load_image(paths, 2), load_image(stacked, 2)
    assert tuple(joined.shape) == (2, 4, 5, 6)
    assert torch.equal(joined.as_tensor(), split.as_tensor())
    assert joined[1, 0, 0, 0] == 1


def test_scaling_in_the_header_is_applied(tmp_path):
    image = nib.Nifti1Image(VOXELS, LPS)
    image.header.set_slope_inter(0.5, -10)
    nib.save(image, tmp_path / "a.nii.gz")
    assert np.allclose(np.asarray(load_image(tmp_path / "a.nii.gz", 1)[0]), VOXELS * 0.5 - 10)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 1, 1)])
def test_flat_scans_are_volumes_of_one_slice(tmp_path, save, shape):
    path = save(tmp_path / "a.nii.gz", VOXELS[:, :, 0].reshape(shape), LPS)
    volume = load_image(path, 1)
    assert tuple(volume.shape) == (1, 4, 5, 1)
    assert np.array_equal(np.asarray(volume[0, :, :, 0]), VOXELS[:, :, 0])
    assert grid_of(path).shape == (4, 5, 1)
    ras = orient(volume)
    assert np.array_equal(restore(np.asarray(ras[0]), "RAS", grid_of(path)), np.asarray(volume[0]))


@pytest.mark.parametrize("codes", [(0, 1), (1, 0), (1, 1)])
def test_affine_comes_from_sform_or_else_qform(tmp_path, codes):
    sform_code, qform_code = codes
    rotated = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.2, 0.1, 0.3) @ np.diag([1, 2, 3]), [5, 6, 7])
    image = nib.Nifti1Image(VOXELS, None)
    image.set_sform(rotated if sform_code else np.eye(4), sform_code)
    image.set_qform(rotated, qform_code)
    nib.save(image, tmp_path / "a.nii.gz")
    assert np.allclose(np.asarray(load_image(tmp_path / "a.nii.gz", 1).affine), rotated, atol=1e-5)


def test_affine_is_nibabels_where_pixdim_disagrees(tmp_path):
    """MONAI's LoadImage takes the qform here, and masks, which nibabel writes, would be shifted against it."""
    image = nib.Nifti1Image(VOXELS, np.diag([2.0, 2.0, 2.0, 1.0]))
    image.set_qform(np.diag([3.0, 3.0, 3.0, 1.0]), 1)
    image.set_sform(np.diag([2.0, 2.0, 2.0, 1.0]), 1, update_affine=False)
    nib.save(image, tmp_path / "a.nii.gz")
    assert np.allclose(np.asarray(load_image(tmp_path / "a.nii.gz", 1).affine), np.diag([2, 2, 2, 1]))
    assert "sform and qform are" in doubts(tmp_path / "a.nii.gz")[0]


def test_without_any_affine_the_spacing_counts_and_the_orientation_is_doubted(tmp_path):
    path = raw_nifti(tmp_path / "a.nii", pixdim=(1, 2, 3))
    assert grid_of(path).spacing == (1, 2, 3)
    assert "neither sform nor qform" in doubts(path)[0]
    assert tuple(load_image(path, 1).shape) == (1, 4, 5, 6)


def test_shear_is_usable_and_doubted(tmp_path, save):
    sheared = LPS.copy()
    sheared[0, 2] = 0.9
    path = save(tmp_path / "a.nii.gz", VOXELS, sheared)
    ras = orient(load_image(path, 1))
    assert np.array_equal(restore(np.asarray(ras[0]), "RAS", grid_of(path)), VOXELS)
    assert "sheared by 16.7 degrees" in doubts(path)[-1]
    assert doubts(save(tmp_path / "b.nii.gz", VOXELS, LPS)) == []


# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("largest", "dtype"), [(2, torch.uint8), (255, torch.uint8), (256, torch.int16), (40000, torch.int32)]
)
@pytest.mark.parametrize("stored", [np.int32, np.float64])
def test_label_type_follows_the_largest_id(tmp_path, save, largest, dtype, stored):
    image = load_image(save(tmp_path / "a.nii.gz", VOXELS), 1)
    array = np.zeros(VOXELS.shape, stored)
    array[1, 2, 3] = largest
    label = load_label(save(tmp_path / "l.nii.gz", array), image, {0: "background", largest: "x"})
    assert (label.dtype, tuple(label.shape)) == (dtype, (1, 4, 5, 6))
    assert int(label[0, 1, 2, 3]) == largest
    assert int((label != 0).sum()) == 1


@pytest.mark.parametrize("stored", [np.uint16, np.uint32, np.int64, np.dtype(">i2")])
def test_labels_of_every_integer_type_are_read(tmp_path, stored):
    image = load_image(nib.Nifti1Image(VOXELS, LPS), 1)
    nib.save(nib.Nifti1Image((VOXELS % 3).astype(stored), LPS, dtype=stored), tmp_path / "l.nii")
    assert np.array_equal(np.asarray(load_label(tmp_path / "l.nii", image, LABELS)[0]), VOXELS % 3)


def test_unknown_and_broken_label_values(tmp_path, save):
    image = load_image(save(tmp_path / "a.nii.gz", VOXELS), 1)
    path = save(tmp_path / "l.nii.gz", np.where(VOXELS == 7, 9, VOXELS % 2).astype(np.int16))
    with refuses(r"l\.nii\.gz: label 9 not in 0, 1, 2; add it to `labels` in dataset\.json, or correct the mask"):
        load_label(path, image, LABELS)
    with refuses("label -1 not in 0, 1, 2"):
        load_label(save(tmp_path / "l.nii.gz", -(VOXELS % 2).astype(np.int16)), image, LABELS)
    with refuses(r"values 0\.5, 1\.5 are not whole numbers; .* nearest neighbour"):
        load_label(save(tmp_path / "l.nii.gz", (VOXELS % 4) / 2.0), image, LABELS)
    for value in (np.nan, np.inf):
        with refuses("are not whole numbers"):
            load_label(save(tmp_path / "l.nii.gz", np.where(VOXELS == 7, value, 0)), image, LABELS)
    with refuses("4-D, expected a 3-D label map"):
        load_label(save(tmp_path / "l.nii.gz", np.zeros((4, 5, 6, 2), np.uint8)), image, LABELS)
    with refuses(r"a\.nii\.gz: no label belongs to it"):
        load_label(None, image, LABELS)


def test_ids_that_are_not_known_before_are_read(tmp_path, save):
    path = save(tmp_path / "l.nii.gz", np.where(VOXELS == 7, 117, VOXELS % 2 * 300).astype(np.int16))
    array, ids = read_ids(path)
    assert (array.shape, array.dtype, ids) == ((4, 5, 6), np.int16, (0, 117, 300))
    floats, ids = read_ids(nib.Nifti1Image((VOXELS % 3).astype(np.float32), LPS))
    assert (floats.dtype, ids) == (np.int64, (0, 1, 2))
    assert np.array_equal(floats, VOXELS % 3)
    assert read_ids(save(tmp_path / "one.nii.gz", VOXELS[..., None] % 2))[0].shape == (4, 5, 6)


def test_ids_that_a_scale_factor_left_beside_whole_numbers_are_rounded(tmp_path, save):
    scaled = nib.Nifti1Image((VOXELS % 3 * 10).astype(np.int16), LPS)
    scaled.header.set_slope_inter(0.1, 0)  # 0.1 is not a float32: 20 reads as 2.00000003
    nib.save(scaled, tmp_path / "l.nii.gz")
    array, ids = read_ids(tmp_path / "l.nii.gz")
    assert (ids, int(array.max())) == ((0, 1, 2), 2)
    image = load_image(save(tmp_path / "i.nii.gz", VOXELS.astype(np.int16), LPS), 1)
    label = load_label(tmp_path / "l.nii.gz", image, {0: "background", 1: "a", 2: "b"})
    assert np.array_equal(np.asarray(label)[0], VOXELS % 3)
    with refuses(r"image 3: label values 0\.5, 1\.5 are not whole numbers"):
        read_ids(nib.Nifti1Image(VOXELS % 4 / 2.0, LPS), "image 3")
    for value in (np.nan, np.inf):
        with refuses("are not whole numbers"):
            read_ids(nib.Nifti1Image(np.where(VOXELS == 7, value, 0), LPS))


def test_label_grid_reads_the_header_alone(tmp_path, save):
    path = save(tmp_path / "l.nii", VOXELS, LPS)
    path.write_bytes(path.read_bytes()[:400])
    assert label_grid(path).matches(Grid((4, 5, 6), LPS))
    with refuses(r"l\.nii: truncated or damaged"):
        read_ids(path)
    with refuses(r"m\.nii\.gz: shape \(4, 5, 6, 2\) is 4-D, expected a 3-D label map"):
        label_grid(save(tmp_path / "m.nii.gz", np.zeros((4, 5, 6, 2), np.uint8)))


def test_label_on_another_grid_names_both_files_and_the_difference(tmp_path, save):
    image = load_image(save(tmp_path / "a.nii.gz", VOXELS, LPS), 1)
    with refuses(r"l\.nii\.gz: not on the grid of .*a\.nii\.gz: shape 3x5x6 against 4x5x6; .* nearest neighbour"):
        load_label(save(tmp_path / "l.nii.gz", VOXELS[1:] % 2, LPS), image, LABELS)
    moved = LPS.copy()
    moved[:3, 3] = 0, 0, 12
    with refuses(r"origin \(0 0 12\) against \(0 0 0\) mm, voxels up to 12 mm apart"):
        load_label(save(tmp_path / "l.nii.gz", VOXELS % 2, moved), image, LABELS)
    with refuses("axes RAS against LPS"):
        load_label(save(tmp_path / "l.nii.gz", VOXELS % 2, np.diag([1, 1.5, 3, 1])), image, LABELS)
    with refuses("spacing 1x1.5x3.5 against 1x1.5x3 mm"):
        load_label(save(tmp_path / "l.nii.gz", VOXELS % 2, np.diag([-1, -1.5, 3.5, 1])), image, LABELS)


def test_a_volume_in_memory_has_its_files_grid(tmp_path, save):
    path = save(tmp_path / "a.nii.gz", VOXELS, LPS)
    assert grid_of(load_image(path, 1)).matches(grid_of(path))


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
        ("scan.mha", plain, "not a supported ending"),
    ]:
        (tmp_path / name).write_bytes(content)
        with refuses(f"{name}: {sentence}") as caught:
            load_image(tmp_path / name, 1)
        assert "\n" not in str(caught.value)
    with refuses(r"gone\.nii\.gz: no such file"):
        load_image(tmp_path / "gone.nii.gz", 1)
    (tmp_path / "folder.nii.gz").mkdir()
    with refuses(r"folder\.nii\.gz: a folder, expected"):
        load_image(tmp_path / "folder.nii.gz", 1)


def test_voxels_that_are_not_finite_are_counted(tmp_path, save):
    array = VOXELS.astype(np.float32)
    array[0, 0, :3], array[1, 1, 1] = np.nan, -np.inf
    with refuses(r"a\.nii\.gz: 4 of 120 voxels are not finite \(3 NaN, 1 infinite\); replace them"):
        load_image(save(tmp_path / "a.nii.gz", array), 1)


def test_dimensions_and_channels_that_do_not_fit(tmp_path, save):
    four = save(tmp_path / "four.nii.gz", np.zeros((4, 5, 6, 3), np.int16))
    with refuses(r"four\.nii\.gz: shape \(4, 5, 6, 3\) is 4-D with 3 channels, expected 1 .* 3-D .* dataset\.json"):
        load_image(four, 1)
    with refuses("with 3 channels, expected 2"):
        load_image(four, 2)
    three = save(tmp_path / "three.nii.gz", VOXELS)
    with refuses(r"three\.nii\.gz: one 3-D volume, expected 2 channels"):
        load_image(three, 2)
    with refuses("2 channel files, expected 3"):
        load_image([three, three], 3)
    with refuses(r"shape \(4, 5, 6, 1, 3\), expected a volume"):
        load_image(save(tmp_path / "five.nii.gz", np.zeros((4, 5, 6, 1, 3), np.int16)), 1)
    with refuses("colour or complex voxels"):
        load_image(save(tmp_path / "rgb.nii.gz", np.zeros((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")])), 1)


def test_channel_files_on_different_grids(tmp_path, save):
    first, second = save(tmp_path / "a_0000.nii.gz", VOXELS), save(tmp_path / "a_0001.nii.gz", VOXELS, LPS)
    with refuses(r"a_0001\.nii\.gz: not on the grid of .*a_0000\.nii\.gz: spacing .*; resample the channels"):
        load_image([first, second], 2)


def test_unusable_affines(tmp_path):
    with refuses(r"its affine \[0 0 0 0; 0 0 0 0; 0 0 0 0\] is singular"):
        grid_of(raw_nifti(tmp_path / "a.nii", sform=np.zeros((3, 4))))
    with refuses(r"its affine .* is singular, .*; write a valid sform or qform"):
        grid_of(raw_nifti(tmp_path / "a.nii", sform=np.full((3, 4), np.nan)))
    with refuses(r"a\.nii: voxel size 0x1x1 mm in its header; write the true size"):
        grid_of(raw_nifti(tmp_path / "a.nii", pixdim=(0, 1, 1)))
    with refuses("voxel size 1x0x1 mm"):
        grid_of(raw_nifti(tmp_path / "a.nii", pixdim=(1, 0, 1), qform_code=1))
    assert grid_of(raw_nifti(tmp_path / "a.nii", pixdim=(0, 0, 0), sform=np.eye(4)[:3])).axcodes == "RAS"
    assert grid_of(raw_nifti(tmp_path / "a.nii", pixdim=(1, 1, 0), shape=(4, 5))).shape == (4, 5, 1)


# --- orientation ------------------------------------------------------------------------------------------------------

ALL_48 = [
    np.eye(3)[list(order)].T * signs
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1.0, -1.0), repeat=3)
]
TARGETS = ["RAS", "LPS", "SAR", "PIR"]


def world_of(volume: MetaTensor) -> dict[float, np.ndarray]:
    """Voxel value -> its position in mm; values are all different."""
    array, affine = np.asarray(volume[0]), np.asarray(volume.affine)
    index = np.argwhere(np.ones(array.shape, bool))
    return dict(zip(array[tuple(index.T)].tolist(), index @ affine[:3, :3].T + affine[:3, 3], strict=True))


def check_round_trip(affine: np.ndarray, axcodes: str) -> None:
    image = nib.Nifti1Image(VOXELS, affine)
    volume = load_image(image, 1)
    oriented = orient(volume, axcodes)
    assert "".join(nib.aff2axcodes(np.asarray(oriented.affine))) == axcodes
    before, after = world_of(volume), world_of(oriented)
    assert all(np.allclose(before[value], after[value], atol=1e-6) for value in before)
    assert np.array_equal(restore(np.asarray(oriented[0]), axcodes, grid_of(volume)), VOXELS)
    assert np.array_equal(restore(np.asarray(oriented[0]), axcodes, volume), VOXELS)


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
        grid = grid_of(odd / row["file"])
        assert "x".join(map(str, grid.shape)) == row["shape"], row["file"]
        assert np.allclose(grid.spacing, [float(value) for value in row["spacing"].split()], atol=1e-3), row["file"]
        assert grid.axcodes == row["axes"], row["file"]
        if not row["file"].startswith("nonfinite"):
            volume = load_image(odd / row["file"], 1)
            low, _, high = row["values"].partition(" values ")[2].partition("..")
            if high:
                assert (float(volume.min()), float(volume.max())) == pytest.approx((float(low), float(high)), rel=1e-3)
        if row["label_for_this_image"] and not row["label_for_this_image"].endswith("heart.nii.gz"):
            label = load_label(odd / row["label_for_this_image"], volume, range(118))
            assert tuple(label.shape) == tuple(volume.shape), row["file"]
            assert label.any(), row["file"]


@pytest.mark.data
def test_sparse_ids_up_to_117_are_kept(odd):
    label = load_label(
        odd / "ct_multiorgan/example_seg.nii.gz", load_image(odd / "ct_multiorgan/example_ct_sm.nii.gz", 1), range(118)
    )
    assert (label.dtype, int(label.max()), len(label.unique())) == (torch.uint8, 117, 42)


@pytest.mark.data
def test_heart_is_refused_as_label_of_the_cropped_scan(odd):
    image = load_image(odd / "grid_mismatch/ct_cropped.nii.gz", 1)
    with refuses(r"heart\.nii\.gz: not on the grid of .*ct_cropped\.nii\.gz: shape 233x167x191 against 122x102x112"):
        load_label(odd / "grid_mismatch/heart.nii.gz", image, (0, 1))
    assert load_label(odd / "grid_mismatch/pulmonary_artery.nii.gz", image, (0, 1)).any()


@pytest.mark.data
@pytest.mark.parametrize(("name", "kind"), [("mtr_inf", "infinite"), ("fmri_tsnr_nan", "NaN")])
def test_scans_that_are_not_finite_are_refused_with_the_number(odd, name, kind):
    path = odd / f"nonfinite/{name}.nii.gz"
    bad = int((~np.isfinite(nib.load(path).get_fdata())).sum())
    with refuses(rf"{name}\.nii\.gz: {bad} of \d+ voxels are not finite \(.*{bad} {kind}"):
        load_image(path, 1)


@pytest.mark.data
def test_four_d_scans_are_refused_or_read_as_channels(odd):
    with refuses(r"dmri\.nii\.gz: shape \(40, 42, 5, 7\) is 4-D"):
        load_image(odd / "four_d/dmri.nii.gz", 1)
    assert tuple(load_image(odd / "four_d/dmri.nii.gz", 7).shape) == (7, 40, 42, 5)
    assert tuple(load_image(odd / "four_d/venc.nii.gz", 3).shape) == (3, 256, 256, 1)


@pytest.mark.data
def test_oblique_prostate_with_qform_only(odd):
    path = odd / "prostate_oblique/Prostatex_0000.nii.gz"
    image = nib.load(path)
    volume = load_image(path, 1)
    assert image.header["sform_code"] == 0
    assert np.allclose(np.asarray(volume.affine), image.header.get_qform())
    assert not np.allclose(np.abs(np.asarray(volume.affine))[:3, :3], np.diag([0.5, 0.5, 3.0]), atol=0.1)
    assert np.array_equal(restore(np.asarray(orient(volume)[0]), "RAS", volume), np.asarray(image.dataobj))


# --- images -----------------------------------------------------------------------------------------------------------


def picture(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]))
@settings(max_examples=40, deadline=None)
def test_an_image_is_a_slice_that_lies_as_it_is_seen_and_comes_back(tmp_path_factory, rows, columns, channels):
    rng = np.random.default_rng(rows * 10 + columns)
    pixels = rng.integers(0, 60, (rows, columns, 3), np.uint8)
    pixels[..., 0] += 100
    pixels = pixels if channels == 3 else pixels[..., 0]
    path = picture(tmp_path_factory.mktemp("image") / "a.png", pixels)
    volume = load_image(path, channels)
    assert (volume.dtype, tuple(volume.shape)) == (torch.float32, (channels, columns, rows, 1))
    assert np.array_equal(np.asarray(volume.affine), np.diag([-1.0, -1.0, 1.0, 1.0]))
    seen = np.asarray(orient(volume, "SPL"))
    assert np.array_equal(seen[:, 0], np.atleast_3d(pixels).transpose(2, 0, 1))
    assert np.array_equal(restore(seen[0], "SPL", volume)[..., 0].T, np.atleast_3d(pixels)[..., 0])
    assert grid_of(path).matches(grid_of(volume))
    assert torch.equal(load_image(pixels, channels).as_tensor(), volume.as_tensor())


def test_a_grey_image_is_repeated_and_a_colour_one_not_made_grey(tmp_path):
    grey = np.arange(20, dtype=np.uint8).reshape(4, 5)
    volume = load_image(picture(tmp_path / "grey.png", grey), 3)
    assert all(np.array_equal(np.asarray(volume)[k, ..., 0].T, grey) for k in range(3))
    colour = picture(tmp_path / "colour.png", np.full((4, 5, 3), (200, 10, 10), np.uint8))
    with refuses(r"colour\.png: a colour image, expected grey; convert it to grey, or train on images"):
        load_image(colour, 1)
    with refuses("the array given: a colour image, expected grey"):
        load_image(np.full((4, 5, 3), (200, 10, 10), np.uint8), 1)


def test_a_mask_has_the_size_and_the_labels_of_its_image(tmp_path):
    image = load_image(picture(tmp_path / "a.png", np.zeros((4, 5), np.uint8)), 1)
    ids = np.zeros((4, 5), np.uint8)
    ids[3, 1] = 255
    label = load_label(picture(tmp_path / "m.png", ids), image, (0, 255))
    assert (label.dtype, tuple(label.shape)) == (torch.uint8, (1, 5, 4, 1))
    assert np.asarray(label)[0, 1, 3, 0] == 255
    with refuses(r"m\.png: label 255 not in 0, 1; add it to `labels` in dataset\.json"):
        load_label(tmp_path / "m.png", image, (0, 1))
    with refuses(r"t\.png: 4x5 pixels, but .*a\.png has 5x4 \(columns x rows\); export the mask at"):
        load_label(picture(tmp_path / "t.png", ids.T.copy()), image, (0, 255))
    array, found = read_ids(tmp_path / "m.png")
    assert (array.shape, found) == ((5, 4, 1), (0, 255))
    assert label_grid(tmp_path / "m.png").shape == (5, 4, 1)
