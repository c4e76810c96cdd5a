"""Headers that other programs would refuse or read otherwise: said by name, and masks that carry none of it."""

from __future__ import annotations

import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

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
