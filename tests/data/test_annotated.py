"""Labels that only some cases were annotated for: how it is said, what is refused, what training is given."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from vpt.data.annotated import keep_labels
from vpt.data.check import check_dataset
from vpt.data.layouts import read_dataset, write_description
from vpt.data.plan import Percentiles, Plan
from vpt.data.slices.cached_slices import PreparedCase, prepare_cases
from vpt.data.slices.drawing import SliceDataset, SliceDraw, annotated_classes
from vpt.data.transforms import identity
from vpt.errors import VptError
from vpt.progress import silent

PLAN = Plan(
    plane="axial", pixel_mm=None, image_size=16, neighbours=True, channels=("MR0",), intensity=(Percentiles(),)
)  # fmt: skip


def say(root: Path, **more: Any) -> Path:
    path = root / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | more))
    return root


@pytest.fixture
def partly(make_dataset: Callable[..., Path]) -> Path:
    """Four cases: case_00 annotated for rim, case_01 for core, the others for both."""
    root = make_dataset()
    for name, left in (("case_00", 1), ("case_01", 2)):
        path = root / f"labelsTr/{name}.nii.gz"
        image: Any = nib.load(path)
        label = np.asarray(image.dataobj)
        nib.save(nib.Nifti1Image(label * (label == left), image.affine), path)
    return say(root, annotated={"case_00": ["rim"], "case_01": ["core", "background"]})


def said_by(root: Path, labels: Any = None) -> dict[str, frozenset[int] | None]:
    return {case.name: case.annotated for case in read_dataset(root, None, labels).cases}


def test_dataset_json_says_it_case_by_case(partly: Path) -> None:
    assert said_by(partly) == {"case_00": {1}, "case_01": {2}, "case_02": None, "case_03": None}
    assert read_dataset(partly).is_partly_annotated
    assert not read_dataset(say(partly, annotated={"case_02": ["core", "rim"], "case_00": "all"})).is_partly_annotated
    found = check_dataset(say(partly, annotated={"case_00": ["rim"], "case_01": ["core"]}))
    assert ("annotated", "rim in 3, core in 3 of 4 cases") in found.facts()
    assert found.ok


def listed(root: Path, cells: list[Any], kind: str = "csv") -> Path:
    """The cases in a list with those cells in its column `annotated`."""
    rows = [
        {"image": f"imagesTr/{name}_0000.nii.gz", "mask": f"labelsTr/{name}.nii.gz", "case": name, "annotated": cell}
        for name, cell in zip((f"case_0{k}" for k in range(4)), cells, strict=True)
    ]
    path = root / f"list.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        lines = [",".join(rows[0]), *(",".join(f'"{cell}"' for cell in row.values()) for row in rows)]
        path.write_text("\n".join(lines))
    return path


def test_a_column_of_a_list_says_it(partly: Path) -> None:
    content = json.loads((partly / "dataset.json").read_text())
    (partly / "dataset.json").write_text(json.dumps({"labels": content["labels"]}))
    expected = {"case_00": {1}, "case_01": {2}, "case_02": None, "case_03": None}
    assert said_by(listed(partly, ["rim", "core", "rim; core", "all"])) == expected
    assert said_by(listed(partly, ["rim", "core", "rim|core", "all"])) == expected
    assert said_by(listed(partly, [["rim"], ["core"], ["core", "rim"], "rim, core"], "jsonl")) == expected
    with pytest.raises(VptError, match=r"the column `annotated` names no label for case_02; name them, write `all`"):
        read_dataset(listed(partly, ["rim", "core", "", "all"]))
    said = listed(partly, ["rim", "core", "all", "all"])
    (partly / "dataset.json").write_text(json.dumps({"labels": content["labels"], "annotated": {"case_00": ["core"]}}))
    with pytest.raises(VptError, match=r"says otherwise of case_00 than .*dataset.json; say it in one place"):
        read_dataset(said)


def test_what_is_written_down_says_it_too(partly: Path) -> None:
    dataset = read_dataset(partly)
    (partly / "dataset.json").unlink()
    write_description(dataset, Path("dataset.json"))
    assert said_by(partly) == {"case_00": {1}, "case_01": {2}, "case_02": None, "case_03": None}


@pytest.mark.parametrize(
    ("annotated", "said"),
    [
        ({"case_0": ["rim"]}, r"names the case 'case_0', which is not there; did you mean"),
        ({"case_00": ["rin"]}, r"names for case_00 'rin', none of the labels; did you mean rim"),
        ({"case_00": ["liver"]}, r"names for case_00 'liver', none of the labels, which are rim, core"),
        ({"case_00": [1]}, r"that of case_00 is \[1\]; expected"),
        ({"case_00": []}, r"names no label for case_00; name them, write `all`, or leave the case out"),
        (["rim"], r"`annotated` is no object; expected"),
    ],
)
def test_slips_are_refused_by_name(partly: Path, annotated: Any, said: str) -> None:
    say(partly, annotated=annotated)
    with pytest.raises(VptError, match=said):
        read_dataset(partly)


def test_a_mask_with_a_label_that_its_case_does_not_declare_is_refused(partly: Path, tmp_path: Path) -> None:
    say(partly, annotated={"case_00": ["rim"], "case_02": ["core"]})
    said = "holds rim, but the case case_02 is annotated for core alone; add it to `annotated`, or take it out"
    assert any(said in problem.text for problem in check_dataset(partly).errors)
    dataset = read_dataset(partly)
    with pytest.raises(VptError, match=said):
        prepare_cases(dataset, dataset.cases, PLAN, tmp_path / "cache", silent)


def test_labels_that_are_joined_are_annotated_together_or_not_at_all(partly: Path) -> None:
    with pytest.raises(VptError, match="both joins labels of which core is not annotated in case_00"):
        said_by(partly, {"both": ["rim", "core"]})
    say(partly, annotated={"case_00": ["rim"]})
    assert said_by(partly, {"edge": "rim"})["case_00"] == {1}
    assert said_by(partly, {"background": ["core"]})["case_00"] is None  # core is no label then
    assert said_by(partly, {"ignore": ["core"]})["case_00"] is None


def test_further_labels_are_annotated_in_no_case(partly: Path) -> None:
    dataset = read_dataset(partly)
    more = keep_labels(dataset, ["core", "vessel"])
    assert more.labels == {0: "background", 1: "rim", 2: "core", 3: "vessel"}
    assert [case.annotated for case in more.cases] == [{1}, {2}, {1, 2}, {1, 2}]
    assert keep_labels(dataset, ["core"]) is dataset


def test_a_sample_says_what_its_case_was_annotated_for(partly: Path, tmp_path: Path) -> None:
    dataset = read_dataset(partly)
    prepared: list[PreparedCase] = prepare_cases(dataset, dataset.cases, PLAN, tmp_path / "cache", silent)
    table = annotated_classes(prepared, 3)
    assert table.tolist() == [[True, True, False], [True, False, True], [True] * 3, [True] * 3]
    samples = SliceDataset(prepared, PLAN, identity, annotated=table)
    assert [samples[SliceDraw(case, 2, 0)][-1].tolist() for case in (0, 1)] == table[:2].tolist()
    assert torch.equal(SliceDataset(prepared, PLAN, identity)[SliceDraw(0, 2, 0)][1], samples[SliceDraw(0, 2, 0)][1])
