"""nnU-Net's regions are read as the parts that its own order makes of them, or refused by name."""

from __future__ import annotations

import json

import pytest

from vpt.data.check import check_dataset
from vpt.data.layouts import read_dataset
from vpt.data.layouts.description import labels_of
from vpt.errors import VptError

BRATS = {"background": 0, "whole": [1, 2, 3], "core": [1, 3], "enhancing": 3}


def read(tmp_path, labels, order):
    return labels_of({"labels": labels, "regions_class_order": order}, tmp_path / "dataset.json")


def test_every_value_is_of_the_last_region_that_has_it(tmp_path):
    assert read(tmp_path, BRATS, [2, 1, 3]) == {0: "background", 1: "core (rest)", 2: "whole (rest)", 3: "enhancing"}
    kits = {"background": 0, "kidney": [1, 2, 3], "mass": [2, 3], "tumour": [2], "ignore": 4}
    assert read(tmp_path, kits, [1, 3, 2]) == {
        0: "background",
        1: "kidney (rest)",
        2: "tumour",
        3: "mass (rest)",
        4: "ignore",
    }


def test_an_order_without_regions_that_overlap_changes_nothing(tmp_path):
    assert read(tmp_path, {"background": 0, "lung": [1, 2], "liver": 5}, [1, 5]) == {
        0: "background",
        1: "lung",
        2: "lung",
        5: "liver",
    }


@pytest.mark.parametrize(
    ("labels", "order", "sentence"),
    [
        (BRATS, [1, 2], r"`regions_class_order` \[1, 2\], expected a whole number for each of whole, core, enhancing"),
        (BRATS, "1 2 3", "expected a whole number for each of whole, core, enhancing"),
        (BRATS, ["1", "2", "3"], "expected a whole number for each of whole, core, enhancing"),
        (BRATS, [1, 2.0, 3], "expected a whole number for each"),
        (BRATS, [True, 2, 3], "expected a whole number for each"),
        (BRATS, [1, 2, 3], "writes whole as 1, but of its values 2 are left to it; write 2 there"),
        ({"enhancing": 3, "whole": [1, 2, 3]}, [3, 1], "leave nothing of enhancing; put the larger region first"),
    ],
)
def test_what_makes_no_parts_is_refused(tmp_path, labels, order, sentence):
    with pytest.raises(VptError, match=sentence):
        read(tmp_path, labels, order)


def test_check_and_training_say_what_became_of_them_and_a_map_joins_them_again(make_dataset):
    root = make_dataset()
    content = json.loads((root / "dataset.json").read_text())
    content |= {"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2]}
    (root / "dataset.json").write_text(json.dumps(content))
    check = check_dataset(root)
    assert check.ok
    assert [label.name for label in check.labels] == ["whole (rest)", "core"]
    assert check.guess == (
        "regions that overlap are read as parts that do not, in the order of `regions_class_order`: 1 whole (rest), "
        "2 core; scores are of these parts, a region is their union"
    )
    joined = check_dataset(root, labels={"whole": [1, 2]})
    assert [(label.name, label.cases) for label in joined.labels] == [("whole", 4)]
    assert read_dataset(root).labels == {0: "background", 1: "whole (rest)", 2: "core"}
