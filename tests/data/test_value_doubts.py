"""Values that do not fit the training's are doubted, whatever went wrong with them; those that fit are not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import plan_with
from scipy.ndimage import uniform_filter
from values import body, brain, expected, photograph, seen, xray

from vpt.data.doubts.values import Doubt, Expected, doubt_of
from vpt.data.values import values_over

CT = expected(body, "CT", "volumes", fixed=True)
XRAY = expected(xray, "grey", "images", fixed=True)
PHOTO = expected(photograph, "red", "images", fixed=True)
MR = expected(brain, "MRI", "volumes", fixed=False)
NEW = range(100, 106)  # seeds of no training case

Change = Callable[[np.ndarray], np.ndarray]


def doubts(make: Callable[[int], np.ndarray], change: Change, known: Expected) -> list[Doubt | None]:
    return [doubt_of(seen(change(make(seed))), known) for seed in NEW]


# --- CT ---------------------------------------------------------------------------------------------------------------

NOT_HU: dict[str, Change] = {
    "intercept of 1024 lost": lambda hu: hu + 1024,
    "intercept of 1000 lost": lambda hu: hu + 1000,
    "stored values, cut at 0": lambda hu: np.clip(hu, -1024, 3071) + 1024,
    "intercept twice": lambda hu: hu - 1024,
    "unsigned": lambda hu: np.where(hu < 0, hu + 65536, hu),
    "8 bits of a window": lambda hu: np.rint(np.clip((hu + 160) / 400, 0, 1) * 255),
    "8 bits of everything": lambda hu: np.rint((hu - hu.min()) / np.ptp(hu) * 255),
    "16 bits of everything": lambda hu: np.rint((hu - hu.min()) / np.ptp(hu) * 65535),
    "[0, 1] of a window": lambda hu: np.clip((hu + 160) / 400, 0, 1),
    "[0, 1] of everything": lambda hu: (hu - hu.min()) / np.ptp(hu),
    "[-1, 1]": lambda hu: np.clip((hu + 1000) / 2000, 0, 1) * 2 - 1,
    "mean 0, deviation 1": lambda hu: (hu - hu.mean()) / hu.std(),
    "ten times": lambda hu: hu * 10,
    "a tenth": lambda hu: hu / 10,
    "a thousandth": lambda hu: hu / 1000,
    "half": lambda hu: hu / 2,
    "half, of whole numbers": lambda hu: np.trunc(hu / 2),
    "half of what was cut at 1000": lambda hu: np.clip(hu, -1000, 1000) / 2,
    "six tenths": lambda hu: hu * 0.6,
    "a quarter": lambda hu: hu / 4,
    "twice, cut at the ends of CT": lambda hu: np.clip(hu * 2, -1024, 3071),
    "ten times, cut at the ends of CT": lambda hu: np.clip(hu * 10, -1024, 3071),
    "ten times, cut at 1000": lambda hu: np.clip(hu * 10, -1000, 1000),
    "intercept of 1024 lost, cut at 1000": lambda hu: np.clip(hu + 1024, -1000, 1000),
    "air is 0": lambda hu: np.where(hu < -500, 0, hu),
    "padded with 0": lambda hu: np.pad(hu, ((8, 8), (8, 8), (0, 0))),
    "all but the body is 0": lambda hu: np.where(hu < -300, 0, hu),
    "every second slice is 0": lambda hu: np.where(np.arange(hu.shape[2]) % 2, hu, 0),
    "a label map": lambda hu: (hu > 50).astype(float) + (hu > 200),
}


@pytest.mark.parametrize("fault", NOT_HU)
def test_ct_that_is_not_in_hu_is_doubted(fault: str) -> None:
    assert all(doubts(body, NOT_HU[fault], CT)), fault


def _padded(hu: np.ndarray, value: float) -> np.ndarray:
    side = np.linspace(-1, 1, hu.shape[0])
    return np.where(np.hypot(*np.meshgrid(side, side))[..., None] > 1, value, hu)


def _with_metal(hu: np.ndarray, value: float) -> np.ndarray:
    return np.where(np.arange(hu.size).reshape(hu.shape) % 251 == 0, value, hu)


def _of_lungs(hu: np.ndarray) -> np.ndarray:
    """What is fat in the body as lungs of -860, whose values are spread, and no air around it."""
    spread = np.random.default_rng(1).normal(-860, 60, hu.shape)
    return np.where((hu > -250) & (hu < -20), spread, hu)[8:24, 8:24]


IN_HU: dict[str, Change] = {
    "as in training": lambda hu: hu,
    "cut at -1024 and 3071": lambda hu: np.clip(hu, -1024, 3071),
    "padding of -2000": lambda hu: _padded(hu, -2000),
    "padding of -3024": lambda hu: _padded(hu, -3024),
    "padding below clipped air": lambda hu: _padded(np.clip(hu, -1024, 3071), -2048),
    "metal up to 3071": lambda hu: _with_metal(hu, 3071),
    "metal up to 30000": lambda hu: _with_metal(hu, 30000),
    "a smaller field of view": lambda hu: hu[6:26, 6:26],
    "half of the slices": lambda hu: hu[..., :4],
    "float32": lambda hu: hu.astype(np.float32) + 0.25,
    "cut at -1000 and 1000": lambda hu: np.clip(hu, -1000, 1000),
    "cut at -500 and 500": lambda hu: np.clip(hu, -500, 500),
    "cut at -200 and 300": lambda hu: np.clip(hu, -200, 300),
    "noisy": lambda hu: hu + np.random.default_rng(0).normal(0, 40, hu.shape),
    "smoothed": lambda hu: uniform_filter(hu, 3),
    "no fat": lambda hu: np.where((hu > -250) & (hu < -20), 40, hu),
    "lungs without air": _of_lungs,
    "air alone": lambda hu: np.full_like(hu, -1000),
}


@pytest.mark.parametrize("variant", IN_HU)
def test_ct_in_hu_is_not_doubted(variant: str) -> None:
    assert doubts(body, IN_HU[variant], CT) == [None] * len(NEW), variant


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(100, 999),
    slope=st.sampled_from([0.0001, 0.001, 0.01, 1.0, 10.0, 30.0]),
    inter=st.floats(-4000, 4000),
)
def test_any_other_slope_or_intercept_beyond_the_margin_is_doubted(seed: int, slope: float, inter: float) -> None:
    if slope == 1.0:
        inter += np.copysign(900, inter)
    assert doubt_of(seen(body(seed) * slope + inter), CT)


@settings(max_examples=15, deadline=None)
@given(first=st.integers(0, 1000), cases=st.integers(1, 8), make=st.sampled_from([body, xray, photograph, brain]))
def test_no_case_of_the_training_itself_is_doubted(first: int, cases: int, make: Callable[[int], np.ndarray]) -> None:
    kind, fixed = ("volumes", make is body) if make in (body, brain) else ("images", True)
    known = expected(lambda seed: make(first + seed), "CT" if make is body else "x", kind, fixed, cases)

    assert [doubt_of(seen(make(first + seed)), known) for seed in range(cases)] == [None] * cases


def test_the_sentence_says_what_was_found_what_is_expected_and_how_to_mend_it() -> None:
    doubt = doubt_of(seen(body(100) + 1024), CT)

    assert doubt
    said = doubt.sentence("that the model was trained on")
    low, high = doubt.found
    assert said.startswith(
        f"values from {low:.5g} to {high:.5g} do not look like the HU that the model was trained on (-1"
    )
    assert "with 1024 less they would fit" in said
    assert "DICOM header" in said


def test_a_training_at_half_of_hu_expects_half() -> None:
    half = expected(lambda seed: body(seed) / 2, "CT", "volumes", fixed=True)

    assert doubts(body, lambda hu: hu / 2, half) == [None] * len(NEW)


def test_values_that_were_never_in_hu_are_expected_as_they_were_trained_on() -> None:
    stored = expected(lambda seed: body(seed) + 1024, "CT", "volumes", fixed=True)

    assert stored.units == ("own",)
    assert doubts(body, lambda hu: hu + 1024, stored) == [None] * len(NEW)
    assert all(doubts(body, lambda hu: hu, stored))


BELOW_ZERO: dict[str, Change] = {
    "CT": lambda mr: body(int(mr.sum()) % 1000),
    "mean 0, deviation 1": lambda mr: (mr - mr.mean()) / mr.std(),
    "padding of -1": lambda mr: np.pad(mr, ((2, 2), (0, 0), (0, 0)), constant_values=-1),
    "padding of -1024": lambda mr: np.pad(mr + 1, ((2, 2), (0, 0), (0, 0)), constant_values=-1024),
    "[-1, 1]": lambda mr: mr / mr.max() * 2 - 1,
}


@pytest.mark.parametrize("fault", BELOW_ZERO)
def test_values_below_0_where_mr_had_none_are_doubted(fault: str) -> None:
    found = doubts(brain, BELOW_ZERO[fault], MR)

    assert all(doubt and "below 0" in doubt.reason for doubt in found), found
    assert all(doubt and ("it looks like CT" in doubt.reason) == (fault == "CT") for doubt in found)


@pytest.mark.parametrize("name", ["image", "0", "T1"])
@pytest.mark.parametrize("fault", NOT_HU)
def test_ct_that_is_called_otherwise_is_known_by_its_values(name: str, fault: str) -> None:
    unnamed = expected(body, name, "volumes", fixed=False)

    assert unnamed.units == ("HU",)
    assert all(doubts(body, NOT_HU[fault], unnamed))
    assert doubts(body, lambda hu: hu, unnamed) == [None] * len(NEW)


@pytest.mark.parametrize("scale", [1, 1e-3, 37])
def test_values_that_are_nowhere_below_0_where_a_tenth_of_the_training_was_are_doubted(scale: float) -> None:
    normalised = expected(lambda seed: brain(seed) - np.median(brain(seed)[6:-6, 6:-6]), "MRI", "volumes", fixed=False)

    found = doubts(brain, lambda mr: mr * scale, normalised)
    assert all(doubt and "none is below 0, where a tenth" in doubt.reason for doubt in found)


def test_few_values_below_0_are_none_and_where_the_training_had_some_neither() -> None:
    def overshoot(mr: np.ndarray) -> np.ndarray:
        return np.where(np.arange(mr.size).reshape(mr.shape) % 401 == 0, -0.05 * mr.max(), mr)

    normalised = expected(lambda seed: brain(seed) - brain(seed).mean(), "MRI", "volumes", fixed=False)

    assert doubts(brain, overshoot, MR) == [None] * len(NEW)
    assert doubts(brain, lambda mr: mr - mr.mean(), normalised) == [None] * len(NEW)


# --- pictures ---------------------------------------------------------------------------------------------------------

NOT_8_BITS: dict[str, Change] = {
    "12 bits": lambda grey: np.rint(grey * 4095.0 / 255).astype(np.float32),
    "16 bits": lambda grey: np.rint(grey * 65535.0 / 255).astype(np.float32) + 1,
    "[0, 1]": lambda grey: (grey / 255).astype(np.float32),
    "[-1, 1]": lambda grey: (grey / 127.5 - 1).astype(np.float32),
    "mean 0, deviation 1": lambda grey: ((grey - grey.mean()) / grey.std()).astype(np.float32),
    "a mask": lambda grey: np.where(grey > 90, 255, 0).astype(np.uint8),
    "a mask of ones": lambda grey: (grey > 90).astype(np.uint8),
}


@pytest.mark.parametrize("fault", NOT_8_BITS)
@pytest.mark.parametrize(("make", "known"), [(xray, XRAY), (photograph, PHOTO)])
def test_pictures_of_another_depth_are_doubted(make: Callable[[int], np.ndarray], known: Expected, fault: str) -> None:
    assert all(doubts(make, NOT_8_BITS[fault], known)), fault


SEEN_AGAIN: dict[str, Change] = {
    "as in training": lambda grey: grey,
    "brighter": lambda grey: np.clip(grey * 1.3 + 10, 0, 255).astype(np.uint8),
    "darker": lambda grey: (grey * 0.6).astype(np.uint8),
    "turned": lambda grey: grey[::-1, ::-1],
    "floats to 255": lambda grey: grey.astype(np.float32) * 0.99,
    "black": lambda grey: np.zeros_like(grey),
    "white": lambda grey: np.full_like(grey, 255),
}


@pytest.mark.parametrize("variant", SEEN_AGAIN)
def test_pictures_of_8_bits_are_not_doubted(variant: str) -> None:
    assert doubts(xray, SEEN_AGAIN[variant], XRAY) == [None] * len(NEW), variant


@pytest.mark.parametrize("levels", [255, 250, 240, 230, 220])
def test_a_negative_is_doubted_where_the_shapes_tell_it(levels: int) -> None:
    found = doubts(xray, lambda grey: np.clip(levels - grey.astype(float), 0, 255), XRAY)

    assert all(doubt and "light where they are dark" in doubt.reason for doubt in found)


def test_a_negative_is_not_guessed_of_few_cases_nor_where_the_training_has_both() -> None:
    both = values_over([seen(xray(seed) if seed % 2 else 255 - xray(seed)) for seed in range(12)])
    few = values_over([seen(xray(seed)) for seed in range(4)])

    for known in (both, few):
        assert doubts(xray, lambda grey: 255 - grey, Expected(known, ("8 bits",))) == [None] * len(NEW)


def test_colour_where_all_was_grey_is_doubted_and_grey_among_colours_is_not() -> None:
    def grey(seed: int) -> np.ndarray:
        return np.dstack([xray(seed)] * 3)

    greys = expected(grey, "red", "images", fixed=True)

    assert all(doubt and "colour" in doubt.reason for doubt in doubts(photograph, lambda each: each, greys))
    assert doubts(grey, lambda each: each + np.array([0, 2, 1], np.uint8), greys) == [None] * len(NEW)  # JPEG's noise
    mixed = expected(lambda seed: grey(seed) if seed % 2 else photograph(seed), "red", "images", fixed=True)
    assert doubts(grey, lambda each: each, mixed) == [None] * len(NEW)


# --- MR, which has no unit --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 0.1, 7, 1e4, 1e6])
def test_mr_is_never_doubted_by_its_scale(scale: float) -> None:
    assert doubts(brain, lambda mr: mr * scale, MR) == [None] * len(NEW)


@pytest.mark.parametrize("labels", [1, 2, 3, 5, 9])
def test_a_label_map_given_as_a_scan_is_doubted(labels: int) -> None:
    def label_map(mr: np.ndarray) -> np.ndarray:
        return np.digitize(mr, np.quantile(mr, np.linspace(0, 1, labels + 1)[1:] - 0.05)).astype(np.uint8)

    assert all(doubt and "label map" in doubt.reason for doubt in doubts(brain, label_map, MR))


@pytest.mark.parametrize("top", [1.0, 1.1, 1.5, 2.0, 0.0])
def test_an_inverted_mr_is_doubted(top: float) -> None:
    found = doubts(brain, lambda mr: mr.max() * top - mr, MR)

    assert all(doubt and "light where they are dark" in doubt.reason for doubt in found)


# --- plans ------------------------------------------------------------------------------------------------------------


def test_a_plan_without_values_expects_nothing() -> None:
    assert Expected.by(plan_with()) is None


def test_what_a_plan_keeps_is_read_back_the_same() -> None:
    plan = plan_with(channels=("CT",), values=CT.values)

    again = type(plan).model_validate_json(plan.model_dump_json())

    assert again == plan
    assert Expected.by(again) == CT


@pytest.mark.parametrize("scale", [0.74, 0.76, 0.78, 0.8, 0.82])
def test_most_ct_at_about_eight_tenths_of_hu_are_doubted_by_their_air(scale: float) -> None:
    """Not all: the noise of air, or padding in its place, may hide where it lies."""
    found = [doubt for doubt in doubts(body, lambda hu: hu * scale, CT) if doubt]
    assert len(found) >= len(NEW) / 2
    assert all("as air does, which is -1000 in HU" in doubt.reason for doubt in found)


@pytest.mark.parametrize("scale", [0.9, 0.95, 1.05])
def test_a_scanner_that_is_calibrated_a_little_otherwise_is_not_doubted(scale: float) -> None:
    assert doubts(body, lambda hu: hu * scale, CT) == [None] * len(NEW)


def test_ct_whose_training_was_padded_with_0_too_is_not_doubted() -> None:
    def masked(seed: int) -> np.ndarray:
        return np.where(body(seed) < -500, 0, body(seed))

    known = expected(masked, "CT", "volumes", fixed=True)
    assert doubts(masked, lambda hu: hu, known) == [None] * len(NEW)


# --- the order of colours ---------------------------------------------------------------------------------------------

TISSUE = expected(photograph, "red", "images", fixed=True, cases=40)


@pytest.mark.parametrize(
    "change",
    [
        lambda rgb: rgb[..., ::-1],
        lambda rgb: (rgb[..., ::-1] * 0.8).astype(np.uint8),
        lambda rgb: rgb[2:38, 2:46, ::-1],
        lambda rgb: np.rot90(rgb[..., ::-1]),
        lambda rgb: np.clip(rgb[..., ::-1].astype(int) + 5, 0, 255).astype(np.uint8),
    ],
)
def test_blue_green_red_is_doubted_where_the_training_was_reddish(change: Change) -> None:
    found = doubts(photograph, change, TISSUE)
    assert all(doubt and "with red and blue exchanged it fits" in doubt.reason for doubt in found)


@pytest.mark.parametrize(
    "change",
    [
        lambda rgb: rgb,
        lambda rgb: (rgb * 0.7).astype(np.uint8),
        lambda rgb: rgb[5:30, 5:40],
        lambda rgb: np.dstack([rgb[..., 0]] * 3),
        lambda rgb: np.clip(rgb.astype(int) + 20, 0, 255).astype(np.uint8),
    ],
)
def test_colours_in_their_order_are_not_doubted(change: Change) -> None:
    assert doubts(photograph, change, TISSUE) == [None] * len(NEW)


def test_the_order_of_colours_is_not_doubted_where_the_training_had_all() -> None:
    def any_colour(seed: int) -> np.ndarray:
        return np.roll(photograph(seed), seed, axis=-1)

    known = expected(any_colour, "red", "images", fixed=True, cases=42)
    assert doubts(photograph, lambda rgb: rgb[..., ::-1], known) == [None] * len(NEW)


# --- what was below 0, read as unsigned -------------------------------------------------------------------------------


def _stored(seed: int) -> np.ndarray:
    """An MR of whole numbers to 1500, whose background is noise about 0."""
    found = brain(seed) / brain(seed).max() * 1500
    return np.rint(found + np.random.default_rng(seed).normal(0, 8, found.shape))


@pytest.mark.parametrize("cases", [1, 2, 12])
@pytest.mark.parametrize("lower", [0, 3, 30, 200, 1000])
def test_mr_that_was_wrapped_is_doubted_however_few_cases_were_trained_on(cases: int, lower: int) -> None:
    known = expected(lambda seed: np.abs(_stored(seed)), "MRI", "volumes", fixed=False, cases=cases)
    found = doubts(_stored, lambda mr: (mr - lower) % 65536, known)
    assert all(doubt and "read as unsigned" in doubt.reason for doubt in found)
    assert doubts(_stored, np.abs, known) == [None] * len(NEW)


@pytest.mark.parametrize("top", [65535, 65000, 40000, 300000])
def test_mr_of_the_whole_range_of_16_bits_is_not(top: int) -> None:
    known = expected(lambda seed: np.abs(_stored(seed)), "MRI", "volumes", fixed=False, cases=3)
    assert doubts(_stored, lambda mr: np.rint(np.clip(np.abs(mr) / 1000, 0, 1) * top), known) == [None] * len(NEW)
