"""Intensities become [0, 1] whatever their unit; a plan survives JSON, those of before as well."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError

from vpt.data.plan import Percentiles, Plan, Window, read_plan
from vpt.errors import VptError


def test_percentiles_by_hand():
    image = np.concatenate([np.zeros(5000), np.arange(1, 1002)]).astype(np.float32)  # 1..1001 and as many zeros again
    scaled = Percentiles()(image)  # of the non-zero: 0.5 % is 6, 99.5 % is 996
    assert scaled.dtype == np.float32
    assert scaled[[0, 5000, 5005, 5500, 5995, 6000]] == pytest.approx([0, 0, 0, 0.5, 1, 1])  # 0, 1, 6, 501, 996, 1001


def test_percentiles_ignore_the_zero_background_whatever_its_share():
    tissue = np.random.default_rng(0).uniform(10, 20, 500)
    scaled = [Percentiles()(np.concatenate([tissue, np.zeros(count)]))[:500] for count in (0, 100, 100_000)]
    assert np.array_equal(scaled[0], scaled[1])
    assert np.array_equal(scaled[0], scaled[2])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [0, 7, -3, 1e-9, 0.1, 1e9])
def test_a_constant_image_stays_constant_and_finite(value, dtype):
    scaled = Percentiles()(np.full((3, 4), value, dtype))
    assert np.ptp(scaled) == 0
    assert 0 <= scaled.min() <= 1


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1.0, 1e6])
def test_no_unit_is_too_small_or_too_large(scale):
    """A diffusion map in m2/s holds 1e-9, an uncalibrated MR 1e6: both keep their contrast."""
    image = np.random.default_rng(0).uniform(1, 2, (20, 20))
    assert Percentiles()(image * scale) == pytest.approx(Percentiles()(image), abs=1e-4)


def test_a_mask_of_two_values_stays_one():
    mask = np.zeros((6, 6), np.uint8)
    mask[2:4] = 255
    assert np.array_equal(Percentiles()(mask), mask / 255)


def test_negative_values_are_values_too():
    scaled = Percentiles(low=0, high=100)(np.array([-10.0, -5.0, 0.0, 10.0]))
    assert scaled == pytest.approx([0, 0.25, 0.5, 1])


@given(
    st.sampled_from([np.float32, np.float64, np.int16, np.int64, np.uint8]).flatmap(
        lambda dtype: arrays(
            dtype,
            (3, 5),
            elements=st.integers(0, 255)
            if np.issubdtype(dtype, np.integer)
            else st.floats(-1e6, 1e6, width=32, allow_nan=False),
        )
    )
)
@settings(max_examples=150, deadline=None)
def test_every_image_becomes_float32_between_0_and_1_and_keeps_its_order(image):
    original = image.copy()
    scaled = Percentiles()(image)
    assert scaled.dtype == np.float32
    assert scaled.min() >= 0
    assert scaled.max() <= 1
    order = np.argsort(image, axis=None, kind="stable")
    assert (np.diff(scaled.ravel()[order]) >= 0).all()
    assert np.array_equal(image, original)


# --- as JSON ----------------------------------------------------------------------------------------------------------


def test_a_plan_survives_json_and_unknown_keys_do_not():
    plan = Plan(
        plane="coronal",
        pixel_mm=0.7,
        image_size=96,
        neighbours=False,
        channels=("CT", "MRI"),
        intensity=(Window(low=-50, high=150.5), Percentiles(low=1)),
        reasons={"plane": "because"},
    )
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    with pytest.raises(ValidationError):
        Plan.model_validate({**plan.model_dump(), "colour": 1})
    with pytest.raises(ValidationError):
        plan.plane = "axial"


def test_a_plan_that_is_none_is_refused_in_a_sentence_however_many_keys_it_has(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({f"k{k}": k for k in range(2000)}))
    with pytest.raises(
        VptError, match=r"plan\.json: damaged, edited, or of another version: channels, .* more is"
    ) as said:
        read_plan(path)
    assert len(str(said.value)) < 300 + len(str(path))


def test_a_plan_of_before_there_were_images_still_loads():
    old = {
        "plane": "axial",
        "pixel_mm": 0.5,
        "image_size": 64,
        "neighbours": True,
        "channels": ["MRI"],
        "intensity": [{"kind": "percentiles", "low": 0.5, "high": 99.5}],
        "reasons": {},
    }
    plan = Plan.model_validate(old)
    assert (plan.padding, plan.fill, plan.kind) == ("centre", (0, 0, 0), "volumes")
    assert str(plan) == "axial slices, 0.5 mm per pixel, 64 px"
