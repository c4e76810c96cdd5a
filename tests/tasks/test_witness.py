"""What members say of slices, against a plain recomputation on whole volumes."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from torch import Tensor

from vpt.tasks.witness import Witness, entropy

LABELS = {0: "background", 3: "rim", 117: "core"}


def members(count: int = 3, slices: int = 4) -> Tensor:
    """(M, slices, K, rows, columns)."""
    logits = torch.randn(count, slices, 3, 6, 5, generator=torch.Generator().manual_seed(count))
    return logits.mul(2).softmax(2)


def seen(given: Tensor, witness: Witness | None = None) -> Witness:
    witness = witness or Witness(LABELS)
    for place in range(given.shape[1]):
        witness.see(place, given[:, place].mean(0), list(given[:, place]))
    return witness


def test_entropy_is_0_where_one_class_is_sure_and_1_where_all_are_as_likely():
    sure, open_ = torch.tensor([1.0, 0, 0]), torch.full((3,), 1 / 3)
    assert entropy(torch.stack([sure, open_], 1)).tolist() == pytest.approx([0, 1])
    p = torch.tensor([0.7, 0.2, 0.1])
    assert entropy(p) == pytest.approx(-sum(x * math.log(x) for x in p.tolist()) / math.log(3))


def test_quality_is_that_of_the_whole_volume():
    given = members()
    found = seen(given).quality(2.5)
    masks, mean = given.argmax(2), given.mean(0)
    decided, unsure = mean.argmax(1), torch.stack([entropy(each) for each in mean])
    for k, name in ((1, "rim"), (2, "core")):
        dice = [2 * ((a == k) & (b == k)).sum() / ((a == k).sum() + (b == k).sum()) for a, b in combinations(masks, 2)]
        assert found.structures[name].agreement == pytest.approx(float(sum(dice) / 3), rel=1e-6)
        assert found.structures[name].entropy == pytest.approx(float(unsure[decided == k].mean()), rel=1e-5)
        assert found.structures[name].voxels == int((decided == k).sum())
    both = [each.agreement for each in found.structures.values()]
    assert found.whole.agreement == pytest.approx(sum(both) / 2)
    assert found.whole.entropy == pytest.approx(float(unsure[decided > 0].mean()), rel=1e-5)
    assert found.distance == 2.5


def test_the_order_of_members_changes_nothing():
    given = members()
    first, other = seen(given).quality(), seen(given.flip(0)).quality()
    for mine, theirs in zip(
        (first.whole, *first.structures.values()), (other.whole, *other.structures.values()), strict=True
    ):
        assert mine.voxels == theirs.voxels
        assert (mine.agreement, mine.entropy) == pytest.approx((theirs.agreement, theirs.entropy), rel=1e-6)


def test_slices_that_are_shown_again_count_once():
    given = members()
    witness = Witness(LABELS)
    for place in range(2):  # as where memory was too little for the batch
        witness.see(place, given[:, place].mean(0), list(given[:, place]))
    assert seen(given, witness).quality(1.0) == seen(given).quality(1.0)


def test_one_model_has_entropy_and_no_agreement():
    found = seen(members(1)).quality()
    assert math.isnan(found.whole.agreement)
    assert 0 < found.whole.entropy < 1


def test_where_nothing_is_found_there_is_nothing_to_agree_on_or_to_be_unsure_of():
    background = torch.zeros(2, 3, 3, 4, 4)
    background[:, :, 0] = 1
    found = seen(background).quality()
    assert found.whole.voxels == 0
    assert math.isnan(found.whole.agreement)
    assert math.isnan(found.whole.entropy)
