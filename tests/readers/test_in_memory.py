"""What other libraries hold in memory is read as the same scan in a file would be."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import EnsureChannelFirst, LoadImage
from PIL import Image

from vpt.errors import VptError
from vpt.readers import reader_of
from vpt.readers.in_memory import MetaTensorReader, PillowReader

AFFINE = np.array([[-1.5, 0, 0, 20], [0, 0, 2.5, -7], [0, -0.8, 0, 3], [0, 0, 0, 1]])
VOXELS = np.arange(60, dtype=np.int16).reshape(3, 4, 5)


def nifti(array: np.ndarray = VOXELS) -> nib.Nifti1Image:
    return nib.Nifti1Image(array, AFFINE)


# --- MONAI ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [False, True])
def test_a_meta_tensor_is_the_scan_that_it_was_read_from(tmp_path: Path, first: bool) -> None:
    nib.save(nifti(), tmp_path / "a.nii.gz")
    loaded = LoadImage(image_only=True)(tmp_path / "a.nii.gz")
    reader = reader_of(EnsureChannelFirst()(loaded) if first else loaded)

    voxels, expected = reader.voxels(1), reader_of(tmp_path / "a.nii.gz").voxels(1)

    assert isinstance(reader, MetaTensorReader)
    assert reader.grid().matches(expected.grid)
    np.testing.assert_array_equal(voxels.channels[0].scaled(), expected.channels[0].scaled())
    assert nib.aff2axcodes(reader.mask(VOXELS.astype(np.uint8)).affine) == nib.aff2axcodes(AFFINE)


def test_the_channels_of_a_meta_tensor_come_first() -> None:
    both = np.stack([VOXELS, VOXELS + 100])
    reader = reader_of(MetaTensor(torch.from_numpy(both), affine=torch.from_numpy(AFFINE)))

    assert reader.count_channels() == 2
    np.testing.assert_array_equal(reader.voxels(2).channels[1].scaled(), VOXELS + 100)


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float64])
def test_any_number_type_of_a_meta_tensor_is_read(kind: torch.dtype) -> None:
    tensor = torch.from_numpy(VOXELS).to(kind)
    reader = reader_of(MetaTensor(tensor, affine=torch.from_numpy(AFFINE)))

    np.testing.assert_array_equal(reader.voxels(1).channels[0].scaled(), tensor.double().numpy())


@pytest.mark.parametrize("shape", [(60,), (1, 1, 3, 4, 5)])
def test_a_meta_tensor_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(VptError, match=r"expected \(channels, X, Y, Z\) or \(X, Y, Z\)"):
        reader_of(MetaTensor(torch.from_numpy(VOXELS.reshape(shape)), affine=torch.eye(4))).voxels(1)


@pytest.mark.parametrize("first", [False, True])
def test_a_meta_tensor_of_a_flat_file_is_a_volume_of_one_slice_at_its_place(tmp_path: Path, first: bool) -> None:
    nib.save(nib.Nifti1Image(VOXELS[..., 0], AFFINE), tmp_path / "flat.nii.gz")
    loaded = LoadImage(image_only=True)(tmp_path / "flat.nii.gz")
    reader = reader_of(EnsureChannelFirst()(loaded) if first else loaded)

    assert reader.grid().matches(reader_of(tmp_path / "flat.nii.gz").grid())
    assert reader.grid().shape == (*VOXELS.shape[:2], 1)
    np.testing.assert_array_equal(reader.voxels(1).channels[0].scaled()[..., 0], VOXELS[..., 0])


def test_a_flat_meta_tensor_lies_where_its_affine_says() -> None:
    reader = reader_of(MetaTensor(torch.from_numpy(VOXELS[..., 0]), affine=torch.from_numpy(AFFINE)))
    np.testing.assert_array_equal(reader.grid().affine, AFFINE)
    assert reader.grid().shape == (*VOXELS.shape[:2], 1)


def test_a_slice_that_was_taken_out_of_a_meta_tensor_is_refused(tmp_path: Path) -> None:
    """MONAI leaves it the affine of the volume, which says neither which slice it is nor along which axis."""
    nib.save(nifti(), tmp_path / "a.nii.gz")
    loaded = LoadImage(image_only=True)(tmp_path / "a.nii.gz")

    with pytest.raises(VptError, match=r"a slice of a volume .* keep its axis, tensor\[\.\.\., k : k \+ 1\]"):
        reader_of(loaded[..., 1]).voxels(1)
    assert reader_of(loaded[..., 1:2]).grid().shape == (*VOXELS.shape[:2], 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_meta_tensor_that_may_be_a_slice_with_channels_is_refused(channels: int) -> None:
    """It was read as a volume so many voxels wide, in which nothing was found."""
    tensor = MetaTensor(torch.zeros(channels, 20, 30), affine=torch.from_numpy(AFFINE))
    with pytest.raises(VptError, match=rf"a slice of {channels} channels?, or a volume {channels} wide"):
        reader_of(tensor).voxels(1)


def test_a_narrow_volume_that_its_file_says_is_one_is_read(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((3, 20, 30), np.float32), AFFINE), tmp_path / "a.nii.gz")
    loaded = LoadImage(image_only=True)(tmp_path / "a.nii.gz")
    assert reader_of(loaded).grid().shape == (3, 20, 30)


# --- Pillow -----------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"]), turn=st.integers(1, 8))
def test_a_pillow_image_is_read_as_its_file_is(tmp_path_factory: pytest.TempPathFactory, mode: str, turn: int) -> None:
    grey = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8) * 5)
    image = grey if mode == "L" else grey.convert("I").convert(mode) if mode == "I;16" else grey.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = turn
    path = tmp_path_factory.mktemp("pillow") / "a.tif"
    image.save(path, exif=exif)

    with open(path, "rb") as file, Image.open(file) as opened:
        reader = reader_of(opened)
        found = reader.picture()

    assert isinstance(reader, PillowReader)
    np.testing.assert_array_equal(found, reader_of(path).picture())
    assert reader.grid().matches(reader_of(path).grid())
    assert (reader.count_channels(), reader.is_deep()) == (reader_of(path).count_channels(), reader_of(path).is_deep())


def test_a_turned_tiff_that_pillow_scrambles_is_refused(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).save(tmp_path / "a.tif", exif=exif)

    with Image.open(tmp_path / "a.tif") as opened, pytest.raises(VptError, match="give its path"):
        reader_of(opened).picture()


def test_a_pillow_image_of_a_damaged_file_is_refused_by_its_name(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:2000])

    with Image.open(tmp_path / "a.png") as opened, pytest.raises(VptError, match=r"a\.png: truncated or damaged"):
        reader_of(opened).picture()


# --- a list of channels -----------------------------------------------------------------------------------------------


def test_images_in_memory_are_the_channels_of_a_scan() -> None:
    voxels = reader_of([nifti(), nifti(VOXELS + 100)]).voxels(2)

    np.testing.assert_array_equal(voxels.channels[1].scaled(), VOXELS + 100)


def test_simpleitk_images_are_the_channels_of_a_scan() -> None:
    itk = pytest.importorskip("SimpleITK", reason="SimpleITK, the extra itk, is not installed")
    images = [itk.GetImageFromArray(VOXELS.T + add) for add in (0, 100)]

    np.testing.assert_array_equal(reader_of(images).voxels(2).channels[1].scaled(), VOXELS + 100)


def test_channels_on_different_grids_are_refused() -> None:
    elsewhere = nib.Nifti1Image(VOXELS, AFFINE + np.eye(4)[3] * [[5], [0], [0], [0]])

    with pytest.raises(VptError, match="not on the grid of"):
        reader_of([nifti(), elsewhere]).voxels(2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_a_meta_tensor_without_a_place_is_refused(bad):
    tensor = MetaTensor(torch.zeros(4, 5, 6), affine=torch.full((4, 4), bad))
    with pytest.raises(VptError, match=r"the tensor given: its affine .* is singular"):
        reader_of(tensor).voxels(1)


# --- nibabel ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (nib.Nifti1Image(VOXELS, None), "the image given: no affine, so voxels have no place in space"),
        (nib.Nifti1Image(np.ma.masked_equal(VOXELS, 3), AFFINE), "the image given: masked voxels, whose values are"),
    ],
)
def test_a_nibabel_image_that_leaves_place_or_values_open_is_refused(image: nib.Nifti1Image, sentence: str) -> None:
    with pytest.raises(VptError, match=sentence):
        reader_of(image).voxels(1)
