"""A column `annotated` says which labels of an image somebody has looked for; what contradicts it is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpt.data.check import check_dataset
from vpt.data.layouts import read_labelled, survey_labelled
from vpt.data.looked_for import looked_for_doubts
from vpt.data.slices.slice_stacks import annotated_of


def table(root: Path, *lines: str, header: str = "path,label,annotated") -> Path:
    """A list in which every line's image is there."""
    for number, line in enumerate(lines):
        pixels = np.random.default_rng(number).integers(0, 255, (8, 8), np.uint8)
        Image.fromarray(pixels).save(root / line.split(",")[0])
    (root / "labels.csv").write_text("\n".join([header, *lines]))
    return root


def wrong(root: Path, **wishes: object) -> list[str]:
    return [str(problem).replace(f"{root}/", "") for problem in survey_labelled(root, **wishes)[1]]  # type: ignore[arg-type]


def test_what_was_looked_for_is_read(tmp_path: Path) -> None:
    """Of the first site edema alone, of the second mass alone, of the third both: an empty cell is all."""
    root = table(tmp_path, "a.png,edema,edema", "b.png,,edema", "c.png,mass,mass", "d.png,edema|mass,", "e.png,,all")
    found = read_labelled(root)
    assert (found.target, found.classes) == ("labels", ("edema", "mass"))
    assert [example.annotated for example in found.cases] == [(0,), (0,), (1,), None, None]
    assert "annotated" not in found.columns
    looked = annotated_of(found.cases, 2)
    assert looked is not None
    assert looked.astype(int).tolist() == [[1, 0], [1, 0], [0, 1], [1, 1], [1, 1]]
    assert annotated_of(found.cases[3:], 2) is None


def test_named_in_full_it_is_all(tmp_path: Path) -> None:
    root = table(tmp_path, "a.png,edema,mass|edema", "b.png,mass,edema | mass")
    found = read_labelled(root, target="labels")
    assert not found.is_partly_annotated
    assert annotated_of(found.cases, 2) is None


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    root = table(tmp_path, "a.png,edema,edma", "b.png,mass,edema", "c.png,edema|mass,", "d.png,,fracture")
    assert wrong(root) == [
        "labels.csv: line 2: `annotated` names 'edma', none of the classes; did you mean edema?",
        "labels.csv: line 3: has mass, but is annotated for edema alone; add it to `annotated`, or take the label out",
        "labels.csv: line 5: `annotated` names 'fracture', none of the classes, which are edema, mass",
    ]
    root = table(tmp_path, "a.png,edema,edema", "b.png,mass,", "c.png,edema,")
    (only,) = wrong(root, target="classes")
    assert "line 2: `annotated` names edema, but the target is classes" in only


def test_check_says_it_and_what_nothing_teaches(tmp_path: Path) -> None:
    edema = [f"e{k}.png,edema,edema,train" for k in range(6)]
    mass = [f"m{k}.png,{'mass' * (k % 2)},mass,train" for k in range(6)]
    header = "path,label,annotated,split"
    root = table(tmp_path, *edema, *mass, "v.png,edema,,val", "w.png,mass,cyst,val", header=header)
    check = check_dataset(root)
    assert ("annotated", "edema in 7, mass in 7 of 13 images") in check.facts()
    said = [problem.text for problem in check.problems]
    assert any("line 15: `annotated` names 'cyst', none of the classes, which are edema, mass" in text for text in said)
    assert (
        "edema: every training image that is annotated for it has it, so nothing teaches where it is absent; "
        "name it in `annotated` of images without it"
    ) in said
    assert not any(text.startswith("mass: every") for text in said)


def test_two_lists_may_say_different_things_of_one_image(tmp_path: Path) -> None:
    root = table(tmp_path, "a.png,edema,edema", "b.png,mass,mass", "c.png,,edema", "d.png,edema|mass,")
    Image.open(root / "a.png").save(root / "b.png")
    assert not any("under different labels" in problem.text for problem in check_dataset(root).problems)
    Image.open(root / "a.png").save(root / "c.png")
    assert any("under different labels" in problem.text for problem in check_dataset(root).problems)


def test_doubts_of_a_training(tmp_path: Path) -> None:
    root = table(tmp_path, "a.png,edema,edema", "b.png,,edema", "c.png,mass,mass", "d.png,,mass")
    doubts = list(looked_for_doubts(read_labelled(root), {"training": ["a", "b", "c", "d"], "validation": ["a", "b"]}))
    assert doubts == [
        "annotated for training: edema in 2, mass in 2 of 4 images",
        "annotated for validation: edema in 2, mass in 0 of 2 images",
        "mass: no validation image is annotated for it, so no epoch is chosen by it",
    ]
    whole = read_labelled(table(tmp_path, "a.png,edema,", "b.png,mass,"))
    assert list(looked_for_doubts(whole, {"training": ["a"]})) == []


@pytest.mark.parametrize("cell", ["edema", "edema|edema", " edema "])
def test_blanks_and_repeats_mean_nothing(tmp_path: Path, cell: str) -> None:
    root = table(tmp_path, f"a.png,edema,{cell}", "b.png,mass,")
    assert read_labelled(root).cases[0].annotated == (0,)
