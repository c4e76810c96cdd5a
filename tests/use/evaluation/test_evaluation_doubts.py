"""Masks that `vpt check` would doubt are doubted where they are scored: references and predictions alike."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from vpt.errors import VptError
from vpt.report.mask_summary import read_mask_summary
from vpt.report.mask_view import MaskSection
from vpt.use.evaluation.scoring import evaluate
from vpt.use.paired import compare_masks

Draw = Callable[[int], np.ndarray]


def disc(number: int, id: int = 1, shape: tuple[int, int] = (64, 80)) -> np.ndarray:
    rng = np.random.default_rng(number)
    y, x = np.indices(shape)
    centre = [rng.integers(14, side - 14) for side in shape]
    return (np.hypot(y - centre[0], x - centre[1]) < rng.uniform(10, 13)).astype(np.uint8) * np.uint8(id)


def turned(mask: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(ndimage.rotate(mask.astype(float), 13, order=1, reshape=False)), 0, 255).astype(np.uint8)


def dithered(mask: np.ndarray) -> np.ndarray:
    soft = ndimage.gaussian_filter((mask > 0).astype(float), 2) * 255
    return np.array(Image.fromarray(soft.astype(np.uint8)).convert("1")).astype(np.uint8) * np.uint8(mask.max())


def ringed(mask: np.ndarray, id: int) -> np.ndarray:
    return np.where(ndimage.binary_dilation(mask > 0) & (mask == 0), id, mask).astype(np.uint8)


def pictures(folder: Path, draw: Draw, ending: str = "png") -> Path:
    folder.mkdir()
    for number in range(6):
        Image.fromarray(draw(number)).save(folder / f"c{number}.{ending}")
    return folder


def volumes(folder: Path, draw: Draw) -> Path:
    folder.mkdir()
    for number in range(6):
        slices = np.stack([draw(number)] * 4, axis=-1)
        nib.save(nib.Nifti1Image(slices, np.diag([1.0, 1, 2, 1])), folder / f"c{number}.nii.gz")
    return folder


def against_copies(masks: Path, labels: list[int] | None = None) -> list[str]:
    """What is doubted where predictions are as the references, but files of their own."""
    copies = masks.parent / f"copies of {masks.name}"
    shutil.copytree(masks, copies, dirs_exist_ok=True)
    return [doubt.text for doubt in evaluate(copies, masks, labels).doubts]


DOUBTED: dict[str, tuple[Draw, str]] = {
    "interpolated": (lambda k: turned(disc(k, 4)), r"6 of 6 masks \(c0.* have labels as thin seams between others: 1"),
    "inverted": (lambda k: np.uint8(1) - disc(k), r"label 1 \(.*\) lies along 100% of the edges, where the background"),
    "some inverted": (lambda k: disc(k) ^ np.uint8(k < 2), r"2 of 6 masks \(c0.*, c1.*\) have a label along their"),
    "dithered": (lambda k: dithered(disc(k, 1)), r"6 of 6 masks .* edges strewn with single pixels"),
    "void": (lambda k: ringed(disc(k), 255), r"255 lies beside 1 in the same masks, as what shall not count does"),
    "numbered": (lambda k: np.repeat(np.arange(8 + k), 10)[:, None] * np.ones((1, 9), int), r"every mask counts from"),
    "a contour": (lambda k: ringed(disc(k, 2), 1), r"1 is a thin line between 0 and 2 wherever it is"),
}  # fmt: skip


@pytest.mark.parametrize("save", [pictures, volumes])
@pytest.mark.parametrize("fault", DOUBTED)
def test_doubtful_references_are_scored_with_a_warning(tmp_path: Path, fault: str, save: Callable[..., Path]) -> None:
    draw, said = DOUBTED[fault]
    if fault == "dithered" and save is volumes:
        return  # of which a threshold of noise leaves the same
    truth = save(tmp_path / "truth", lambda k: draw(k).astype(np.uint8))

    report = evaluate(save(tmp_path / "masks", lambda k: np.zeros_like(draw(k), np.uint8)), truth)

    assert [doubt.side for doubt in report.doubts] == ["references"]
    assert re.match(f"references: {said}", str(report.doubts[0]))
    for told in (report.text(), report.markdown()):
        assert "warning: references: " in told


@pytest.mark.parametrize("save", [pictures, volumes])
def test_predictions_are_doubted_too(tmp_path: Path, save: Callable[..., Path]) -> None:
    truth = save(tmp_path / "truth", lambda k: disc(k, 4))

    report = evaluate(save(tmp_path / "masks", lambda k: np.where(disc(k), 0, 4).astype(np.uint8)), truth)

    assert [str(doubt).split(" (")[0] for doubt in report.doubts] == ["predictions: label 4"]
    with pytest.raises(VptError, match=r"c0.*: labels 1, 2, 3 not in 4 .*they lie at the edges of other labels"):
        evaluate(save(tmp_path / "shaded", lambda k: turned(disc(k, 4))), truth)


def test_given_labels_let_no_shade_pass_in_silence(tmp_path: Path) -> None:
    truth = pictures(tmp_path / "truth", lambda k: disc(k, 255))
    shaded = pictures(tmp_path / "shaded", lambda k: turned(disc(k, 255)))

    for predictions, references in ((shaded, truth), (truth, shaded)):
        (doubt,) = evaluate(predictions, references, [255]).doubts
        assert doubt.side == ("predictions" if predictions is shaded else "references")
        assert "which lie at the edges of other labels" in doubt.text
    assert against_copies(truth, [255]) == []


def test_a_label_written_in_two_ways_where_labels_are_given(tmp_path: Path) -> None:
    mixed = pictures(tmp_path / "mixed", lambda k: disc(k, 255 if k % 2 else 1))
    assert "likely the same labels, written in two ways" in against_copies(mixed, [255])[0]
    assert against_copies(mixed, [1, 255]) == []


def test_named_labels_are_believed(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    truth = pictures(tmp_path / "data" / "masks", lambda k: ringed(disc(k, 2), 1))
    named = {"background": 0, "wall": 1, "inside": 2}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps({"labels": named}))
    assert against_copies(truth) == []


def test_jpeg_masks_are_told(tmp_path: Path) -> None:
    truth = pictures(tmp_path / "truth", lambda k: disc(k, 255))
    (doubt,) = evaluate(pictures(tmp_path / "masks", lambda k: disc(k, 255), "jpg"), truth).doubts
    assert str(doubt).startswith("predictions: 6 of 6 masks (c0.jpg, c1.jpg, c2.jpg and 3 more) are JPEG, whose values")


@pytest.mark.parametrize(
    "draw",
    [
        disc,
        lambda k: disc(k, 255),
        lambda k: np.maximum(disc(k), disc(k + 9, 3)),
        lambda k: ndimage.rotate(disc(k, 4), 13, order=0, reshape=False),
    ],
)
def test_sound_masks_are_not_doubted(tmp_path: Path, draw: Draw) -> None:
    truth = pictures(tmp_path / "truth", draw)
    assert against_copies(truth) == []


def test_more_values_than_training_takes_are_refused(tmp_path: Path) -> None:
    many = pictures(tmp_path / "many", lambda k: np.repeat(np.arange(64, dtype=np.uint8), 80).reshape(64, 80))
    with pytest.raises(VptError, match=r"many.c5\.png: with it the masks hold more than 30 .* or give `labels`"):
        evaluate(many, many)
    assert evaluate(many, many, [3]).mean() == 1.0


@pytest.mark.slow
def test_pages_and_comparisons_tell_doubts(tmp_path: Path) -> None:
    truth = volumes(tmp_path / "truth", lambda k: turned(disc(k, 4)))
    masks = [volumes(tmp_path / name, lambda k: disc(k, 4)) for name in ("a", "b")]
    report = evaluate(masks[0], truth)
    summary = json.loads(report.save(tmp_path / "out").read_text())
    assert summary["doubts"] == [str(report.doubts[0])]
    notes = MaskSection(read_mask_summary(summary, [f"c{k}" for k in range(6)]), []).view()["notes"]
    assert isinstance(notes, list)
    assert notes[0] == f"Warning: {report.doubts[0]}"
    paired = compare_masks(*masks, truth)
    assert [note for note in paired.notes if "thin seams" in note] == [f"warning: {report.doubts[0]}"]


def test_masks_that_exif_turns_on_one_side_are_told(tmp_path):
    predictions = pictures(tmp_path / "p", lambda k: disc(k, 255))
    references = pictures(tmp_path / "t", lambda k: disc(k, 255))
    assert not [each for each in evaluate(predictions, references).doubts if "EXIF" in each.text]
    marked = Image.open(references / "c2.png")
    exif = marked.getexif()
    exif[0x0112] = 3
    marked.save(references / "c2.png", exif=exif)
    (doubt,) = [each for each in evaluate(predictions, references).doubts if "EXIF" in each.text]
    assert doubt.side == "predictions"
    assert doubt.text.startswith("1 of 6 masks (c2.png) is turned by EXIF in another way than the reference (")


def test_labels_that_no_reference_holds_are_told(tmp_path):
    folder = volumes(tmp_path / "t", disc)
    (doubt,) = [each for each in evaluate(folder, folder, [3, 4]).doubts if "to score" in each.text]
    assert doubt.side == "references"
    assert re.match(r"none holds label 3, label 4 \(from .*\), but 1; are these the labels to score\?", doubt.text)
    empty = volumes(tmp_path / "empty", lambda k: disc(k, 0))
    for masks, labels in ((folder, [1, 3]), (empty, [1])):
        assert not [each for each in evaluate(masks, masks, labels).doubts if "to score" in each.text]


def test_two_files_that_call_a_segment_differently_are_not_compared(tmp_path):
    itk = pytest.importorskip("SimpleITK")
    for name, other in (("p", "tumour"), ("t", "liver")):
        image = itk.GetImageFromArray(np.stack([disc(0, 1)] * 3))
        image.SetMetaData("Segment0_Name", other)
        image.SetMetaData("Segment0_LabelValue", "1")
        second = "liver" if other == "tumour" else "tumour"
        image.SetMetaData("Segment1_Name", second)
        image.SetMetaData("Segment1_LabelValue", "2")
        (tmp_path / name).mkdir()
        itk.WriteImage(image, str(tmp_path / name / "a.seg.nrrd"))
    with pytest.raises(VptError, match=r"segment 1 is called tumour, which is label 2 of .*t.a\.seg\.nrrd, and 1 is"):
        evaluate(tmp_path / "p", tmp_path / "t")


def test_a_label_that_no_prediction_holds_is_told_where_they_hold_others(tmp_path):
    mine, theirs = volumes(tmp_path / "p", disc), volumes(tmp_path / "t", lambda number: disc(number, 255))
    (doubt,) = evaluate(mine, theirs, [255]).doubts
    assert str(doubt).startswith("predictions: none holds label 255, which references hold, but there is 1; number")

    both = volumes(tmp_path / "q", lambda number: ringed(disc(number), 3))
    two = volumes(tmp_path / "u", lambda number: ringed(disc(number), 2))
    (doubt,) = evaluate(both, two, [1, 2]).doubts
    assert "none holds label 2, which references hold, but there is 3" in str(doubt)


def test_a_label_that_was_missed_is_no_doubt_where_all_else_is_known(tmp_path):
    mine = volumes(tmp_path / "p", lambda number: ringed(disc(number), 3))
    theirs = volumes(tmp_path / "t", lambda number: ringed(ringed(disc(number), 3), 2))
    assert [each for each in evaluate(mine, theirs, [1, 2]).doubts if each.side == "predictions"] == []


def test_masks_against_themselves_are_told(tmp_path):
    folder = volumes(tmp_path / "t", disc)
    (tmp_path / "p").symlink_to(folder)
    (doubt,) = evaluate(tmp_path / "p", folder).doubts
    assert str(doubt).startswith(
        "predictions: 6 of 6 masks are the reference itself (c0.nii.gz, c1.nii.gz, c2.nii.gz and"
    )
    shutil.copytree(folder, tmp_path / "q")
    assert evaluate(tmp_path / "q", folder).doubts == ()


def test_a_label_that_is_missed_is_no_doubt_where_predictions_hold_another_of_the_references(tmp_path):
    mine = volumes(tmp_path / "p", disc)
    theirs = volumes(tmp_path / "t", lambda number: ringed(disc(number), 2))
    assert [each for each in evaluate(mine, theirs, [2]).doubts if each.side == "predictions"] == []
