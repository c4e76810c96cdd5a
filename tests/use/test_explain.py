"""`vpt explain` says of a trained model what its own passes say, on scans and images, and leaves a page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from masks import scan_plan, threshold

import vpt
from vpt.errors import VptError
from vpt.explaining import SHARES
from vpt.nearest_patches import Near
from vpt.use.explain import explain, weights_of
from vpt.use.neighbours import Neighbours, crop
from vpt.use.watched import first_slice, look_at, stack_image


def scan_of(data: Path) -> Path:
    return sorted((data / "imagesTr").iterdir())[0]


@pytest.mark.slow
def test_a_scan_is_told_on_the_slice_in_which_most_is_found(tiny_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    found = explain(tiny_run, scan_of(tiny_data), leave_out=False)
    mask = np.asarray(vpt.load(tiny_run, precision="32-true").segment(scan_of(tiny_data)).dataobj) > 0
    counts = mask.sum((0, 1))
    assert found.slice is not None
    if counts.any():
        assert counts.max() in (counts[found.slice], counts[::-1][found.slice])
    assert len(found.prompts) == 8 * 4
    assert all(0 < prompt.share < 1 and prompt.influence is None for prompt in found.prompts)
    assert found.heads[0].shape == (4, 4, 4, 4)
    assert np.allclose(found.heads[3].mean(0)[..., 1], found.prompts[13].attention, atol=1e-6)
    assert [each.share for each in found.hidden] == list(SHARES)
    assert found.hidden[0].most_attending == pytest.approx(found.score, abs=1e-5)
    assert found.hidden[0].random == pytest.approx(found.score, abs=1e-5)
    page, facts, maps = found.save(tmp_path / "out")
    assert page.read_text().count("% of attention") == 32
    assert 'src="http' not in page.read_text()
    assert len(json.loads(facts.read_text())["prompts"]) == 32
    assert set(np.load(maps)) == {f"block_{i}" for i in range(8)}


@pytest.mark.slow
def test_training_patches_near_to_prompts_are_shown_with_their_images(
    tiny_run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    found = explain(tiny_run, scan_of(tiny_data), leave_out=False, images=3)
    assert isinstance(found.near, Neighbours)
    train = json.loads((tiny_run / "splits.json").read_text())["train"]
    assert (len(found.near.names), found.near.of) == (3, len(train))
    assert {*found.near.names} <= {*train}
    again = explain(tiny_run, scan_of(tiny_data), leave_out=False, images=3)
    assert [each.to_dict() for each in again.near.found[3, 1]] == [each.to_dict() for each in found.near.found[3, 1]]
    for near in found.near.found.values():
        assert len({each.case for each in near}) == 3
        assert [each.cosine for each in near] == sorted((each.cosine for each in near), reverse=True)
        assert all(each.slice is not None and each.crop.shape[:2] == (24, 24) for each in near)
    page, facts, _ = found.save(tmp_path / "out")
    assert page.read_text().count("training patches nearest to prompt") == 32
    assert "of 3 training images (drawn from 4 with seed 0; of a volume one slice each)" in page.read_text()
    told = json.loads(facts.read_text())
    assert told["training_images"] == list(found.near.names)
    assert set(told["prompts"][5]["nearest"][0]) == {"case", "slice", "row", "column", "cosine"}


def test_patches_are_hidden_by_the_prompts_that_help_or_by_all_where_none_does() -> None:
    places = [(0, 0), (0, 1), (3, 0)]
    assert weights_of(places, {(0, 0): 0.2, (0, 1): -0.1, (3, 0): 0.0}) == {(0, 0): 0.2, (0, 1): 0.0, (3, 0): 0.0}
    alike = dict.fromkeys(places, 1.0)
    assert weights_of(places, dict.fromkeys(places, -0.1)) == alike, "else the first patches would pass for the most"
    assert weights_of(places, {}) == alike


def test_the_crop_is_the_patch_among_those_around_it() -> None:
    picture = np.arange(64.0).reshape(8, 8)
    inside = crop(picture, Near(0, 1, 2, 4, 4, 1.0))
    assert np.array_equal(inside, picture[0:6, 2:8])
    corner = crop(picture, Near(0, 0, 3, 4, 4, 1.0))
    assert np.array_equal(corner[2:4, 2:4], picture[0:2, 6:8])
    assert np.array_equal(corner[2:4, 4:], picture[0:2, 7:8].repeat(2, 1))


@pytest.mark.slow
def test_without_the_training_images_it_is_said_or_refused(tiny_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    alone = Path(shutil.copy(tiny_run / "best.safetensors", tmp_path / "alone.safetensors"))
    with pytest.raises(VptError, match=r"no splits\.json beside it, so its training images are not known"):
        explain(alone, scan_of(tiny_data), leave_out=False, images=3)
    found = explain(alone, scan_of(tiny_data), leave_out=False, images=None)
    assert "no splits.json beside it" in str(found.near)
    page, facts, _ = found.save(tmp_path / "out")
    assert "No training patches: " in page.read_text()
    assert "nearest" not in facts.read_text()


def test_a_slice_that_is_not_there_is_refused(tiny_run: Path, tiny_data: Path) -> None:
    with pytest.raises(VptError, match="no slice 999; it has"):
        explain(tiny_run, scan_of(tiny_data), slice=999)


def test_of_several_models_and_a_slice_of_a_classifier_nothing_is_told(
    tiny_run: Path, class_run: Path, tiny_classes: Path, tmp_path: Path
) -> None:
    for number in (1, 2):
        shutil.copytree(tiny_run, tmp_path / f"fold_{number}")
    with pytest.raises(VptError, match="2 models; explain reads the prompts of one, such as"):
        explain([tmp_path / "fold_1", tmp_path / "fold_2"], tmp_path)
    with pytest.raises(VptError, match="slice 0: a classifier looks at the slices of its plan"):
        explain(class_run, sorted(tiny_classes.rglob("*.png"))[0], slice=0)


@pytest.mark.slow
def test_an_image_is_told_by_the_probability_of_its_class(class_run: Path, tiny_classes: Path) -> None:
    image = sorted(tiny_classes.rglob("*.png"))[0]
    found = explain(class_run, image)
    answers = vpt.load(class_run, precision="32-true").classify(image)
    best = max(answers, key=lambda name: answers[name])
    assert found.watched == f"the probability of {best}"
    assert found.score == pytest.approx(answers[best], abs=1e-4)
    assert {(prompt.block, prompt.number) for prompt in found.prompts} == {(i, k) for i in range(8) for k in range(2)}
    assert all(prompt.influence is not None for prompt in found.prompts)
    assert found.alike[0].shape == (2, 2)


def test_slices_are_numbered_in_the_whole_scan_where_the_plan_crops() -> None:
    inside = np.zeros((22, 24, 30), np.int16)
    inside[4:18, 5:20, 14:25] = 500
    inside[6:14, 8:16, 20] = 900
    given, plan = nib.Nifti1Image(inside, np.eye(4)), scan_plan(crop="foreground", neighbours=False)
    segmenter = threshold(plan)
    prepared = segmenter.prepare(given, True)
    first = first_slice(prepared)
    assert 0 < first <= 14
    seen = look_at(segmenter, given, None, True)
    found = np.asarray(segmenter.segment(given, force=True).dataobj) > 0
    assert found.any((0, 1))[seen.slice]
    assert found.sum((0, 1)).argmax() == seen.slice
    assert look_at(segmenter, given, 20, True).slice == 20
    with pytest.raises(VptError, match=f"slice 2 is cut off with what is not foreground .* give one from {first} to"):
        look_at(segmenter, given, 2, True)
    with pytest.raises(VptError, match="no slice 30; it has 30, from 0 on"):
        look_at(segmenter, given, 30, True)


def test_the_slice_of_a_volume_that_is_classified_is_numbered_in_the_volume(scan_run: Path, tmp_path: Path) -> None:
    classifier = vpt.load(scan_run, "cpu", precision="32-true")
    ramp = np.broadcast_to(np.arange(40, dtype=np.int16) * 20, (24, 24, 40))
    affine = np.eye(4)
    middle, image = stack_image(classifier, nib.Nifti1Image(np.ascontiguousarray(ramp), affine), True)
    count = classifier.plan.slices
    assert middle == int((count // 2 + 0.5) * 40 / count)
    assert image.shape[0] == 1
