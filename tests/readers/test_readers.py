"""One look-up tells which reader a scan has; each says all that others may know of its format."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from vpt.errors import VptError
from vpt.readers import READERS, endings, format_of, reader_of
from vpt.readers.array import ArrayReader
from vpt.readers.metaimage import MetaImageReader
from vpt.readers.nifti import NiftiReader
from vpt.readers.nrrd import NrrdReader
from vpt.readers.pair import PairReader
from vpt.readers.picture import PictureReader
from vpt.words import with_article

NIFTI = nib.Nifti1Image(np.zeros((2, 3, 4), np.uint8), np.eye(4))
PIXELS = np.zeros((3, 4), np.uint8)


@pytest.mark.parametrize(
    ("source", "reader"),
    [
        ("a.nii.gz", NiftiReader),
        (Path("a.NII"), NiftiReader),
        (["a_0000.nii.gz", "a_0001.nii.gz"], NiftiReader),
        (NIFTI, NiftiReader),
        ((NIFTI,), NiftiReader),
        ("a.png", PictureReader),
        ([Path("A.JPEG")], PictureReader),
        (PIXELS, ArrayReader),
        ([PIXELS], ArrayReader),
        ("scan.mgz", NiftiReader),  # which refuses it when it is read
        ("scan.mha", MetaImageReader),
        ("scan.NRRD", NrrdReader),
        (["a_0000.nhdr", "a_0001.nhdr"], NrrdReader),
        ("scan.img", PairReader),
        ("._a.nii.gz", NiftiReader),
    ],
)
def test_the_reader_of_a_scan_by_its_name_or_type(source, reader):
    assert type(reader_of(source)) is reader


@pytest.mark.parametrize("source", [{}, 3, None, object()])
def test_what_is_no_scan_is_refused_by_its_type(source):
    kind = with_article(type(source).__name__)
    with pytest.raises(VptError, match=f"^{kind} is no scan; give a path, a list of channel files, "):
        reader_of(source)


@pytest.mark.parametrize(
    ("source", "kinds"),
    [([], "nothing in it"), ([PIXELS, PIXELS], "ndarray"), ([NIFTI, PIXELS], "Nifti1Image, ndarray")],
)
def test_several_that_are_no_channels_of_a_scan_are_called_by_their_types(source, kinds):
    with pytest.raises(VptError, match=f"{re.escape(f'({kinds})')} is no scan; of several, give the channels of one"):
        reader_of(source)


def test_a_nibabel_image_that_is_no_nifti_holds_labels_but_is_no_scan():
    image = nib.MGHImage(np.ones((2, 3, 4), np.uint8), np.eye(4))
    assert reader_of(image).labels().ids == (1,)
    with pytest.raises(VptError, match="a MGHImage is no scan"):
        reader_of(image).voxels(1)


def test_several_pictures_are_no_scan_of_channels(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    with pytest.raises(VptError, match=r"a\.png: not a supported ending, supported are"):
        reader_of([tmp_path / "a.png", tmp_path / "b.png"]).voxels(2)


def test_every_format_has_endings_and_units_of_its_own():
    claimed = [ending for reader in READERS for ending in reader.endings]
    assert len(set(claimed)) == len(claimed)
    for reader in READERS:
        assert all(format_of(Path(f"a{ending}")) is reader for ending in reader.endings)
        assert (reader.unit == "mm") == (reader.kind == "volumes")
        assert format_of(Path(f"mask{reader.mask_endings[0]}")).kind == reader.kind
    assert endings("volumes") == (
        (".nii.gz", ".nii", ".hdr", ".img", ".nrrd", ".nhdr", ".mha", ".mhd", ".npz", ".dcm", ".dicom", ".ima", ".zip")
    )
    assert set(endings()) == set(claimed)
    assert format_of(Path("._a.nii.gz")) is format_of(Path(".a.png")) is format_of(Path("a.mgz")) is None


def test_a_reader_is_called_by_its_file_or_as_it_is_told():
    assert reader_of("a.nii").name == "a.nii"
    assert reader_of(["a_0000.nii", "a_0001.nii"]).name == "a_0000.nii"
    assert (reader_of(NIFTI).name, reader_of(PIXELS).name) == ("the image given", "the array given")
    assert reader_of(NIFTI, "image 3").name == "image 3"
