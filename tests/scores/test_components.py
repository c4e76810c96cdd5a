"""Components of all labels by runs, beside SciPy's of each label alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import label

from vpt.scores.components import alike, components_of, overlaps
from vpt.scores.lesions import score_lesions


def drawn(found, shape):
    """Components -> 1, 2, ... in their voxels, of a volume in C order."""
    line = np.zeros([size + 1 for size in shape], int).ravel()
    for start, end, owner in zip(found.starts, found.ends, found.owner, strict=True):
        line[start:end] = owner + 1
    return line.reshape([size + 1 for size in shape])[tuple(slice(size) for size in shape)]


@pytest.mark.parametrize("shape", [(9, 8, 11), (1, 7, 9), (6, 1, 1), (13, 17), (5, 4, 6, 3)])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6])
def test_they_are_scipys_in_the_same_order(shape, share):
    """Also at borders: what stands at the end of a line touches nothing at the start of the next."""
    rng = np.random.default_rng(int(100 * share))
    volume = rng.integers(1, 4, shape) * (rng.random(shape) < share)
    for k, found in components_of(volume, [1, 2, 3, 9]).items():
        theirs, count = label(volume == k, np.ones((3,) * volume.ndim))
        assert np.array_equal(drawn(found, shape), theirs)
        assert found.sizes.tolist() == np.bincount(theirs.ravel(), minlength=count + 1)[1:].tolist()


@pytest.mark.parametrize("turn", [(2, 1, 0), (1, 0, 2), (2, 0, 1)])
def test_how_a_volume_lies_in_memory_changes_nothing(turn):
    """Sizes come in the order of first voxels along the volume's own axes; flipped views too."""
    rng = np.random.default_rng(3)
    mine, theirs = (rng.integers(0, 3, (7, 8, 9)) * (rng.random((7, 8, 9)) < 0.3) for _ in range(2))
    plain = [components_of(volume, [1, 2]) for volume in (mine, theirs)]
    other = np.ascontiguousarray(theirs.transpose(turn)[::-1]).transpose(np.argsort(turn))
    other = np.flip(other, int(turn[0]))
    assert np.array_equal(other, theirs)
    assert other.strides != theirs.strides
    turned = components_of(other, [1, 2]), components_of(alike(other, mine), [1, 2])
    for k in (1, 2):
        assert turned[0][k].sizes.tolist() == plain[1][k].sizes.tolist()
        here, there = overlaps(plain[0][k], plain[1][k]), overlaps(turned[1][k], turned[0][k])
        assert all(np.array_equal(a, b) for a, b in zip(here, there, strict=True))


def test_what_two_components_share_is_counted():
    rng = np.random.default_rng(4)
    mine, theirs = (rng.random((8, 9, 10)) < 0.2 for _ in range(2))
    first, second = (components_of(volume, [1])[1] for volume in (mine, theirs))
    pairs, shared = overlaps(first, second)
    a, b = drawn(first, mine.shape), drawn(second, mine.shape)
    by_hand = {(i - 1, k - 1): int(((a == i) & (b == k)).sum()) for i in np.unique(a)[1:] for k in np.unique(b)[1:]}
    assert {tuple(pair): n for pair, n in zip(pairs.T.tolist(), shared.tolist(), strict=True)} == {
        pair: n for pair, n in by_hand.items() if n
    }


def test_an_empty_label_has_none():
    found = components_of(np.zeros((3, 4, 5), np.uint8), [1])[1]
    assert len(found.sizes) == len(found.starts) == 0
    assert overlaps(found, found)[0].shape == (2, 0)


def test_stray_voxels_in_far_corners_cost_next_to_nothing():
    """Of 20 labels that each reach through a volume of 40 million voxels: under 5 s and 100 MB beside it."""
    import time
    import tracemalloc

    reference, prediction = np.zeros((400, 400, 250), np.uint8, "F"), np.zeros((400, 400, 250), np.uint8, "F")
    for k in range(1, 21):
        reference[k, 0, 0] = reference[-k, -1, -1] = prediction[k, 0, 0] = k
    score_lesions(reference[:9, :9, :9], reference[:9, :9, :9], (1, 1, 1), [1])  # SciPy's import, once
    tracemalloc.start()
    start = time.perf_counter()
    found = score_lesions(prediction, reference, (1, 1, 1), range(1, 21))
    assert time.perf_counter() - start < 5
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()
    assert {(each.found, each.missed, each.false) for each in found.values()} == {(1, 1, ())}
