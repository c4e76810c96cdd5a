"""New scans whose values are not those of the training: refused by name, or warned of where that is wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from masks import LABELS, image_plan, scan_plan, threshold, tiny
from PIL import Image
from scans import voxels_of
from values import body, expected, photograph, xray

from vpt.artifact import read_artifact, save_artifact
from vpt.data.cases import Case
from vpt.data.plan import Plan, Window
from vpt.data.sizes import TrainingSizes
from vpt.errors import VptError, VptWarning
from vpt.use.archives import Masking, classify_cases, segment_cases
from vpt.use.classifier import Classifier
from vpt.use.inference import require_usual

FLAT = image_plan(values=expected(xray, "grey", "images", fixed=True).values)
COLOUR = image_plan(colour=True, values=expected(photograph, "red", "images", fixed=True).values)
CT = scan_plan(
    channels=("CT",),
    intensity=(Window(low=-100, high=200),),
    values=expected(body, "CT", "volumes", fixed=True).values,
)


def classifier(plan: Plan) -> Classifier:
    """Which prepares scans; what it would say of them does not matter here."""
    return Classifier(None, None, plan, ("a", "b"), "classes", torch.device("cpu"), 4)  # type: ignore[arg-type]


def ct(seed: int = 100, shift: float = 0) -> nib.Nifti1Image:
    return nib.Nifti1Image((body(seed) + shift).astype(np.int16), np.diag([1.0, 1.0, 3.0, 1.0]))


def deep(picture: np.ndarray) -> np.ndarray:
    return picture.astype(np.uint16) * 16 + 5


PICTURES: list[Any] = [deep(xray(100)), (xray(100) / 255).astype(np.float32), 255 - xray(100)]


@pytest.mark.parametrize("picture", PICTURES, ids=["12 bits", "[0, 1]", "negative"])
def test_an_array_is_refused_and_forced(picture: np.ndarray) -> None:
    said = r"^the array given: values from .* do not look like the 8-bit values that the model was trained on \(0 to"
    with pytest.raises(VptError, match=said):
        threshold(FLAT).segment(picture)
    with pytest.raises(VptError, match=said):
        classifier(FLAT).prepare(picture)

    with pytest.warns(VptWarning, match=said):
        assert threshold(FLAT).segment(picture, force=True).shape == picture.shape
    with pytest.warns(VptWarning, match=said):
        classifier(FLAT).prepare(picture, force=True)


def test_arrays_that_fit_are_taken_without_a_word(recwarn: pytest.WarningsRecorder) -> None:
    for picture in (xray(100), xray(101).astype(np.float32), xray(102).astype(np.uint16)):
        assert threshold(FLAT).segment(picture).any()
    threshold(COLOUR).segment(photograph(100))
    threshold(COLOUR).segment(np.dstack([photograph(101)[..., 0]] * 3))  # grey, as photographs may be
    threshold(CT).segment(ct())

    assert [each for each in recwarn if each.category is VptWarning] == []


def test_one_scan_as_two_channels_is_warned_of() -> None:
    known = expected(body, "CT", "volumes", fixed=True).values
    other = known.channels[0].model_copy(update={"high": known.channels[0].high + 1})
    plan = scan_plan(
        channels=("T1", "T2"),
        neighbours=0,
        intensity=(Window(low=-100, high=200),) * 2,
        values=known.model_copy(update={"channels": (known.channels[0], other)}),
    )
    first, second = (np.rint(body(seed)).astype(np.float32) for seed in (100, 101))
    assert require_usual(plan, "a", voxels_of(np.stack([first, second])), False) == ()

    with pytest.warns(VptWarning, match="^a: T1 and T2 hold the same values; is one file given under two names"):
        (said,) = require_usual(plan, "a", voxels_of(np.stack([first, first])), False)
    assert said.startswith("a: T1 and T2")
    trained_so = plan.model_copy(update={"values": known.model_copy(update={"channels": known.channels * 2})})
    assert require_usual(trained_so, "a", voxels_of(np.stack([first, first])), False) == ()


def test_colour_for_a_grey_model_is_refused() -> None:
    with pytest.raises(VptError, match="a colour image, expected grey"):
        threshold(FLAT).segment(photograph(100))


def test_16_bits_that_were_8_have_the_mask_of_8(tmp_path: Path) -> None:
    picture = xray(100)
    Image.fromarray(picture.astype(np.uint16) * 257).save(tmp_path / "wide.png")
    segmenter = threshold(FLAT)

    for wide in (tmp_path / "wide.png", picture.astype(np.uint16) * 257, picture.astype(np.uint16) * 256):
        assert np.array_equal(segmenter.segment(wide), segmenter.segment(picture))
    assert np.array_equal(classifier(FLAT).prepare(tmp_path / "wide.png"), classifier(FLAT).prepare(picture))


@pytest.mark.slow
@pytest.mark.parametrize("shift", [1024, 1000, -1024])
def test_a_nibabel_image_and_a_path_that_are_not_in_hu(tmp_path: Path, shift: int) -> None:
    nib.save(ct(shift=shift), tmp_path / "a.nii.gz")
    for scan, name in ((ct(shift=shift), "the image given"), (tmp_path / "a.nii.gz", str(tmp_path / "a.nii.gz"))):
        with pytest.raises(VptError, match=f"^{name}: values from .* do not look like the HU .*--force"):
            threshold(CT).segment(scan)
        with pytest.warns(VptWarning, match=f"^{name}: values from"):
            threshold(CT).segment(scan, force=True)


@pytest.mark.slow
def test_of_a_folder_the_others_are_segmented(tmp_path: Path) -> None:
    for name, shift in (("a", 0), ("b", 1024), ("c", 0)):
        nib.save(ct(shift=shift), tmp_path / f"{name}.nii.gz")
    cases = [Case(name, (tmp_path / f"{name}.nii.gz",), None) for name in "abc"]
    out = tmp_path / "out"
    out.mkdir()

    def target(case: Case) -> Path:
        return out / f"{case.name}.nii.gz"

    failures = segment_cases(Masking(threshold(CT), target), cases)

    assert [failure.name for failure in failures] == ["b"]
    assert "do not look like the HU" in failures[0].reason
    assert sorted(path.name for path in out.iterdir()) == ["a.nii.gz", "c.nii.gz"]
    with pytest.warns(VptWarning, match=r"b\.nii\.gz: values"):
        assert segment_cases(Masking(threshold(CT), target, force=True), cases) == []
    assert (out / "b.nii.gz").is_file()


def test_of_pictures_to_classify_the_doubtful_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = classifier(FLAT)
    monkeypatch.setattr(judge, "probabilities", lambda stacks: np.full((len(stacks), 2), 0.5))
    cases = [("a", [xray(100)]), ("b", [deep(xray(101))]), ("c", [xray(102)])]

    names, probabilities, failures = classify_cases(judge, cases)

    assert (names, len(probabilities), [failure.name for failure in failures]) == (["a", "c"], 2, ["b"])
    with pytest.warns(VptWarning):
        assert classify_cases(judge, cases, force=True)[0] == ["a", "b", "c"]


def test_an_artifact_whose_plan_says_nothing_of_values_doubts_none(tmp_path: Path) -> None:
    old = CT.model_copy(update={"values": None})
    model, config = tiny(old)
    path = tmp_path / "old.safetensors"
    save_artifact(path, model, config=config, plan=old, labels=LABELS, scores={})

    assert read_artifact(path).plan.values is None
    threshold(read_artifact(path).plan).segment(ct(shift=1024))
    with pytest.raises(VptError, match="do not look like the HU"):
        threshold(CT).segment(ct(shift=1024))


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.1, 0.01, 10, 100, 1000])
def test_a_scan_in_cm_is_refused_and_forced(tmp_path: Path, factor: float) -> None:
    plan = CT.model_copy(update={"sizes": TrainingSizes(pixel=(0.9, 1.2), side=(28, 36))})
    image = ct()
    image.set_sform(image.affine @ np.diag([*[factor] * 3, 1]))
    nib.save(ct(), tmp_path / "right.nii.gz")
    nib.save(image, tmp_path / "cm.nii.gz")

    threshold(plan).segment(tmp_path / "right.nii.gz")
    said = r"cm\.nii\.gz: pixels of .* mm in slices of .* mm by its header, .* in the header"
    with pytest.raises(VptError, match=f"{said}, or go on with --force" if factor in (0.1, 10) else f"{said}$"):
        threshold(plan).segment(tmp_path / "cm.nii.gz")
    with pytest.raises(VptError, match="pixels of"):
        classifier(plan).prepare(tmp_path / "cm.nii.gz")
    if factor in (0.1, 10):  # of others no slice can be made, which no force changes
        with pytest.warns(VptWarning, match="likely cm, m or microns"):
            threshold(plan).segment(tmp_path / "cm.nii.gz", force=True)


@pytest.mark.parametrize("value", [0, -1000])
def test_an_empty_volume_is_warned_of(value: int) -> None:
    blank = nib.Nifti1Image(np.full((20, 18, 6), value, np.int16), np.diag([1.0, 1.0, 3.0, 1.0]))

    with pytest.warns(VptWarning, match=f"^the image given: all voxels are {value}; is the export complete"):
        assert threshold(CT).segment(blank).shape == blank.shape
