"""What the viewer is given is the scan on its own grid, masks with their labels by name, and where two differ most."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from vpt.errors import VptError
from vpt.view.scenes import ViewedCase, find_cases, make_scene

LPS = np.diag([-1.0, -1.5, 3.0, 1.0])


@pytest.fixture
def case(tmp_path, save) -> ViewedCase:
    scan = save(tmp_path / "images/a.nii.gz", np.arange(240, dtype=np.int16).reshape(8, 6, 5), LPS)
    mask = np.zeros((8, 6, 5), np.uint16)
    mask[2:5, 2:4, 1:3], mask[0, 0, 0] = 7, 300
    truth = save(tmp_path / "truth/a.nii.gz", mask, LPS)
    mask = mask.copy()
    mask[2:5, 2:4, 1:2] = 0
    found = save(tmp_path / "found/a.nii.gz", mask, LPS)
    return ViewedCase("a", (scan,), (truth, found))


def read(data: bytes) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(data)


def test_the_scan_keeps_values_type_and_place(case) -> None:
    scan = read(make_scene(case, None).scan)
    np.testing.assert_array_equal(scan.dataobj, np.arange(240).reshape(8, 6, 5))
    np.testing.assert_allclose(scan.affine, LPS)
    assert scan.get_data_dtype() == np.int16


def test_labels_are_numbered_from_one_with_their_ids_and_names_beside(case) -> None:
    layer = make_scene(case, {0: "background", 7: "tumour"}).layers[0]
    assert [(id, name) for id, name, _ in layer.labels] == [(7, "tumour"), (300, "300")]
    assert len({colour for _, _, colour in layer.labels}) == 2
    found = np.asarray(read(layer.data).dataobj)
    assert (found[2, 2, 1], found[0, 0, 0], found[7, 5, 4]) == (1, 2, 0)


def test_names_come_from_a_dataset_json_beside_the_masks(case, tmp_path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "liver": 7, "cyst": 300}}))
    first, second = make_scene(case, None).layers
    assert [name for _, name, _ in first.labels] == ["liver", "cyst"]
    assert {a[2] for a in first.labels}.isdisjoint({b[2] for b in second.labels})  # both can be told apart


def test_masks_of_one_name_are_called_with_their_folders(case) -> None:
    assert [layer.name for layer in make_scene(case, None).layers] == ["truth/a.nii.gz", "found/a.nii.gz"]


def test_the_largest_difference_is_a_place_in_mm(case) -> None:
    (x, y, z), words = make_scene(case, None).error
    assert (-x in (2, 3, 4), -y in (3, 4.5), z) == (True, True, 3)  # voxels 2 to 4, 2 to 3, and 1 by the affine
    assert words == "7, 0.027 ml"  # of two labels that one


def test_the_difference_is_that_of_the_label_in_which_they_agree_least(case, tmp_path, save) -> None:
    lost = np.asarray(nib.load(case.masks[1]).dataobj).copy()
    lost[0, 0, 0] = 0
    other = save(tmp_path / "lost/a.nii.gz", lost, LPS)
    place, words = make_scene(ViewedCase("a", case.scan, (case.masks[0], other)), {7: "tumour", 300: "cyst"}).error
    assert (place, words) == ((0, 0, 0), "cyst, 0.0045 ml")


def test_equal_masks_have_no_difference(case) -> None:
    assert make_scene(ViewedCase("a", case.scan, (case.masks[0],) * 2), None).error is None
    assert make_scene(ViewedCase("a", case.scan, case.masks[:1]), None).error is None


def test_a_picture_keeps_its_colours(tmp_path) -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[1, 2] = (200, 100, 50)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    scene = make_scene(ViewedCase("p", (tmp_path / "p.png",), ()), None)
    scan = np.asarray(read(scene.scan).dataobj)
    assert (scan.shape, tuple(scan[2, 1, 0])) == ((6, 4, 1), (200, 100, 50))
    assert (scene.unit, scene.flat) == ("px", True)


@pytest.mark.data
def test_a_dicom_series_is_shown_where_it_lies(data_root) -> None:
    (case,) = find_cases(data_root / "odd_volumes/dicom_oriented", [])
    scan = read(make_scene(case, None).scan)
    assert scan.shape[2] == 3
    assert np.isfinite(scan.affine).all()


def test_a_scan_given_as_a_mask_and_a_mask_elsewhere_are_refused(case, tmp_path, save) -> None:
    noise = np.random.default_rng(0).integers(0, 5000, (8, 6, 50)).astype(np.int16)
    scan = save(tmp_path / "b.nii.gz", noise, LPS)
    with pytest.raises(VptError, match=r"b.nii.gz: \d+ values, expected 1000 labels at most; is this a scan"):
        make_scene(ViewedCase("b", (scan,), (scan,)), None)
    with pytest.raises(VptError, match="not on the grid of"):
        make_scene(ViewedCase("b", (scan,), case.masks[:1]), None)


def test_masks_in_folders_belong_to_the_scans_of_their_names(case, tmp_path, save) -> None:
    save(tmp_path / "images/b.nii.gz", np.zeros((8, 6, 5), np.int16), LPS)
    found = find_cases(tmp_path / "images", [tmp_path / "truth", tmp_path / "found"])
    assert [(each.name, [path.parent.name for path in each.masks]) for each in found] == [
        ("a", ["truth", "found"]),
        ("b", []),
    ]


def test_masks_of_other_names_belong_to_the_scans_of_their_ids(tmp_path, save) -> None:
    for name in ("images/p1_T1", "images/p2_T1", "images/p3_T1", "images/p3_T2", "masks/p1_seg", "masks/p3_seg"):
        save(tmp_path / f"{name}.nii.gz", np.zeros((8, 6, 5), np.uint8), LPS)
    found = find_cases(tmp_path / "images", [tmp_path / "masks"])
    assert {each.name: [path.name for path in each.masks] for each in found} == {
        "p1_T1": ["p1_seg.nii.gz"],
        "p2_T1": [],
        "p3_T1": [],  # of two scans of one patient nobody knows which the mask is of
        "p3_T2": [],
    }


def test_what_does_not_fit_together_is_said(case, tmp_path, save) -> None:
    save(tmp_path / "images/b.nii.gz", np.zeros((8, 6, 5), np.int16), LPS)
    with pytest.raises(VptError, match="one mask for 2 scans"):
        find_cases(tmp_path / "images", [case.masks[0]])
    with pytest.raises(VptError, match="no such file"):
        find_cases(tmp_path / "images", [tmp_path / "nowhere"])
    (tmp_path / "others").mkdir()
    save(tmp_path / "others/x.nii.gz", np.zeros((8, 6, 5), np.uint8), LPS)
    with pytest.raises(VptError, match="no mask is called like one of the scans"):
        find_cases(tmp_path / "images", [tmp_path / "others"])
