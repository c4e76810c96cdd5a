"""Groups of a training: who is in them, by which an epoch is chosen, and what is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vpt.data.grouped import Groups, read_groups
from vpt.data.labelled import Example, LabelledSet
from vpt.data.splits import Splits
from vpt.errors import VptError
from vpt.fair.balanced import BalancedConfig


def dataset(sites: list[str], classes: int = 2, target: str = "classes") -> LabelledSet:
    """A case for each site, of the classes in turn."""
    names = [f"c{k:02}" for k in range(len(sites))]
    examples = tuple(Example(name, (), (k % classes,)) for k, name in enumerate(names))
    columns = {"site": {name: site for name, site in zip(names, sites, strict=True) if site}}
    words = tuple(f"class{k}" for k in range(classes))
    patients = {name: name for name in names}
    return LabelledSet(Path(), "set", ("image",), words, target, examples, patients, columns=columns)


def sides(training: int, validation: int) -> Splits:
    names = [f"c{k:02}" for k in range(training + validation)]
    return Splits(tuple(names[:training]), tuple(names[training:]), ())


def read(sites: list[str], training: int, target: str = "classes", **settings: Any) -> Groups:
    data = dataset(sites, target=target)
    return read_groups(BalancedConfig(by="site", **settings), data, sides(training, len(sites) - training))


def test_groups_and_those_that_choose(tmp_path: Path) -> None:
    found = read([*"abababab", *"aaaaabbbbbcc"], 8)
    assert (found.names, found.choosing) == (("a", "b", "c"), ("a", "b"))
    assert found.numbers(["c00", "c01", "c19"]) == [0, 1, 2]
    assert found.chosen_by([f"c{k:02}" for k in range(8, 20)]) == {"a": [0, 1, 2, 3, 4], "b": [5, 6, 7, 8, 9]}
    assert list(found.doubts([f"c{k:02}" for k in range(8)], [f"c{k:02}" for k in range(8, 20)])) == [
        "fair: no training case is in c",
        "fair: c: fewer than 5 patients validate, so they choose no epoch",
    ]
    found.write(tmp_path)
    assert Groups.written(tmp_path) == found


def test_groups_that_may_be_one_or_none_are_doubted() -> None:
    found = read([*"aAbaAb"], 6)
    assert list(found.doubts([f"c{k:02}" for k in range(6)], [])) == [
        "fair: groups 'A' and 'a' may be one, written in 2 ways; write them alike"
    ]
    (doubt,) = read(["a", "b", "n/a"], 3).doubts(["c00", "c01", "c02"], [])
    assert doubt.startswith("fair: groups hold 'n/a', with which tables mark what is not known")


def test_groups_of_each_class() -> None:
    found = read([*"aabbaabb"], 8, by_class=True)
    assert found.names == ("a, class0", "a, class1", "b, class0", "b, class1")
    assert found.of["c03"] == "b, class1"
    assert found.counts(["c00", "c01"]) == "a, class0 1; a, class1 1; b, class0 0; b, class1 0"
    assert read([*"aabb"], 4).counts(["c00", "c01"]) == "a 2, b 0"


@pytest.mark.parametrize(
    ("sites", "training", "settings", "sentence"),
    [
        (["a", "b", "", "", "a"], 4, {}, "fair.by=site: 2 of 5 training and validation cases have no value (c02, c03)"),
        (["a", "a", "b"], 2, {}, "all training cases are in one group (a), so there is none to treat like it"),
        (["a", "b", *"aaaaab"], 2, {}, "1 of 2 groups with 5 validation patients or more"),
        (["a", "b", "a"], 3, {"target": "labels", "by_class": True}, "is of one class a case, found labels"),
    ],
)
def test_what_cannot_be_treated_alike_is_refused(
    sites: list[str], training: int, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(VptError) as caught:
        read(sites, training, **settings)
    assert sentence in str(caught.value)


def test_few_validation_patients_are_enough_for_the_mean() -> None:
    assert read(["a", "b", "a"], 2, choose="mean").choosing == ()


def test_another_column_is_refused_by_the_settings_name() -> None:
    wrong: Any = SimpleNamespace(by="sight", groups=None, choose="mean")
    with pytest.raises(VptError, match=r"fair.by=sight: the data set has the columns site; give a CSV .* fair.groups"):
        read_groups(wrong, dataset(["a", "b"]), sides(2, 0))
