"""A case whose values do not fit those of the others of its data set is named; no other is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scans import voxels_of
from values import body, brain, seen, xray

from vpt.data.doubts.unlike import TOLD, same_channels, unlike_others
from vpt.data.values import values_of
from vpt.readers import Kind

Change = Callable[[np.ndarray], np.ndarray]


def odd_ones(make: Callable[[int], np.ndarray], name: str, kind: Kind, change: Change, odd: set[int], of: int = 12):
    arrays = [change(make(seed)) if seed in odd else make(seed) for seed in range(of)]
    return dict(unlike_others([(str(k), seen(array)) for k, array in enumerate(arrays)], [name], kind))


@pytest.mark.parametrize("odd", [{0}, {7}, {3, 9}])
@pytest.mark.parametrize(
    "change", [lambda hu: hu + 1024, lambda hu: hu - 1024, lambda hu: hu / 1000, lambda hu: hu * 10]
)
def test_a_ct_among_others_that_is_not_in_hu(change: Change, odd: set[int]) -> None:
    found = odd_ones(body, "CT", "volumes", change, odd)

    assert found.keys() == {str(k) for k in odd}
    assert all("do not look like the HU of most other cases (-1" in text for text in found.values())


@pytest.mark.parametrize("change", [lambda grey: grey * 16.0, lambda grey: grey / 255, lambda grey: 255 - grey])
def test_a_picture_among_others_of_another_depth_or_a_negative(change: Change) -> None:
    assert odd_ones(xray, "grey", "images", change, {5}).keys() == {"5"}


def test_nothing_is_said_of_sound_sets_nor_of_few_cases() -> None:
    for make, name, kind in ((body, "CT", "volumes"), (xray, "grey", "images"), (brain, "MRI", "volumes")):
        assert odd_ones(make, name, kind, lambda array: array, set()) == {}
    assert odd_ones(body, "CT", "volumes", lambda hu: hu + 1024, {1}, of=4) == {}


def test_pictures_that_are_all_deep_have_no_unit_to_compare() -> None:
    def deep(seed: int) -> np.ndarray:
        return (xray(seed) * np.float32(20 + 15 * seed)).astype(np.float32)

    assert odd_ones(deep, "grey", "images", lambda array: array, set()) == {}


def test_many_are_counted_in_one_line() -> None:
    found = odd_ones(xray, "grey", "images", lambda grey: grey * 16.0, set(range(14)), of=80)

    assert len(found) == TOLD + 1
    assert [*found.values()][-1].endswith("(so 4 more: 10, 11, 12 and 1 more)")


@pytest.mark.parametrize("odd", [{0, 3, 6, 9}, {1, 3, 5, 7, 9, 11}, {0, 1, 2, 3, 4, 5, 6, 7}])
@pytest.mark.parametrize("change", [lambda hu: hu + 1024, lambda hu: hu / 1000, lambda hu: hu * 10, lambda hu: hu / 2])
def test_ct_that_is_not_in_hu_in_a_third_of_the_set_and_more(change: Change, odd: set[int]) -> None:
    found = odd_ones(body, "CT", "volumes", change, odd)

    assert found.keys() == {str(k) for k in odd}
    whose = "of those with air at -1000" if len(odd) >= 6 else "of most other cases"
    assert all(f"do not look like the HU {whose} (-1" in text for text in found.values())


@pytest.mark.parametrize("odd", [{2}, {0, 3, 6, 9}, {1, 3, 5, 7, 9, 11}])
def test_ct_whose_air_was_overwritten_with_0(odd: set[int]) -> None:
    found = odd_ones(body, "CT", "volumes", lambda hu: np.where(hu < -900, 0, hu), odd)

    assert found.keys() == {str(k) for k in odd}
    assert all("are just 0, which is water and tissue" in text for text in found.values())


@pytest.mark.parametrize(
    "change", [lambda hu: np.clip(hu, -160, 240), lambda hu: hu[8:24, 8:24], lambda hu: hu + 40, lambda hu: hu * 0.97]
)
def test_ct_that_was_clipped_or_cropped_in_half_of_a_set_is_not_doubted(change: Change) -> None:
    assert odd_ones(body, "CT", "volumes", change, {1, 3, 5, 7, 9, 11}) == {}


@pytest.mark.parametrize("odd", [{2}, {0, 3, 6, 9}, {1, 3, 5, 7, 9, 11}])
@pytest.mark.parametrize(("change", "air"), [(lambda hu: hu + 1024, -1000), (lambda hu: hu + 1000, -950)])
def test_ct_cut_off_at_air_is_known_as_hu_too(change: Change, air: float, odd: set[int]) -> None:
    def cut(seed: int) -> np.ndarray:
        hu = body(seed)
        return np.where(hu < -500, air, hu)

    assert odd_ones(cut, "CT", "volumes", change, odd).keys() == {str(k) for k in odd}
    assert odd_ones(cut, "CT", "volumes", lambda hu: hu, odd) == {}


@pytest.mark.parametrize("name", ["image", "0", "scan"])
@pytest.mark.parametrize("odd", [{4}, {1, 3, 5, 7, 9, 11}])
@pytest.mark.parametrize(
    "change",
    [
        lambda hu: hu + 1024,
        lambda hu: np.clip(hu + 1024, 0, None),
        lambda hu: hu + 1000,
        lambda hu: (hu + 1000) / 2000,
        lambda hu: np.clip(hu / 8 + 128, 0, 255),
    ],
)
def test_ct_is_known_by_its_values_whatever_it_is_called(change: Change, odd: set[int], name: str) -> None:
    assert odd_ones(body, name, "volumes", change, odd).keys() == {str(k) for k in odd}
    assert odd_ones(body, name, "volumes", lambda hu: hu, odd) == {}


def normalised(mr: np.ndarray) -> np.ndarray:
    return (mr - mr.mean()) / mr.std()


def normalised_inside(mr: np.ndarray) -> np.ndarray:
    inside = mr > 0.1 * mr.max()
    return np.where(inside, (mr - mr[inside].mean()) / mr[inside].std(), 0)


@pytest.mark.parametrize("change", [normalised, normalised_inside, lambda mr: 2 * mr / mr.max() - 1])
@pytest.mark.parametrize("odd", [{0, 2, 4, 6, 8, 10}, {1, 5, 9, 11}, set(range(11))])
def test_mr_of_which_some_were_normalised_are_told(change: Change, odd: set[int]) -> None:
    found = odd_ones(brain, "T1", "volumes", change, odd)

    assert found
    assert all("below 0" in text for text in found.values())
    assert all(f" {len(odd)} " in text or "of most other cases" in text for text in found.values())


@pytest.mark.parametrize(
    "change",
    [
        lambda mr: mr / mr.max(),
        lambda mr: mr * 1.37,
        lambda mr: np.rint(mr / mr.max() * 255),
        lambda mr: np.where(np.arange(mr.size).reshape(mr.shape) % 401 == 0, -0.05 * mr.max(), mr),
        lambda mr: np.pad(mr, ((3, 3), (3, 3), (0, 0))),
    ],
)
def test_mr_in_another_scale_beside_others_is_no_doubt(change: Change) -> None:
    assert odd_ones(brain, "T1", "volumes", change, {0, 2, 4, 6, 8, 10}) == {}


def test_mr_that_was_normalised_throughout_is_none() -> None:
    for change in (normalised, normalised_inside):
        assert odd_ones(brain, "T1", "volumes", change, set(range(12))) == {}


@pytest.mark.parametrize("odd", [{0, 2, 4, 6, 8, 10}, {1, 5, 9}, {0, 1, 2, 3, 4, 5, 6, 7}, set(range(11))])
@pytest.mark.parametrize("factor", [4, 16, 100, 257])
def test_pictures_of_8_bits_beside_some_of_more_are_told(odd: set[int], factor: int) -> None:
    found = odd_ones(xray, "grey", "images", lambda grey: grey.astype(np.float32) * factor, odd)

    assert found
    assert all("two depths" in text or "do not look like" in text for text in found.values())


def test_a_set_of_pictures_from_0_to_1_has_no_unit_to_compare() -> None:
    assert odd_ones(lambda seed: (xray(seed) / 255).astype(np.float32), "grey", "images", lambda a: a, set()) == {}


# --- one file under two names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda first, k: first, "6 of 6 cases"),
        (lambda first, k: first if k == 2 else brain(k + 50), "1 of 6 cases (case2)"),
        (lambda first, k: first.astype(np.float64), "6 of 6 cases"),
        (lambda first, k: first[::-1], "6 of 6 cases"),
        (lambda first, k: first * 1.5, None),
        (lambda first, k: brain(k + 50), None),
        (lambda first, k: first * 0, None),
    ],
)
def test_channels_that_hold_the_same_scan_are_told(change, told) -> None:
    cases = []
    for k in range(6):
        first = brain(k)
        pair = np.stack([first, np.asarray(change(first, k), np.float32)])
        cases.append((f"case{k}", values_of(voxels_of(pair))))
    found = same_channels(cases, ("T1", "T2"))
    assert [told in text for text in found] == ([True] if told else [])
    assert all(text.startswith("T1 and T2 hold the same values in") for text in found)


# --- red and blue exchanged in a part ---------------------------------------------------------------------------------


def tinted(seed: int) -> np.ndarray:
    """(40, 48, 3), reddish, as tissue in an endoscope."""
    grey = xray(seed).astype(float)
    return np.clip(np.dstack([grey * 1.2 + 30, grey * 0.6 + 12, grey * 0.4 + 5]), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("cases", [20, 40, 60])
@pytest.mark.parametrize("share", [0.15, 0.3, 0.5])
def test_pictures_whose_red_and_blue_are_exchanged_in_a_part_are_told(cases: int, share: float) -> None:
    odd = int(cases * share)
    arrays = [tinted(k)[..., ::-1] if k < odd else tinted(k) for k in range(cases)]
    found = dict(unlike_others([(f"{k}.png", seen(array)) for k, array in enumerate(arrays)], "rgb", "images"))
    told = [text for text in found.values() if "red and blue exchanged" in text]
    each = share < 0.2 and cases >= 40  # then most are known well enough to tell it of each that is not like them
    assert len(told) == (odd if each else 1)
    assert each or told[0].startswith(f"{odd} of {cases} pictures (")


ORDERED: dict[str, Callable[[int], np.ndarray]] = {
    "all reddish": tinted,
    "all bluish": lambda k: tinted(k)[..., ::-1],
    "all tints": lambda k: np.roll(tinted(k), k % 3, -1) if k % 4 else np.dstack([xray(k)] * 3),
    "between": lambda k: (
        tinted(k) * np.linspace(0, 1, 30)[k] + tinted(k)[..., ::-1] * np.linspace(1, 0, 30)[k]
    ).astype(np.uint8),
    "some greenish, as under another lamp": lambda k: tinted(k) if k % 3 else tinted(k)[..., [1, 0, 0]] // 2 * 2,
    "grey": lambda k: np.dstack([xray(k)] * 3),
}


@pytest.mark.parametrize("how", ORDERED)
def test_colours_that_lie_in_their_order_are_not(how: str) -> None:
    cases = [(f"{k}.png", seen(np.ascontiguousarray(ORDERED[how](k)))) for k in range(30)]
    assert [text for text in dict(unlike_others(cases, "rgb", "images")).values() if "exchanged" in text] == []
