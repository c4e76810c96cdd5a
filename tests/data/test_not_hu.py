"""A CT by its name alone is doubted before its window is read in HU."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from values import body, seen

from vpt.data.check import check_dataset
from vpt.data.doubts.not_hu import doubtful_hu, unnamed_hu
from vpt.data.layouts import read_dataset
from vpt.data.planned import EncoderInput, Wishes
from vpt.data.planning import make_plan
from vpt.errors import VptError

ENCODER = EncoderInput(native_size=64, patch=8)


@pytest.fixture
def ct(make_dataset):
    """make(low, high): four cases of a channel called CT, with values between these."""

    def make(low: float, high: float):
        root = make_dataset()
        content = json.loads((root / "dataset.json").read_text())
        (root / "dataset.json").write_text(json.dumps(content | {"channel_names": {"0": "CT"}}))
        for number, path in enumerate(sorted((root / "imagesTr").iterdir())):
            image = nib.load(path)
            values = np.random.default_rng(number).uniform(low, high, image.shape).astype(np.float32)
            nib.save(nib.Nifti1Image(values, image.affine), path)
        return root

    return make


@pytest.mark.parametrize("ends", [(0, 1), (-1, 1), (3, 12)])
def test_values_that_no_ct_has_are_refused_in_check_and_training(ct, ends):
    root = ct(*ends)
    (error,) = check_dataset(root).errors
    assert error.text.startswith("a CT by its name, but its values lie within ")
    dataset = read_dataset(root)
    with pytest.raises(VptError, match=r"in every case, so no HU; save it in HU, or, .* another name than CT"):
        make_plan(dataset, dataset.cases, ENCODER)
    assert make_plan(dataset, dataset.cases, ENCODER, Wishes(window=ends)).intensity[0].high == ends[1]


def test_a_lost_intercept_throughout_is_warned_of_and_hu_is_not(ct):
    check = check_dataset(ct(20, 2000))
    assert check.ok
    assert ["no value is below 0 in 4 cases (20" in each.text for each in check.warnings] == [True]
    assert check_dataset(ct(-900, 1200)).warnings == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda hu: hu + 1024, "nearly nothing lies below -150 in 4 cases and much above 650"),
        (lambda hu: hu + 1000, "nearly nothing lies below -150 in 4 cases and much above 650"),
        (lambda hu: np.where(hu < -800, -2000, hu + 1024), "nearly nothing lies below -150 in 4 cases and much above"),
        (lambda hu: hu * 10, "values lie below -1500 in 4 cases"),
        (lambda hu: hu - 1024, "values lie below -1500 in 4 cases"),
        (lambda hu: -hu, "along the edges of 4 cases lies about 1000"),
        (lambda hu: -np.maximum(hu, -1000), "along the edges of 4 cases lies about 1000"),
    ],
)
def test_another_zero_or_scale_throughout_is_warned_of(change, said):
    assert said in (doubtful_hu(["CT"], [seen(change(body(number))) for number in range(4)]) or "")


@pytest.mark.parametrize(
    "change",
    [lambda hu: hu, lambda hu: np.where(hu < -800, -3024, hu), lambda hu: np.clip(hu, -160, 240), lambda hu: hu[8:24]],
)
def test_hu_padded_clipped_or_cropped_throughout_is_not(change):
    assert doubtful_hu(["CT"], [seen(change(body(number))) for number in range(4)]) is None


@pytest.mark.parametrize("name", ["image", "0", "scan", "channel", "T1"])
def test_hu_under_another_name_is_said(name):
    said = unnamed_hu([name], [seen(body(number)) for number in range(4)])

    assert said is not None
    assert said.startswith(f"{name} has air at -1000 in 4 cases, as CT in HU, but is not called so")
    assert unnamed_hu(["CT"], [seen(body(number)) for number in range(4)]) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda hu: hu + 1024,
        lambda hu: np.clip(hu, -160, 240),
        lambda hu: (hu + 1000) / 2000,
        lambda hu: hu / 2,
        lambda hu: np.abs(hu),
    ],
)
def test_other_values_are_no_hu_under_another_name(change):
    assert unnamed_hu(["image"], [seen(change(body(number))) for number in range(4)]) is None
