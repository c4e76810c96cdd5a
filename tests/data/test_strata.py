"""Folds resemble each other in what the masks of their patients hold."""

from __future__ import annotations

from collections import Counter

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpt.data.check import check_dataset
from vpt.data.layouts import read_dataset
from vpt.data.splits import read_splits
from vpt.data.strata import Held, deal, of_patients, read_held
from vpt.errors import VptError

masks = st.builds(Held, st.frozensets(st.integers(1, 5)), st.floats(0, 100))


@settings(max_examples=50, deadline=None)
@given(st.lists(masks, min_size=2, max_size=40), st.integers(2, 6))
def test_every_patient_is_dealt_once_in_folds_of_one_size_and_the_rarest_label_is_spread(held, count):
    of = {f"p{k:02d}": each for k, each in enumerate(held)}
    count = min(count, len(of))
    folds = deal(list(of), of, count)
    assert sorted(name for fold in folds for name in fold) == sorted(of)
    assert max(map(len, folds)) - min(map(len, folds)) <= 1
    counts = Counter(id for each in held for id in each.labels)
    if counts:
        rarest = min(counts, key=lambda id: (counts[id], id))
        spread = [sum(rarest in of[name].labels for name in fold) for fold in folds]
        assert max(spread) - min(spread) <= 1


def test_a_second_label_makes_up_for_what_the_first_left_uneven():
    both, first, second = frozenset({1, 2}), frozenset({1}), frozenset({2})
    held = {f"p{k}": Held(labels) for k, labels in enumerate([both] * 2 + [first] * 3 + [second] * 4)}
    spread = [sum(2 in held[name].labels for name in fold) for fold in deal(list(held), held, 5)]
    assert sorted(spread) == [1, 1, 1, 1, 2]


def test_little_and_much_foreground_is_in_every_fold():
    held = {f"p{k:02d}": Held(frozenset({1}), float(k)) for k in range(20)}
    for fold in deal(sorted(held, key=lambda name: name[::-1]), held, 5):
        assert [sum(low <= held[name].amount < low + 5 for name in fold) for low in (0, 5, 10, 15)] == [1, 1, 1, 1]


def rare_set(make_dataset, having: set[int], cases: int = 10):
    """Volumes with label 1 in all, more of it from case to case, and label 2 in some."""
    dataset = read_dataset(make_dataset(cases=cases))
    for k, case in enumerate(dataset.cases):
        image = nib.load(case.label)
        array = np.zeros(image.shape, np.uint8)
        array[0, 0, : k % image.shape[2] + 1] = 1
        if k in having:
            array[-1, -1, 0] = 2
        nib.save(nib.Nifti1Image(array, image.affine, image.header), case.label)
    return dataset


def test_a_rare_label_of_a_drawn_split_is_in_every_fold(make_dataset):
    dataset = rare_set(make_dataset, having={0, 1, 2, 3, 4})
    held = read_held(dataset, dataset.cases)
    assert held["case_07"].labels == {1}
    assert held["case_01"].labels == {1, 2}
    for fold in range(5):
        assert sum(2 in held[name].labels for name in read_splits(dataset, fold).val) == 1
    check = check_dataset(dataset.root)
    assert {name for name, side in check.sides.items() if side == "val"} == set(read_splits(dataset).val)


def test_what_a_patient_holds_is_that_of_all_cases(make_dataset):
    dataset = rare_set(make_dataset, having={1}, cases=4)
    held = read_held(dataset, dataset.cases)
    dataset.patients.update({"case_00": "Ann", "case_01": "Ann"})
    assert of_patients(dataset, held, held)["Ann"] == Held(
        frozenset({1, 2}), held["case_00"].amount + held["case_01"].amount
    )


def test_a_mask_that_cannot_be_read_stops_the_draw_with_its_name(make_dataset):
    dataset = read_dataset(make_dataset(cases=4))
    dataset.cases[2].label.write_bytes(b"no mask")
    with pytest.raises(VptError, match="case_02"):
        read_splits(dataset)
