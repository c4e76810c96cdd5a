"""A file that its format cannot read is called what it is by its content, whatever its name says."""

from __future__ import annotations

import errno
import gzip
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from vpt.errors import VptError
from vpt.readers import reader_of
from vpt.readers.content import other_content
from vpt.readers.damage import spoiled

VOLUME = nib.Nifti1Image(np.ones((3, 3, 3), np.int16), np.eye(4)).to_bytes()
PACKED = gzip.compress(VOLUME, mtime=0)


def picture(kind: str) -> bytes:
    stream = BytesIO()
    Image.new("L", (4, 4)).save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.nii.gz", picture("PNG"), "a PNG image by its content, not what its name says; rename it to .png"),
        ("a.nii", picture("JPEG"), "a JPEG image by its content, not what its name says; rename it to .jpg"),
        (
            "a.nii",
            PACKED,
            "a NIfTI volume, packed with gzip, by its content, not what its name says",
        ),
        ("a.nii.gz", VOLUME, "a NIfTI volume by its content, not what its name says; rename it to .nii"),
        ("a.png", VOLUME, "a NIfTI volume by its content"),
        ("a.dcm", PACKED, "a NIfTI volume, packed with gzip, by its content"),
        ("a.nrrd", VOLUME, "a NIfTI volume by its content"),
        ("a.mha", picture("TIFF"), "a TIFF image by its content"),
        (
            "a.nii",
            bytes(128) + b"DICM" + bytes(300),
            "a DICOM file by its content, not what its name says",
        ),
        (
            "DICOMDIR",
            bytes(128) + b"DICM" + bytes(300),
            "lists the DICOM files of a disk, and is no scan; give the folder",
        ),
        ("a.nii.gz", b"NRRD0004\n", "a NRRD volume by its content"),
        ("a.nii.gz", b"<!DOCTYPE html><html>", "a web page, as a failed download leaves it; download the file again"),
        ("a.png", b"<html>", "a web page, as a failed download leaves it; download the file again"),
        (
            "a.nii",
            b"version https://git-lfs.github.com/spec/v1\n",
            "a pointer of Git LFS and not the file itself",
        ),
    ],
)
def test_a_file_of_another_format_is_refused_by_what_it_is(tmp_path, name, content, sentence):
    if name.endswith((".nrrd", ".mha")):
        pytest.importorskip("SimpleITK")
    (tmp_path / name).write_bytes(content)

    with pytest.raises(VptError) as refused:
        reader_of(tmp_path / name).voxels(1)

    assert str(refused.value).startswith(f"{tmp_path / name}: {sentence}")


@pytest.mark.parametrize(
    ("name", "content"), [("a.png", picture("PNG")), ("a.nii.gz", PACKED), ("a.nii", b"hello"), ("a", b"")]
)
def test_of_a_file_that_is_what_its_name_says_or_unknown_nothing_is_said(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert other_content(tmp_path / name) is None
    assert other_content(tmp_path / "missing.nii") is None


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that the system does not give")
def test_what_the_system_does_not_give_is_not_called_damaged(tmp_path):
    (tmp_path / "a.nii").symlink_to("/proc/self/mem")
    said = r"a\.nii: cannot be read \(Input/output error\); have the permission given, or look after its disk"
    with pytest.raises(VptError, match=said):
        raise other_content(tmp_path / "a.nii")
    with pytest.raises(VptError, match=said):
        raise spoiled(tmp_path / "a.nii", OSError(errno.EIO, "Input/output error"))
