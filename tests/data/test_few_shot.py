"""A few examples to learn from: as many as asked for, of every class, and nobody else's side is touched."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpt.data.few_shot import draw_shots
from vpt.data.labelled import Example, LabelledSet
from vpt.data.layouts import read_dataset, read_labelled
from vpt.data.splits import Splits, read_splits
from vpt.errors import VptError


def labelled(targets, tmp_path, target="classes"):
    """A set of such targets, all of them but the last two to train."""
    cases = tuple(Example(f"im{k:02d}", (), each) for k, each in enumerate(targets))
    names = [case.name for case in cases]
    found = LabelledSet(tmp_path, "set", ("grey",), ("a", "b", "c"), target, cases)
    return found, Splits(tuple(names[:-2]), (names[-2],), (names[-1],))


def test_so_many_of_each_class_and_the_other_sides_as_they_were(tiny_classes):
    dataset = read_labelled(tiny_classes)
    splits = read_splits(dataset)
    for shots in (1, 3, 4):
        drawn = draw_shots(dataset, splits, shots, seed=0)
        assert Counter(name.split("/")[0] for name in drawn.train) == dict.fromkeys(dataset.classes, shots)
        assert set(drawn.train) <= set(splits.train)
        assert (drawn.val, drawn.test) == (splits.val, splits.test)
        assert list(drawn.train) == [name for name in splits.train if name in drawn.train]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 2), min_size=12, max_size=30))
def test_more_shots_hold_those_of_fewer(tmp_path_factory, seed, classes):
    targets = [(0,)] * 4 + [(1,)] * 4 + [(2,)] * 4 + [(k,) for k in classes]
    dataset, splits = labelled(targets, tmp_path_factory.getbasetemp())
    drawn = [set(draw_shots(dataset, splits, shots, seed).train) for shots in (1, 2, 3, 4)]
    assert [len(names) for names in drawn] == [3, 6, 9, 12]
    assert drawn[0] < drawn[1] < drawn[2] < drawn[3]
    assert set(draw_shots(dataset, splits, 2, seed).train) == drawn[1]


def test_another_seed_draws_others_and_the_order_of_the_split_does_not_count(tmp_path):
    dataset, splits = labelled([(k % 3,) for k in range(32)], tmp_path)
    found = {tuple(draw_shots(dataset, splits, 2, seed).train) for seed in range(6)}
    assert len(found) > 3
    turned = Splits(splits.train[::-1], splits.val, splits.test)
    assert set(draw_shots(dataset, turned, 2, 0).train) == set(draw_shots(dataset, splits, 2, 0).train)


def test_no_example_of_another_side_is_drawn(tmp_path):
    dataset, splits = labelled([(0,), (1,), (2,), (0,), (1,)], tmp_path)
    with pytest.raises(VptError, match=r"1 training example of b, fewer than 2 shots; lower data\.shots"):
        draw_shots(dataset, Splits(("im00", "im03", "im01", "im02"), ("im04",), ()), 2, 0)
    assert len(draw_shots(dataset, splits, 1, 0).train) == 3


def test_of_several_labels_an_example_counts_for_each_and_a_rare_label_gives_all_it_has(tmp_path):
    targets = [(0, 1)] * 5 + [(2,)] + [()] * 4 + [(), ()]
    dataset, splits = labelled(targets, tmp_path, "labels")
    drawn = draw_shots(dataset, splits, 3, seed=1).train
    chosen = [dataset.case(name).target for name in drawn]
    assert sum(0 in target for target in chosen) == 3
    assert sum(1 in target for target in chosen) == 3  # the same three: they have both
    assert sum(2 in target for target in chosen) == 1
    assert sum(not target for target in chosen) == 3  # what has none is an answer too
    assert len(drawn) == 7


def test_cases_of_a_segmentation(make_dataset):
    dataset = read_dataset(make_dataset(cases=8))
    splits = read_splits(dataset)
    drawn = [draw_shots(dataset, splits, shots, seed=2) for shots in (1, 3, len(splits.train))]
    assert [len(each.train) for each in drawn] == [1, 3, len(splits.train)]
    assert set(drawn[0].train) < set(drawn[1].train) < set(drawn[2].train) == set(splits.train)
    assert all((each.val, each.test) == (splits.val, splits.test) for each in drawn)
    more = len(splits.train) + 1
    with pytest.raises(VptError, match=f"{more - 1} training cases, fewer than {more} shots; lower data.shots"):
        draw_shots(dataset, splits, more, 0)
