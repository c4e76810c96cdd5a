"""Lists with a column for each class: read where every image is of one, else refused by the columns' names."""

from __future__ import annotations

from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
from PIL import Image

from vpt.data.layouts import read_labelled
from vpt.errors import VptError


def lay(root: Path, header: str, *cells: str, folder: str = "") -> Path:
    """A list with a line for each of `cells` behind the image's path."""
    lines = [header]
    for k, marks in enumerate(cells):
        path = root / folder / f"im{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 9), 20 * k, np.uint8)).save(path)
        lines.append(f"{f'{folder}/' if folder else ''}im{k}.png,{marks}")
    (root / "list.csv").write_text("\n".join(lines) + "\n")
    return root / "list.csv"


@pytest.mark.parametrize("zero", ["0", "0.0"])
def test_every_line_marks_its_class(zero, tmp_path):
    one = "1" if zero == "0" else "1.0"
    found = read_labelled(
        lay(tmp_path, "image,MEL,NV,age,split", f"{one},{zero},40,train", f"{zero},{one},50,val", f"{one},{zero},1,val")
    )

    assert (found.target, found.labels) == ("classes", {0: "MEL", 1: "NV"})
    assert [example.target for example in found.cases] == [(0,), (1,), (0,)]
    assert found.columns == {"age": {"im0": "40", "im1": "50", "im2": "1"}}


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        (
            ("1,0", "1,1"),
            "MEL, NV hold 1 and 0, but several or none may be 1; write a column `label` with the names",
        ),
        (("1,0", "0,0"), "MEL, NV hold 1 and 0, but several or none may be 1;"),
        (
            ("1,", "0,1"),
            "but 1 line has blanks or -1; write a column `label` .* and `annotated` with",
        ),
        (("1,-1.0", "-1.0,1"), "but 2 lines have blanks or -1;"),
        (("1,2", "0,1"), "no column for the label among image, MEL, NV; expected one called label"),
        (("1,yes", "0,no"), "no column for the label among"),
    ],
)
def test_what_is_not_one_class_an_image_is_refused(cells, sentence, tmp_path):
    with pytest.raises(VptError, match=sentence):
        read_labelled(lay(tmp_path, "image,MEL,NV", *cells))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("male,female", "whether it is a man's or a woman's"),
        ("Sex_M,Sex_F", "whether it is a man's or a woman's"),
        ("Left,Right", "of which side it is"),
        ("train,test", "whether it trains"),
        ("male,MEL", ""),
    ],
)
def test_columns_that_say_of_whom_an_image_is_are_no_classes(columns, said, tmp_path):
    source = lay(tmp_path, f"image,{columns}", "1,0", "0,1")
    if not said:
        assert {*read_labelled(source).labels.values()} == {*columns.split(",")}
        return
    with pytest.raises(VptError, match=f"no column for the label; .* hold 1 and 0, but say {said}; write a column"):
        read_labelled(source)


def test_a_column_of_labels_counts_before_others(tmp_path):
    found = read_labelled(lay(tmp_path, "image,label,MEL,NV", "a,1,0", "b,1,0"))

    assert found.labels == {0: "a", 1: "b"}


def test_paths_may_begin_with_the_folder_of_the_list(tmp_path):
    root = tmp_path / "CheXpert-v1.0-small"
    source = lay(root, "Path,a,b", "1,0", "0,1", folder="train")
    source.write_text(source.read_text().replace("train/im", "CheXpert-v1.0-small/train/im"))

    assert len(read_labelled(source).cases) == 2


@pytest.mark.parametrize(("listed", "there"), [("NFC", "NFD"), ("NFD", "NFC")])
@pytest.mark.parametrize("folder", ["", "images/", "deep/er/"])
def test_accents_may_be_letters_of_their_own_in_a_list_or_in_files(listed, there, folder, tmp_path):
    """As macOS takes them apart."""
    source = lay(tmp_path, "path,label", "a", "b", folder=folder)
    for k in range(2):
        file = tmp_path / folder / f"im{k}.png"
        file.rename(file.with_name(normalize(there, f"\u00e9{k}.png")))
    (tmp_path / "list.csv").write_text(
        "path,label\n" + "".join(normalize(listed, f"\u00e9{k}.png,{k}\n") for k in (0, 1))
    )

    assert len(read_labelled(source).cases) == 2


def test_a_path_that_names_no_file_is_told(tmp_path):
    source = lay(tmp_path, "path,label", "a", "b")
    source.write_text(source.read_text().replace("im0.png", "."))

    with pytest.raises(VptError, match=r"line 2: no such file: \., nor images/\."):
        read_labelled(source)
