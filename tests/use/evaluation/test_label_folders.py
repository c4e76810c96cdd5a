"""References with a mask for each label in the folder of each case, as TotalSegmentator's."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from vpt.data.layouts import survey
from vpt.errors import VptError
from vpt.readers import LabelFiles
from vpt.use.evaluation.label_folders import mask_at
from vpt.use.evaluation.pairing import pair_masks
from vpt.use.evaluation.pairs import Matched

ORGANS = ("liver", "spleen", "vertebrae_L1")


def put(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


@pytest.fixture
def references(tmp_path: Path) -> Path:
    organs = [f"s000{n}/segmentations/{organ}.nii.gz" for n in range(3) for organ in ORGANS]
    return put(tmp_path / "truth", *organs, *(f"s000{n}/ct.nii.gz" for n in range(3)))


def cases(matched: Matched) -> list[str]:
    return [pair.case for pair in matched.pairs]


def organs(pair_side: object) -> dict[str, int]:
    assert isinstance(pair_side, LabelFiles)
    return {path.name: id for path, id in pair_side.masks}


@pytest.mark.parametrize("name", ["s000{}.nii.gz", "s000{}/ct.nii.gz", "s000{}_ct_pred.nii.gz"])
@pytest.mark.parametrize("scans", [True, False])
def test_label_maps_are_paired_with_the_folders_of_their_cases(references, name, scans, tmp_path):
    if not scans:
        for path in references.glob("*/ct.nii.gz"):
            path.unlink()

    matched = pair_masks(put(tmp_path / "pred", name.format(0), name.format(2)), references)

    assert cases(matched) == ["s0000", "s0002"]
    assert organs(matched.pairs[0].reference.source) == {f"{organ}.nii.gz": n for n, organ in enumerate(ORGANS, 1)}
    assert matched.pairs[0].reference.shown == str(references / "s0000/segmentations")
    assert matched.missing == ("s0001",)
    assert matched.labels == dict(enumerate(ORGANS, 1))
    assert "numbered 1 liver, 2 spleen, 3 vertebrae_L1" in matched.said


@pytest.mark.parametrize("inside", ["segmentations/", ""])
def test_organs_are_paired_with_organs_and_others_are_named(references, inside, tmp_path):
    names = [f"s000{n}/{inside}{organ}.nii.gz" for n in (0, 2) for organ in (*ORGANS, "heart")]

    matched = pair_masks(put(tmp_path / "pred", *names), references)

    assert cases(matched) == ["s0000", "s0002"]
    mine, true = (organs(each.source) for each in (matched.pairs[0].prediction, matched.pairs[0].reference))
    assert mine == true
    assert "not scored, since no reference has it: heart" in matched.said


def test_a_prediction_whose_case_is_not_there_is_refused(references, tmp_path):
    for names in (["s0000.nii.gz", "s0009.nii.gz"], [f"{s}/{o}.nii.gz" for s in ("s0000", "s0009") for o in ORGANS]):
        with pytest.raises(VptError, match="no reference for s0009"):
            pair_masks(put(tmp_path / f"pred{len(names)}", *names), references)


def test_dataset_json_numbers_the_labels(references, tmp_path):
    predictions = put(tmp_path / "pred", "s0000.nii.gz")
    labels = {"background": 0, "vertebrae_L1": 1, "liver": 2, "spleen": 7}
    (references / "dataset.json").write_text(json.dumps({"labels": labels}))

    assert pair_masks(predictions, references).labels == {1: "vertebrae_L1", 2: "liver", 7: "spleen"}

    (references / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "liver": 1, "spleen": 2}}))
    with pytest.raises(VptError, match="`labels` names no vertebrae_L1, of which there are masks"):
        pair_masks(predictions, references)


def test_a_label_that_is_numbered_as_the_background_is_refused(references, tmp_path):
    """Else its masks would count as nothing."""
    (references / "dataset.json").write_text(json.dumps({"labels": {name: n for n, name in enumerate(ORGANS)}}))
    said = "0 is always the background, but it is liver, of which there are masks; write that with an id from 1 on"
    with pytest.raises(VptError, match=said):
        pair_masks(put(tmp_path / "pred", "s0000.nii.gz"), references)

    names = [f"{case}_{kind}.nii.gz" for case in "ABC" for kind in ("ct", "liver_mask", "spleen_mask")]
    root = put(tmp_path / "by_name", *names)
    (root / "dataset.json").write_text(json.dumps({"labels": {"liver": 0, "spleen": 1}}))
    with pytest.raises(VptError, match=said):
        survey(root)


def test_a_label_that_a_case_lacks_is_refused_until_it_is_said_who_looked(references, tmp_path):
    (references / "s0001/segmentations/spleen.nii.gz").unlink()
    predictions = put(tmp_path / "pred", "s0001.nii.gz")
    with pytest.raises(VptError, match="s0001 has masks of liver, vertebrae_L1, but none of spleen"):
        pair_masks(predictions, references)

    (references / "dataset.json").write_text(json.dumps({"annotated": {"s0001": ["liver", "vertebrae_L1"]}}))

    assert organs(pair_masks(predictions, references).pairs[0].reference.source) == {
        "liver.nii.gz": 1,
        "vertebrae_L1.nii.gz": 3,
    }


@pytest.mark.parametrize(
    "names",
    [
        ("train/labels/0.nii.gz", "train/labels/1.nii.gz", "val/labels/0.nii.gz", "val/labels/1.nii.gz"),
        ("A/labels/p1.nii.gz", "A/labels/p2.nii.gz", "B/labels/p1.nii.gz", "B/labels/p2.nii.gz"),
        ("A/labels/anna.nii.gz", "A/labels/bert.nii.gz", "B/labels/carl.nii.gz", "B/labels/dora.nii.gz"),
        ("A/labels/anna.nii.gz", "A/labels/bert.nii.gz"),
        ("A/seg/ED.nii.gz", "A/seg/ES.nii.gz", "B/seg/ED.nii.gz", "B/seg/ES.nii.gz"),
        ("A/masks/pre.nii.gz", "A/masks/post.nii.gz", "B/masks/pre.nii.gz", "B/masks/post.nii.gz"),
    ],
)
def test_folders_of_cases_are_none_of_labels(names, tmp_path):
    matched = pair_masks(put(tmp_path / "pred", *names), put(tmp_path / "truth", *names))

    assert sorted(cases(matched)) == sorted(name.removesuffix(".nii.gz") for name in names)
    assert matched.labels == {}


@pytest.mark.parametrize(
    ("second", "are_labels"),
    [("on the first", False), ("inside the first", False), ("of several values", False), ("beside it", True)],
)
def test_masks_that_are_called_alike_and_lie_on_each_other_are_none_of_labels(second, are_labels, tmp_path):
    """Such as those of two readers, of the heart filled and empty, or of a tumour in its organ."""
    one, other = np.zeros((2, 8, 8, 4), np.uint8)
    one[:4] = other[{"on the first": slice(4), "inside the first": slice(1, 2)}.get(second, slice(4, 7))] = 1
    if second == "of several values":
        other[5:] = 2
    for side in ("pred", "truth"):
        for case in "AB":
            (folder := tmp_path / side / case / "masks").mkdir(parents=True)
            nib.save(nib.Nifti1Image(one, np.eye(4)), folder / "anna.nii.gz")
            nib.save(nib.Nifti1Image(other, np.eye(4)), folder / "bert.nii.gz")

    matched = pair_masks(tmp_path / "pred", tmp_path / "truth")

    assert len(cases(matched)) == (2 if are_labels else 4)
    assert bool(matched.labels) == are_labels


@pytest.mark.parametrize("names", [("ED", "ES"), ("pre", "post"), ("000", "001")])
def test_masks_of_visits_and_slices_are_no_labels_of_a_map(names, tmp_path):
    truth = put(tmp_path / "truth", *(f"{case}/masks/{name}.nii.gz" for case in "AB" for name in names))

    with pytest.raises(VptError, match="no reference for any mask"):
        pair_masks(put(tmp_path / "pred", "A.nii.gz", "B.nii.gz"), truth)


def test_masks_called_as_the_scans_beside_them_are_of_cases(tmp_path):
    masks = [f"{case}/masks/{view}.nii.gz" for case in "AB" for view in ("chamber", "valve")]
    truth = put(tmp_path / "truth", *masks, *(name.replace("masks/", "") for name in masks))

    assert pair_masks(put(tmp_path / "pred", *masks), truth).labels == {}


def test_a_scored_folder_is_read_by_the_names_of_its_labels(references):
    folder = references / "s0000/segmentations"

    assert organs(mask_at(folder, {4: "spleen", 5: "liver", 6: "heart"})) == {"spleen.nii.gz": 4, "liver.nii.gz": 5}
    assert mask_at(folder / "liver.nii.gz", {1: "liver"}) == folder / "liver.nii.gz"
    assert mask_at(folder, {1: "heart"}) == folder
