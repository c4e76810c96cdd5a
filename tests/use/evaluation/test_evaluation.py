"""Real NIfTI files in, a report or one clear sentence out."""

from __future__ import annotations

import gzip
import json
import math

import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_erosion, distance_transform_edt

from vpt.errors import VptError
from vpt.scores.cases import score_case
from vpt.use.evaluation.scoring import evaluate

AFFINE = np.array([[-0.5, 0, 0.03, 9.4], [0, 0.8, -0.2, -13.2], [0, 0.02, 3.0, 2.6], [0, 0, 0, 1.0]])


@pytest.fixture
def odd_volumes(data_root):
    return data_root / "odd_volumes"


def image(data, affine=AFFINE, dtype=np.uint8):
    return nibabel.Nifti1Image(np.asarray(data, dtype), affine)


def cube(start=2, size=4, label=1, shape=(10, 11, 12)):
    data = np.zeros(shape, np.uint8)
    data[start : start + size, 2:6, 2:6] = label
    return data


def save(path, data, affine=AFFINE, dtype=np.uint8):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image(data, affine, dtype), path)
    return path


@pytest.fixture
def folders(tmp_path):
    """Three cases of labels 1 and 2: equal; moved by half; label 2 missed."""
    for name, start, second in (("a", 2, 8), ("b", 4, 8), ("c", 2, 0)):
        save(tmp_path / "pred" / f"{name}.nii.gz", cube(start) + cube(8, 2, second and 2))
        save(tmp_path / "data" / "labelsTr" / f"{name}.nii", cube() + cube(8, 2, 2))
    return tmp_path / "pred", tmp_path / "data" / "labelsTr"


def refused(sentence, *arguments, **options):
    """The sentence in full, so that a reader of the test sees what the user reads."""
    with pytest.raises(VptError) as caught:
        evaluate(*arguments, **options)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


# --- what is scored --------------------------------------------------------------------------------------------------


def test_folders_are_paired_by_case_name(folders):
    report = evaluate(*map(str, folders))
    assert [case.name for case in report.cases] == ["a", "b", "c"]
    assert report.labels == {1: "label 1", 2: "label 2"}
    assert report.values("Dice").tolist() == [[1, 1], [0.5, 1], [1, 0]]
    assert report.cases[1].scores[1].hd95 == pytest.approx(2 * 0.5)
    assert report.cases[0].scores[1].volume_ref_ml == pytest.approx(64 * abs(np.linalg.det(AFFINE[:3, :3])) / 1000)
    assert report.counts(2) == {"cases": 3, "both_empty": 0, "false_positives": 0, "missed": 1, "hd95_undefined": 1}
    assert math.isnan(report.cases[2].scores[2].hd95)
    assert report.cases[0].prediction_file == str(folders[0] / "a.nii.gz")
    assert report.cases[0].reference_file == str(folders[1] / "a.nii")


def test_a_report_goes_to_disk(folders, tmp_path):
    summary = json.loads(evaluate(*folders).save(tmp_path / "out").read_text())
    assert summary["mean"]["2"]["Dice"] == pytest.approx(2 / 3)
    assert summary["foreground_mean"]["Dice"] == pytest.approx((2.5 + 2) / 6)
    assert summary["metric_per_case"][2]["reference_file"].endswith("c.nii")


def test_files_images_and_sequences_give_the_same(folders):
    predictions, references = sorted(folders[0].iterdir()), sorted(folders[1].iterdir())
    expected = evaluate(*folders).values("NSD")
    assert np.array_equal(evaluate(predictions, [str(file) for file in references]).values("NSD"), expected)
    images = evaluate(map(nibabel.load, predictions), references)
    assert np.array_equal(images.values("NSD"), expected)
    assert images.cases[1].name == "b"
    assert evaluate(predictions[1], references[1]).values("Dice").tolist() == [[0.5, 1]]


def test_images_without_a_file(folders):
    report = evaluate(image(cube(4)), image(cube()))
    assert report.cases[0].name == "image"
    assert report.mean() == 0.5
    assert [case.name for case in evaluate([image(cube())] * 2, [image(cube())] * 2).cases] == ["image 1", "image 2"]


def test_float_files_and_scaled_files_hold_labels(tmp_path):
    scaled = image(cube(label=30), dtype=np.int16)  # stored 30, slope 0.1: read as 3.00000004
    scaled.header.set_slope_inter(0.1, 0)
    nibabel.save(scaled, tmp_path / "scaled.nii")
    assert 0 < abs(nibabel.load(tmp_path / "scaled.nii").get_fdata().max() - 3) < 1e-6
    assert evaluate(tmp_path / "scaled.nii", image(cube(label=3))).mean() == 1.0
    floats = save(tmp_path / "floats.nii.gz", cube(label=2), dtype=np.float32)
    assert evaluate(floats, image(cube(label=2))).mean() == 1.0
    assert evaluate(image(cube(label=2), dtype=np.int16), floats).labels == {2: "label 2"}


def test_options_reach_the_scores(folders):
    report = evaluate(*folders, [1, 2, 5], empty="one", tolerance=0.2, title="fold 0")
    assert report.mean("Dice", 5) == 1.0
    assert report.counts(5)["both_empty"] == 3
    assert report.cases[1].scores[1].nsd < evaluate(*folders).cases[1].scores[1].nsd
    settings = report.summary()["settings"]
    assert (settings["title"], settings["empty"], settings["tolerance_mm"]) == ("fold 0", "one", 0.2)


def test_in_memory_scores_equal_those_of_files(folders):
    case = evaluate(*folders).cases[1]
    arrays = [np.asarray(nibabel.load(file).dataobj) for file in (case.prediction_file, case.reference_file)]
    spacing = nibabel.affines.voxel_sizes(AFFINE)
    assert score_case(*arrays, spacing, [1], distances=False)[1].dice == case.scores[1].dice
    assert score_case(*arrays, spacing, [1])[1].hd95 == pytest.approx(case.scores[1].hd95)


def test_progress_is_told_after_each_case(folders):
    seen = []
    evaluate(*folders, progress=lambda *step: seen.append(step))
    assert seen == [(1, 3, "a"), (2, 3, "b"), (3, 3, "c")]


# --- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["labelsTr/dataset.json", "dataset.json"])
@pytest.mark.parametrize(
    "labels", [{"0": "background", "1": "Anterior", "2": "Posterior"}, {"background": 0, "Posterior": 2, "Anterior": 1}]
)
def test_dataset_json_names_the_labels(folders, place, labels):
    (folders[1].parent / place).write_text(json.dumps({"labels": labels}))
    assert evaluate(*folders).labels == {1: "Anterior", 2: "Posterior"}
    one = evaluate(folders[0] / "a.nii.gz", folders[1] / "a.nii")
    assert one.labels == {1: "Anterior", 2: "Posterior"}
    assert evaluate(*folders, {1: "a", 2: "b"}).labels == {1: "a", 2: "b"}


def test_what_dataset_json_merges_drops_and_ignores_is_so_in_both(folders):
    merged = {"labels": {"background": 0, "both": [1, 2]}}
    (folders[1] / "dataset.json").write_text(json.dumps(merged))
    report = evaluate(*folders)
    assert report.labels == {1: "both"}
    found, true = (np.array([cube(start) + cube(8, 2, 2) > 0]) for start in (4, 2))
    assert report.cases[1].scores[1].dice == pytest.approx(2 * (found & true).sum() / (found.sum() + true.sum()))
    (folders[1] / "dataset.json").write_text(json.dumps({"labels": {"background": [0, 2], "one": 1}}))
    assert evaluate(*folders).values("Dice").tolist() == [[1], [0.5], [1]]
    (folders[1] / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "one": 1, "ignore": 2}}))
    (folders[0] / "b.nii.gz").unlink()
    refused("a.nii.gz: label 2 not in 1 (from", *folders)  # nobody predicts what is ignored
    save(folders[0] / "a.nii.gz", cube() + cube(8, 2, 1))
    assert evaluate(folders[0] / "a.nii.gz", folders[1] / "a.nii").values("Dice").tolist() == [[1]]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "dataset.json: not valid JSON at line 1, column 2 ("),
        (
            '{"labels": {"whole": [1, 2], "core": 2}}',
            "dataset.json: label 2 is in whole and in core; give every label one name",
        ),
        ('{"labels": {"background": 0}}', "dataset.json: labels hold only the background"),
        ('{"labels": {"1": "a"}}', "a.nii: label 2 not in 1 (from "),
    ],
)
def test_dataset_json_that_does_not_fit_is_said(folders, content, sentence):
    save(folders[0] / "a.nii.gz", cube())
    (folders[1] / "dataset.json").write_text(content)
    refused(sentence, *folders)


def test_dataset_json_without_labels_is_passed_over(folders):
    (folders[1] / "dataset.json").write_text('{"name": "mine"}')
    assert evaluate(*folders).labels == {1: "label 1", 2: "label 2"}


def test_given_labels_may_be_some_of_those_in_the_references(folders):
    save(folders[0] / "a.nii.gz", cube())
    pair = folders[0] / "a.nii.gz", folders[1] / "a.nii"
    assert evaluate(*pair, [1]).labels == {1: "label 1"}
    assert evaluate(*pair, {0: "background", 1: "organ"}).labels == {1: "organ"}


def test_label_only_in_one_reference_is_scored_in_all(folders):
    save(folders[1] / "c.nii", cube() + cube(8, 2, 7))
    report = evaluate(*folders, empty="nan")
    assert report.labels == {1: "label 1", 2: "label 2", 7: "label 7"}
    assert report.counts(7) == {"cases": 3, "both_empty": 2, "false_positives": 0, "missed": 1, "hd95_undefined": 1}


def test_unknown_labels_in_a_prediction_are_said(folders):
    prediction = save(folders[0] / "b.nii.gz", cube(label=9) + cube(8, 2, 7))
    refused(
        f"{prediction}: labels 7, 9 not in 1, 2 (from the references); add it to `labels`, or take it out of the file",
        *folders,
    )


def test_labels_that_are_given_are_the_ones_scored_and_others_are_not_looked_at(folders):
    save(folders[0] / "b.nii.gz", cube() + cube(8, 2, 7))
    assert list(evaluate(*folders, [1]).labels) == [1]
    assert evaluate(*folders, [1]).mean("Dice", 1) == pytest.approx(1)


def test_labels_that_are_none_are_said(folders):
    refused(
        "`labels`: tumour, and no dataset.json beside the references names labels; give their numb",
        *folders,
        ["tumour"],
    )
    refused("`labels`: 1.5 are not integer labels, such as 1, 2, 3", *folders, [1.5])
    refused("`labels`: labels none, expected at least one, all above 0", *folders, [0])
    refused("`labels`: labels -1, expected at least one, all above 0", *folders, [-1])


def test_labels_are_given_by_the_names_of_dataset_json(folders):
    said = {"labels": {"background": 0, "liver": 1, "tumour": 2}}
    (folders[1].parent / "dataset.json").write_text(json.dumps(said))
    assert evaluate(*folders, ["tumour"]).labels == {2: "tumour"}
    assert evaluate(*folders, [1, "tumour"]).labels == {1: "liver", 2: "tumour"}
    refused("`labels`: tumor is none of the labels liver, tumour (from", *folders, ["tumor"])


def test_numbers_below_zero_in_a_prediction_are_told_with_what_to_do(folders):
    save(folders[0] / "a.nii.gz", cube().astype(int) - (cube(8, 2) > 0), dtype=np.int16)
    refused("a.nii.gz: holds -1, expected label ids of 0 and above; write what shall not count", *folders)


def test_references_without_foreground_or_with_negatives_are_said(tmp_path):
    empty = save(tmp_path / "empty.nii.gz", np.zeros((10, 11, 12)))
    refused(f"{empty}: no label above 0 in any of 1 reference; give `labels`", image(cube()), empty)
    assert evaluate(image(cube()), empty, [1]).counts(1)["false_positives"] == 1
    negative = image(-1 * cube().astype(int), dtype=np.int16)
    refused("image: holds -1, expected labels of 0 and above; is this a label map?", image(cube()), negative)


# --- cases without partner -------------------------------------------------------------------------------------------


def test_references_without_prediction_are_left_out_and_named(folders, tmp_path):
    """A folder of some masks against a whole data set: what is missing is in no score, but in every output."""
    expected = evaluate(*folders).values("Dice")
    for name in "defgh":
        save(folders[1] / f"{name}.nii", cube() + cube(8, 2, 9))  # a label of its own, which is not scored either
    (folders[0] / "a.nii.gz").unlink()
    report = evaluate(*folders)
    assert [case.name for case in report.cases] == ["b", "c"]
    assert report.missing == ("a", "d", "e", "f", "g", "h")
    assert report.labels == {1: "label 1", 2: "label 2"}
    assert np.array_equal(report.values("Dice"), expected[1:])
    said = "6 of 8 references have no prediction and are not scored: a, d, e and 3 more (--strict makes this an error)"
    assert said == report.text().splitlines()[-1]
    summary = json.loads(report.save(tmp_path / "out").read_text())
    assert summary["counts"]["missing_predictions"] == 6
    assert summary["missing_predictions"] == ["a", "d", "e", "f", "g", "h"]


def test_strict_makes_a_missing_prediction_an_error(folders):
    assert evaluate(*folders, strict=True).missing == ()
    for name in "bc":
        (folders[0] / f"{name}.nii.gz").unlink()
    refused(
        f"{folders[0]}: no prediction for b, c, which {folders[1]} holds; predict them as well", *folders, strict=True
    )


def test_what_does_not_pair_is_said(folders):
    save(folders[0] / "x.nii.gz", cube())
    refused(f"{folders[1]}: no reference for x in {folders[0]}; files are paired by name", *folders)


# --- files that are none ---------------------------------------------------------------------------------------------


def test_missing_files_and_folders_for_files_are_said(folders, tmp_path):
    file = folders[1] / "a.nii"
    refused(f"{tmp_path / 'no'}: no such file, expected a .nii or .nii.gz file", tmp_path / "no", tmp_path / "no")
    refused(f"{folders[0]}: a folder, expected a label map", [folders[0]], [file])


def test_truncated_files_are_said(tmp_path):
    noise = np.random.default_rng(0).integers(0, 2, (40, 40, 40))
    reference = image(noise)
    whole = save(tmp_path / "whole.nii.gz", noise).read_bytes()
    half = tmp_path / "half.nii.gz"
    half.write_bytes(whole[: len(whole) // 2])
    refused(f"{half}: truncated or damaged (", half, reference)
    refused("); copy or download the file again", reference, half)
    (tmp_path / "plain.nii").write_bytes(gzip.decompress(whole)[:5000])
    refused(f"{tmp_path / 'plain.nii'}: truncated or damaged (", tmp_path / "plain.nii", reference)


def test_damaged_bytes_are_said_by_the_checksum(tmp_path):
    """Flipped bits that decompress without complaint would be scored as if they were labels."""
    noise = np.random.default_rng(0).integers(0, 2, (40, 40, 40))
    path = save(tmp_path / "bits.nii.gz", noise)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2 : len(damaged) // 2 + 40] = b"\xff" * 40
    path.write_bytes(damaged)
    refused(f"{path}: truncated or damaged (", path, image(noise))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("empty.nii.gz", b"", "empty.nii.gz: an empty file, expected a NIfTI; copy or export it again"),
        ("text.nii", b"these are no voxels" * 50, "text.nii: not a NIfTI file, or cut off in its header ("),
        (
            "text.nii.gz",
            gzip.compress(b"these are no voxels" * 50, mtime=0),
            "text.nii.gz: not a NIfTI file, or cut off in its header (",
        ),
        ("html.nii.gz", b"<html>404</html>" * 50, "html.nii.gz: a web page, as a failed download leaves it"),
        (
            "cut.nii.gz",
            gzip.compress(bytes(400), mtime=0)[:20],
            "cut.nii.gz: not a NIfTI file, or cut off in its header (",
        ),
        ("scan.nrrd", b"NRRD0004", "scan.nrrd: not a NRRD, or damaged in its header"),
    ],
)
def test_files_that_are_no_nifti_are_said(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    refused(sentence, image(cube()), tmp_path / name)


def test_other_formats_are_said(tmp_path):
    nibabel.save(nibabel.MGHImage(cube(), np.eye(4)), tmp_path / "brain.mgz")
    refused("brain.mgz: not a supported ending, supported are .nii, .nii.gz", image(cube()), tmp_path / "brain.mgz")


@pytest.mark.parametrize(
    ("value", "said"), [(0.37, "label values 0.37"), (math.nan, "label values nan"), (math.inf, "label values inf")]
)
def test_values_that_are_no_labels_are_said(tmp_path, value, said):
    data = cube().astype(float)
    data[0, 0, 0] = value
    path = save(tmp_path / "soft.nii.gz", data, dtype=np.float32)
    refused(said, path, image(cube()))
    refused(f"{path}: label values ", image(cube()), path)
    refused("are not whole numbers; label maps hold ids, resample with nearest neighbour", image(cube()), path)
    refused("image: label values ", image(data, dtype=np.float32), image(cube()))


def test_complex_values_are_said(tmp_path):
    path = save(tmp_path / "complex.nii.gz", cube(), dtype=np.complex64)
    refused("complex.nii.gz: colour or complex voxels, expected plain numbers", path, image(cube()))


def test_volumes_that_are_not_3d_are_said_before_any_is_scored(folders):
    path = save(folders[0] / "c.nii.gz", np.ones((10, 11, 12, 2)))
    seen = []
    refused(
        f"{path}: shape (10, 11, 12, 2) is 4-D, expected a 3-D label map; save each time as a case of its own, or",
        *folders,
        progress=lambda *step: seen.append(step),
    )
    assert seen == []
    refused(
        "image: shape (4, 4, 4, 2) is 4-D, expected a 3-D label map", image(np.ones((4, 4, 4, 1, 2))), image(cube())
    )
    refused("image: shape (4, 4, 4, 2, 2), expected a volume", image(np.ones((4, 4, 4, 2, 2))), image(cube()))


def test_a_last_axis_of_one_is_no_axis(tmp_path):
    path = save(tmp_path / "one.nii.gz", cube(4)[..., None])
    assert nibabel.load(path).ndim == 4
    assert evaluate(path, image(cube())).mean() == 0.5
    flat = save(tmp_path / "flat.nii.gz", cube()[:, :, 3])  # (X, Y) is a volume of one slice
    assert evaluate(flat, image(cube()[:, :, 3:4])).mean() == 1.0
    refused("flat.nii.gz: not on the grid of image: shape 10x11x1 against 10x11x12", flat, image(cube()))


# --- grids -----------------------------------------------------------------------------------------------------------


def test_grids_that_differ_name_both_files_and_both_grids(folders):
    other = AFFINE.copy()
    other[:3, 3] += (0, 0, 3)
    prediction = save(folders[0] / "b.nii.gz", cube(), other)
    refused(
        f"{prediction}: not on the grid of {folders[1] / 'b.nii'}: origin (9.4 -13.2 5.6) against (9.4 -13.2 2.6) mm, "
        "voxels up to 3 mm apart; resample the prediction to the reference with nearest neighbour",
        *folders,
    )
    save(prediction, cube(shape=(10, 11, 13)))
    refused(f"{prediction}: not on the grid of {folders[1] / 'b.nii'}: shape 10x11x13 against 10x11x12", *folders)


def test_flipped_and_turned_grids_are_refused_though_their_shape_is_equal():
    flipped = AFFINE @ np.diag([-1, 1, 1, 1.0])
    refused("axes RAS against LAS", image(cube(), flipped), image(cube()))
    angle = np.deg2rad(0.1)
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0, 0], [np.sin(angle), np.cos(angle), 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    )
    refused("mm apart; resample", image(cube(), turn @ AFFINE), image(cube()))


def test_header_rounding_is_no_difference():
    near = AFFINE.copy()
    near[:3, 3] += 2e-4
    near[:3, :3] *= 1 + 1e-6
    assert evaluate(image(cube(), near), image(cube())).mean() == 1.0


def test_all_grids_are_checked_before_the_first_voxel_is_scored(folders):
    save(folders[0] / "c.nii.gz", cube(), AFFINE * 2)
    seen = []
    refused("c.nii.gz: not on the grid of", *folders, progress=lambda *step: seen.append(step))
    assert seen == []


@pytest.mark.parametrize(
    ("option", "said"), [({"empty": "drop"}, "empty: 'drop'"), ({"tolerance": -2}, "tolerance: -2")]
)
def test_options_are_checked_before_files_are_read(option, said):
    refused(said, "nowhere", "nowhere", **option)


# --- real volumes ----------------------------------------------------------------------------------------------------


@pytest.mark.data
def test_gray_matter_in_the_spinal_cord(odd_volumes):
    """An oblique grid of 0.5x0.5x7.5 mm; the gray matter lies in the cord, so nothing of it is missed."""
    spine = odd_volumes / "spine"
    report = evaluate(spine / "t2s_seg.nii.gz", spine / "t2s_gmseg_manual.nii.gz")
    cord, gray = (nibabel.load(spine / f"{name}.nii.gz").get_fdata() > 0 for name in ("t2s_seg", "t2s_gmseg_manual"))
    score = report.cases[0].scores[1]
    assert (score.n_pred, score.n_ref, score.tp) == (cord.sum(), gray.sum(), (cord & gray).sum())
    assert score.dice == pytest.approx(2 * (cord & gray).sum() / (cord.sum() + gray.sum()))
    assert score.volume_pred_ml == pytest.approx(cord.sum() * 0.5 * 0.5 * 7.5 / 1000, rel=1e-3)
    same = evaluate(spine / "t2s_seg.nii.gz", spine / "t2s_seg.nii.gz")
    assert (same.mean("Dice"), same.mean("HD95"), same.mean("NSD")) == (1.0, 0.0, 1.0)


@pytest.mark.data
def test_two_real_segmentations_of_a_cord_against_brute_force(odd_volumes):
    """HD95 and NSD by distance transforms of the whole volume; the cord touches the first and the last slice."""
    files = [odd_volumes / "spine" / f"{name}.nii.gz" for name in ("t2s_seg_int64", "t2s_seg")]
    report = evaluate(*files, tolerance=0.6)
    masks = [nibabel.load(file).get_fdata() > 0 for file in files]
    spacing = nibabel.affines.voxel_sizes(nibabel.load(files[1]).affine)
    surfaces = [mask & ~binary_erosion(mask) for mask in masks]
    there = distance_transform_edt(~surfaces[1], sampling=spacing)[surfaces[0]]
    back = distance_transform_edt(~surfaces[0], sampling=spacing)[surfaces[1]]
    assert report.mean("Dice") == pytest.approx(2 * (masks[0] & masks[1]).sum() / (masks[0].sum() + masks[1].sum()))
    assert report.mean("HD95") == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), rel=1e-5)
    assert report.mean("NSD") == pytest.approx(((there <= 0.6).sum() + (back <= 0.6).sum()) / (len(there) + len(back)))
    assert 0 < report.mean("NSD") < 1


@pytest.mark.data
def test_real_grids_that_differ_are_refused(odd_volumes):
    files = [odd_volumes / "grid_mismatch" / f"{name}.nii.gz" for name in ("heart", "pulmonary_artery")]
    refused(f"{files[0]}: not on the grid of {files[1]}: shape 233x167x191 against 122x102x112", *files)


@pytest.mark.data
def test_real_scans_are_no_labels(odd_volumes):
    refused(
        "dmri.nii.gz: shape (40, 42, 5, 7) is 4-D, expected a 3-D label map",
        *[odd_volumes / "four_d" / "dmri.nii.gz"] * 2,
    )
    scan, labels = (odd_volumes / "spine" / f"{name}.nii.gz" for name in ("t2s", "t2s_seg"))
    refused("t2s.nii.gz: label", scan, labels)


@pytest.mark.data
def test_many_sparse_labels(odd_volumes):
    """TotalSegmentator's ids are up to 117, and not consecutive."""
    file = odd_volumes / "ct_multiorgan" / "example_seg.nii.gz"
    report = evaluate(file, file)
    values = np.unique(np.asarray(nibabel.load(file).dataobj))
    assert list(report.labels) == values[values > 0].tolist()
    assert (report.mean("Dice"), report.mean("HD95"), report.mean("NSD")) == (1.0, 0.0, 1.0)


# --- images -----------------------------------------------------------------------------------------------------------


def png(path, mask):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)
    return path


def in_palette(path, mask, *colours):
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette([value for colour in colours for value in colour])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


BLACK, RED, GREEN = (0, 0, 0), (200, 0, 0), (0, 200, 0)


def test_palettes_that_number_colours_otherwise_are_not_scored_by_number(tmp_path):
    predicted = in_palette(tmp_path / "out" / "a.png", square(value=1), BLACK, GREEN, RED)
    drawn = in_palette(tmp_path / "masks" / "a.png", square(value=1), BLACK, RED, GREEN)
    with pytest.raises(VptError, match=rf"^{predicted}: 1 is #00c800 in its palette, but not in that of {drawn}, so"):
        evaluate(tmp_path / "out", tmp_path / "masks")


def test_a_palette_whose_0_is_no_background_is_not_scored_by_number(tmp_path):
    drawn = in_palette(tmp_path / "masks" / "a.png", 1 - square(value=1), RED, BLACK)
    png(tmp_path / "out" / "a.png", square(value=1))
    with pytest.raises(VptError, match=rf"^{drawn}: 0 is #c80000 in its palette and black, the background, is another"):
        evaluate(tmp_path / "out", tmp_path / "masks")


def test_one_palette_is_scored_by_number_beside_grey_masks_and_grey_palettes(tmp_path):
    drawn = in_palette(tmp_path / "drawn.png", square(value=1), BLACK, RED, GREEN)
    for other in (
        in_palette(tmp_path / "coloured.png", square(value=1), BLACK, RED),
        in_palette(tmp_path / "grey.png", square(value=1), BLACK, (1, 1, 1)),
        png(tmp_path / "plain.png", square(value=1)),
    ):
        assert evaluate(other, drawn).cases[0].scores[1].dice == 1


def square(top=10, left=20, side=16, value=255, shape=(64, 80)):
    mask = np.zeros(shape, np.uint8)
    mask[top : top + side, left : left + side] = value
    return mask


def test_folders_of_images_are_scored_in_pixels(tmp_path):
    for name, shift in (("a", 0), ("b", 4)):
        png(tmp_path / "pred" / f"{name}.png", square(top=10 + shift))
        png(tmp_path / "masks" / f"{name}.bmp", square())
    report = evaluate(tmp_path / "pred", tmp_path / "masks")
    assert report.labels == {255: "label 255"}
    assert report.values("Dice").ravel().tolist() == [1, 0.75]
    assert report.values("HD95").ravel().tolist() == [0, 4]
    assert report.cases[1].scores[255].nsd < 1
    assert report.settings.unit == "px"
    assert report.values("n_ref").ravel().tolist() == [256, 256]


def test_surfaces_of_images_are_outlines_and_not_areas(tmp_path):
    """In a volume of one slice every voxel would be on the surface, and the inside would count."""
    mine, theirs = square(), square(top=13)
    report = evaluate(png(tmp_path / "a.png", mine), png(tmp_path / "b.png", theirs), tolerance=2)
    flat = score_case(mine, theirs, (1, 1), [255], tolerance=2)[255]
    assert (report.cases[0].scores[255].hd95, report.cases[0].scores[255].nsd) == (flat.hd95, flat.nsd) == (3, flat.nsd)
    edges = [mask & ~binary_erosion(mask) for mask in (mine > 0, theirs > 0)]
    near = [distance_transform_edt(~edges[1 - k])[edges[k]] <= 2 for k in range(2)]
    assert flat.nsd == pytest.approx(np.concatenate(near).mean())


def test_images_of_different_sizes_and_kinds_are_said(tmp_path):
    small, large = png(tmp_path / "small.png", square(shape=(40, 60))), png(tmp_path / "large.png", square())
    refused(f"{small}: 60x40 pixels, but {large} has 80x64 (columns x rows); bring the prediction to", small, large)
    volume = save(tmp_path / "a.nii.gz", cube())
    refused(f"{small}: its reference {volume} is of another kind; give two images or two NIfTI files", small, volume)
    refused("some of the pairs are images and others NIfTI", [small, volume], [small, volume])
    png(tmp_path / "mixed" / "x.png", square())
    save(tmp_path / "mixed" / "y.nii.gz", cube())
    refused("mixed: holds NIfTI files and images; keep masks of one kind in a folder", tmp_path / "mixed", tmp_path)


def test_labels_of_images_come_from_dataset_json_where_there_is_one(tmp_path):
    png(tmp_path / "out" / "a.png", square(value=7))
    png(tmp_path / "data" / "masks" / "a.png", square(value=7))
    (tmp_path / "data" / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "7": "polyp"}}))
    assert evaluate(tmp_path / "out", tmp_path / "data" / "masks").labels == {7: "polyp"}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps({"name": "polyps"}))
    assert evaluate(tmp_path / "out", tmp_path / "data" / "masks").labels == {7: "label 7"}


# --- lesions, tolerances, groups --------------------------------------------------------------------------------------


def test_lesions_of_chosen_labels(folders):
    """A cube that is found, one moved by half (IoU 1/3), a small one that is missed."""
    report = evaluate(*folders, lesions=["1", 2])
    assert {label: (found.found, found.missed, found.false) for label, found in report.lesions.items()} == {
        1: (2, 1, 1),
        2: (2, 1, 0),
    }
    assert evaluate(*folders, lesions="all", lesion_overlap=0.3).lesions[1].found == 3
    assert "lesions  found  missed  false" in report.text()
    assert report.summary()["lesions"]["1"]["scores"]["recall"] == pytest.approx(2 / 3)
    assert "lesions" not in evaluate(*folders).summary()
    refused("lesions: spleen is none of the labels 1, 2 (from the references)", *folders, lesions=["spleen"])


def test_labels_have_tolerances_of_their_own(folders):
    (folders[1] / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "liver", "2": "tumour"}}))
    wide = evaluate(*folders, tolerances={"liver": 5})
    assert evaluate(*folders, tolerance=0.1).mean("NSD", 1) < wide.mean("NSD", 1) == 1
    assert wide.summary()["settings"]["tolerances_mm"] == {"1": 5}
    assert ["liver", "1.000", "5"] in [line.split()[:3] for line in wide.text().splitlines()]
    refused("tolerance: tumor is none of the labels liver, tumour", *folders, tolerances={"tumor": 1})
    refused("tolerance: -1 is not a distance", *folders, tolerances={"liver": -1})


def test_groups_of_a_csv(folders, tmp_path):
    people = tmp_path / "people.csv"
    people.write_text("case;sex;age\na.nii.gz;f;30\nb;m;40\n")
    report = evaluate(*folders, by="Sex", groups=people)
    assert [(row.group, row.cases) for row in report.by_group[0].rows] == [("f", 1), ("m", 1)]
    assert report.groupings[0].without == ("c",)
    assert report.by_group[0].rows[0].scores["foreground"] == 1
    refused(f"--by hair: {people} has the columns sex, age; give a CSV", *folders, by="hair", groups=people)
    refused("--by sex: the data set has no columns; give a CSV", *folders, by="sex")
    (folders[1].parent / "dataset.json").write_text(json.dumps({"groups": "../people.csv"}))
    assert evaluate(*folders, by="sex").by_group[0].rows[1].group == "m"


@pytest.mark.slow
def test_scans_of_one_patient_are_drawn_together(folders):
    for folder, ending in ((folders[0], "nii.gz"), (folders[1], "nii")):
        for old, new in (("a", "ann_scan1"), ("b", "ann_scan2"), ("c", "bob_scan1")):
            (folder / f"{old}.{ending}").rename(folder / f"{new}.{ending}")
    report = evaluate(*folders)
    assert report.groups == ("ann", "ann", "bob")
    assert "2 patients in 3 cases, guessed: _scan1 of ann_scan1 is a session" in report.text()
    assert "over patients" in report.summary()["confidence_intervals"]["method"]
    assert evaluate(*folders, patients=r"\w+").groups == ("ann_scan1", "ann_scan2", "bob_scan1")
    said = {"patients": {"ann_scan1": "x", "ann_scan2": "y", "bob_scan1": "z"}}
    (folders[1].parent / "dataset.json").write_text(json.dumps(said))
    assert evaluate(*folders).groups == ("x", "y", "z")


@pytest.mark.parametrize(
    ("places", "patients"),
    [
        ([f"patient{k}/patient{k}_{view}CH_ED" for k in (1, 2) for view in (2, 4)], ["patient1", "patient2"]),
        ([f"{k:03}/{k:03}_{axis}" for k in range(1, 6) for axis in ("SA", "LA")], [f"{k:03}" for k in range(1, 6)]),
        ([f"{k:03}/{k:03}_{axis}" for k in (1, 2) for axis in ("SA", "LA")], None),  # too few to be patients
    ],
)
def test_views_in_the_folder_of_a_patient_are_one_patients_as_in_training(places, patients, tmp_path):
    for place in places:
        save(tmp_path / "pred" / f"{place}.nii.gz", cube())
        save(tmp_path / "ref" / f"{place}_gt.nii.gz", cube(3))
    report = evaluate(tmp_path / "pred", tmp_path / "ref")
    assert len(report.cases) == len(places)
    assert sorted({*report.groups}) == (patients or sorted(case.name for case in report.cases))


@pytest.mark.slow
def test_scans_beside_their_masks_are_not_taken_for_them(folders):
    expected = evaluate(*folders).values("Dice")
    for name in "abc":
        (folders[0] / f"{name}.nii.gz").rename(folders[0] / f"{name}_scan.nii.gz")
        (folders[1] / f"{name}.nii").rename(folders[1] / f"{name}_label.nii")
        nibabel.save(image(np.full((4, 4, 4), 0.5), dtype=np.float32), folders[1] / f"{name}_scan.nii")

    report = evaluate(*folders)

    assert np.array_equal(report.values("Dice"), expected)
    assert "paired by the id in the names: a_scan.nii.gz with a_label.nii (a)" in report.text()


def test_pairs_by_id_are_scored_and_said(folders):
    expected = evaluate(*folders).values("Dice")
    for name in "abc":
        (folders[0] / f"{name}.nii.gz").rename(folders[0] / f"{name}_T1.nii.gz")
        (folders[1] / f"{name}.nii").rename(folders[1] / f"{name}_seg.nii")
    report = evaluate(*folders)
    assert np.array_equal(report.values("Dice"), expected)
    assert [case.name for case in report.cases] == ["a", "b", "c"]
    assert "paired by the id in the names: a_T1.nii.gz with a_seg.nii (a)" in report.text()


def test_scores_do_not_depend_on_the_workers(folders):
    one, three = (evaluate(*folders, lesions="all", workers=workers) for workers in (1, 3))
    assert one.to_json() == three.to_json()
    refused("workers: 0, expected 1 or more", *folders, workers=0)


def test_the_first_case_that_is_wrong_is_said_with_several_workers(folders):
    save(folders[0] / "b.nii.gz", cube(label=7))
    save(folders[0] / "c.nii.gz", cube(label=8))
    refused("b.nii.gz: label 7 not in 1, 2", *folders, workers=3)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("values", [(-1000, 1500), (0, 255), (0, 30000)])
def test_a_scan_in_a_masks_place_is_refused(folders, side, values):
    noise = np.random.default_rng(0).integers(*values, (10, 11, 12))
    name = ("a.nii.gz", "a.nii")[side]
    save(folders[side] / name, noise, dtype=np.int16)
    for labels in (None, [1, 2]):
        with pytest.raises(VptError, match=r"\d+ different values from .* which is a scan and no mask|holds -\d+"):
            evaluate(*folders, labels)


@pytest.mark.slow
def test_an_atlas_is_no_scan(tmp_path):
    """240 parcels of 4x4x4 voxels, with ids up to 14175 as FreeSurfer's."""
    ids = np.random.default_rng(0).choice(np.arange(1, 14176), 240, replace=False).reshape(6, 5, 8)
    atlas = np.kron(ids, np.ones((4, 4, 4), int))
    file = save(tmp_path / "atlas.nii.gz", atlas, dtype=np.int16)
    assert evaluate(file, file).mean() == 1


# --- what references' values mean -------------------------------------------------------------------------------------


def shaded(array):
    """A mask of 0 and 255 with the shades of a linear interpolation along one axis."""
    return np.rint(np.mean([np.roll(array * 255.0, step, axis=0) for step in (-1, 0, 1)], axis=0)).astype(np.uint8)


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        (
            lambda k: shaded(cube(1 + k, 6)),
            "hold values 85, 170 (50.0% of what is no background), which lie at the edges",
        ),
        (lambda k: shaded(cube(2, 6)) if k else cube(1, 6, label=255), "1 of 2 masks (b.nii.gz) hold values 85, 170"),
        (lambda k: cube(2, label=(1, 255)[k]), "(a.nii.gz) holds 1, but 1 mask (b.nii.gz) holds 255: likely the same"),
    ],
)
def test_references_with_shades_or_written_in_two_ways_are_refused(tmp_path, reference, said):
    for k, name in enumerate("ab"):
        save(tmp_path / f"pred/{name}.nii.gz", cube(2 + k, label=255))
        save(tmp_path / f"ref/{name}.nii.gz", reference(k))
    refused(said, tmp_path / "pred", tmp_path / "ref")
    refused("or give `labels`", tmp_path / "pred", tmp_path / "ref")
    assert evaluate(tmp_path / "pred", tmp_path / "ref", labels=[255]).labels == {255: "label 255"}


def test_soft_references_of_pictures_are_refused_though_they_hold_many_values(tmp_path):
    y, x = np.mgrid[:64, :64]
    soft = 6 * np.clip(40 * (1.5 - np.hypot(x - 30, y - 30) / 20), 0, 40).astype(np.uint8)
    for folder, mask in (("pred", (soft > 120).astype(np.uint8) * np.uint8(240)), ("ref", soft)):
        (tmp_path / folder).mkdir()
        Image.fromarray(mask).save(tmp_path / folder / "a.png")
    refused("which lie at the edges of other labels", tmp_path / "pred", tmp_path / "ref")


@pytest.mark.parametrize(("mine", "theirs"), [(1, 255), (255, 1), (1, 65535)])
def test_the_only_label_written_in_another_way_is_told(mine, theirs):
    sentence = f"label {mine} not in {theirs} (from the references); if it is the same label written in another way"
    box = cube().astype(np.uint16)
    refused(sentence, image(box * mine, dtype=np.uint16), image(box * theirs, dtype=np.uint16))


# --- what is given from Python ----------------------------------------------------------------------------------------


def test_labels_that_are_given_leave_what_dataset_json_ignores_and_merges_as_it_is(tmp_path):
    truth = cube() + cube(8, 2, 255)
    save(tmp_path / "labelsTr/a.nii.gz", truth)
    save(tmp_path / "pred/a.nii.gz", (truth > 0).astype(np.uint8))
    said = {"labels": {"background": 0, "liver": 1, "ignore": 255}}
    (tmp_path / "dataset.json").write_text(json.dumps(said))
    folders = tmp_path / "pred", tmp_path / "labelsTr"
    assert evaluate(*folders).mean() == evaluate(*folders, labels=[1]).mean() == 1
    refused("`labels`: 7 not among the labels of", *folders, labels=[7])
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "liver": 1, "tumour": 2}}))
    assert evaluate(*folders, labels=[1]).mean() < 1  # nothing is ignored


def test_a_case_that_is_annotated_for_none_of_the_labels_to_score_is_left_out(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / f"pred/{name}.nii.gz", cube(), dtype=np.int16)
        save(tmp_path / f"labelsTr/{name}.nii.gz", cube(label=1 + (name == "b")), dtype=np.int16)
    said = {"labels": {"background": 0, "liver": 1, "spleen": 2}, "annotated": {"a": ["liver"]}}
    (tmp_path / "dataset.json").write_text(json.dumps(said))
    found = evaluate(tmp_path / "pred", tmp_path / "labelsTr", labels=[2])
    assert math.isnan(found.cases[0].scores[2].dice)
    assert found.cases[1].scores[2].dice == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"labels": "12"}, "`labels`: '12', expected ids such as [1, 2], or {1: 'liver'}"),
        ({"labels": 1}, "`labels`: 1, expected ids such as [1, 2], or {1: 'liver'}"),
        ({"labels": [1.9]}, "`labels`: 1.9 are not integer labels, such as 1, 2, 3"),
        ({"lesions": "organ"}, "lesions: organ is none of the labels 1, 2 (from the references)"),
        ({"lesions": 12}, "lesions: 12 is none of the labels 1, 2 (from the references)"),
        ({"annotated": [300, {1}, {1}]}, "`annotated`: 300, expected the ids of a case's labels, such as {1, 2}"),
        ({"annotated": [{"liver"}, None, None]}, "`annotated`: {'liver'}, expected the ids of a case's labels"),
        ({"tolerance": "1"}, "tolerance: '1' is not a distance in mm"),
        ({"groups": "x.csv"}, "groups=x.csv: of which column? Say it with `by`"),
    ],
)
def test_what_is_no_setting_is_refused_in_a_sentence(folders, options, sentence):
    refused(sentence, *folders, **options)


def test_annotated_may_be_made_on_the_way(folders):
    given = (ids for ids in (None, {1, 2}, {1, 2}))
    assert evaluate(*folders, annotated=given, labels=[1, 2]).mean() == evaluate(*folders, labels=[1, 2]).mean()


def test_a_sheared_file_is_scored_in_the_world(tmp_path):
    tilted = np.diag([1.0, 1, 3, 1])
    tilted[1, 2] = 3 * math.tan(math.radians(20))
    found = evaluate(save(tmp_path / "p/a.nii.gz", cube(3), tilted), save(tmp_path / "t/a.nii.gz", cube(), tilted))
    scores = found.cases[0].scores[1]
    expected = score_case(cube(3), cube(), tilted[:3, :3], [1])[1]
    assert (scores.hd95, scores.assd) == pytest.approx((expected.hd95, expected.assd))
    assert scores.volume_ref_ml == pytest.approx(4**3 * 3 / 1000)


# --- what dataset.json says of cases ---------------------------------------------------------------------------------


@pytest.fixture
def liver_alone(tmp_path):
    """Predictions called `..._pred` and references without label 2, beside a dataset.json."""
    for name in ("sub-01", "sub-02"):
        save(tmp_path / "pred" / f"{name}_pred.nii.gz", cube() + cube(8, 2, 2))
        save(tmp_path / "data" / "labelsTr" / f"{name}.nii.gz", cube())
    return tmp_path / "pred", tmp_path / "data" / "labelsTr"


def describe(folder, **content):
    (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "liver": 1, "tumour": 2}} | content))


@pytest.mark.parametrize("ending", ["", ".nii.gz", "_T1"])
def test_what_dataset_json_says_of_cases_holds_of_those_paired_by_id(liver_alone, ending):
    names = [f"{name}{ending}" for name in ("sub-01", "sub-02")]
    describe(liver_alone[1].parent, annotated={name: ["liver"] for name in names}, patients=dict.fromkeys(names, "ann"))
    report = evaluate(*liver_alone)
    assert [case.name for case in report.cases] == ["sub-01", "sub-02"]
    assert report.annotated() == "annotated: liver in 2, tumour in 0 of 2 cases, in which alone each is scored"
    assert report.groups == ("ann", "ann")


def test_lists_and_patterns_name_cases_paired_by_id_as_they_are_called(liver_alone, tmp_path):
    (tmp_path / "people.csv").write_text("case,sex\nsub-01,F\nsub-02,M\n")
    report = evaluate(*liver_alone, [1], by="sex", groups=tmp_path / "people.csv", patients="sub-[0-9]+")
    assert report.groupings[0].of == {"sub-01": "F", "sub-02": "M"}
    assert report.groups == ("sub-01", "sub-02")


def test_a_slip_in_the_case_that_annotated_names_is_refused(liver_alone):
    describe(liver_alone[1].parent, annotated={"sub-01": ["liver"], "sub-O2": ["liver"]})
    refused("`annotated` names the case 'sub-O2', which is not there; did you mean sub-02", *liver_alone)


def test_annotated_may_name_cases_that_are_not_scored(liver_alone, tmp_path):
    save(liver_alone[1] / "sub-03.nii.gz", cube())
    save(tmp_path / "data" / "imagesTs" / "other_0000.nii.gz", cube())
    describe(liver_alone[1].parent, annotated=dict.fromkeys(("sub-01", "sub-02", "sub-03", "other"), "liver"))
    report = evaluate(*liver_alone)
    assert report.missing == ("sub-03",)
    assert report.counts(2)["cases"] == 0


@pytest.mark.parametrize("sites", ["AB", "A"])
@pytest.mark.parametrize("place", ["", ".."])
def test_of_references_in_subfolders_the_dataset_json_of_the_given_folder_is_read(tmp_path, sites, place):
    for site in sites:
        save(tmp_path / "pred" / site / "c.nii.gz", cube())
        save(tmp_path / "data" / "ref" / site / "c.nii.gz", cube() + cube(8, 2, 2))
    labels = {"background": 0, "liver": 1, "ignore": 2}
    describe(tmp_path / "data" / "ref" / place, labels=labels, patients={f"{site}/c": f"of {site}" for site in sites})
    report = evaluate(tmp_path / "pred", tmp_path / "data" / "ref")
    assert report.labels == {1: "liver"}
    assert report.mean() == 1
    assert report.groups == tuple(f"of {site}" for site in sites)
    assert report.notes == ()


def test_descriptions_of_subfolders_that_are_not_read_are_told(tmp_path):
    for site in "AB":
        save(tmp_path / "pred" / site / "c.nii.gz", cube())
        save(tmp_path / "ref" / site / "c.nii.gz", cube())
        describe(tmp_path / "ref" / site)
    (note,) = evaluate(tmp_path / "pred", tmp_path / "ref").notes
    assert note.startswith(f"not read: {tmp_path / 'ref/A/dataset.json'}, {tmp_path / 'ref/B/dataset.json'}; put one")
    describe(tmp_path / "ref")
    assert evaluate(tmp_path / "pred", tmp_path / "ref").notes == ()


@pytest.mark.parametrize(
    ("references", "predicted", "named"),
    [
        (("p1_T1", "p1_T2"), "p1_T2", "p1_T1"),
        (("ct_1001", "mr_1001"), "mr_1001", "ct_1001"),
        (("A/c", "B/c"), "A/c", "B/c"),
        (("A/c", "B/c"), "A/c", "B/c.nii.gz"),
        (("A/p1_seg", "B/p1_seg"), "A/p1_seg", "B/p1_T1"),
    ],
)
def test_what_is_said_of_a_case_that_was_not_predicted_is_of_no_other(tmp_path, references, predicted, named):
    for name in references:
        save(tmp_path / "ref" / f"{name}.nii.gz", cube())
    save(tmp_path / "pred" / f"{predicted}.nii.gz", cube() + cube(8, 2, 2))
    describe(tmp_path / "ref", annotated={named: ["liver"]}, patients={named: "ann"})
    report = evaluate(tmp_path / "pred", tmp_path / "ref")
    assert report.annotated() == ""
    assert report.mean("Dice", 2) == 0
    assert "ann" not in report.groups
    assert len(report.missing) == 1


def test_a_case_is_not_meant_by_the_name_of_another_sequence(tmp_path):
    save(tmp_path / "data" / "imagesTr" / "p1_T1.nii.gz", cube())
    save(tmp_path / "data" / "labelsTs" / "p1_T2.nii.gz", cube())
    save(tmp_path / "pred" / "p1_T2.nii.gz", cube() + cube(8, 2, 2))
    describe(tmp_path / "data", annotated={"p1_T1": ["liver"]})
    assert evaluate(tmp_path / "pred", tmp_path / "data" / "labelsTs").annotated() == ""


def test_an_id_of_two_references_means_neither_and_is_refused(tmp_path):
    for name in ("p1_T1", "p1_T2"):
        save(tmp_path / "ref" / f"{name}.nii.gz", cube())
    save(tmp_path / "pred" / "p1_T2.nii.gz", cube())
    describe(tmp_path / "ref", annotated={"p1": ["liver"]})
    refused("`annotated` names the case 'p1', which may be p1_T2, p1_T1; write it", tmp_path / "pred", tmp_path / "ref")


@pytest.mark.parametrize("folder", ["labelsTr", "imagesTr"])
def test_a_file_in_a_folder_is_no_name_of_a_case_elsewhere(liver_alone, folder):
    save(liver_alone[1].parent / "imagesTr" / "sub-01.nii.gz", cube())
    describe(liver_alone[1].parent, annotated={f"{folder}/sub-01.nii.gz": ["liver"]})
    refused(f"`annotated` names the case '{folder}/sub-01.nii.gz', which may be sub-01; write it", *liver_alone)


def test_two_names_of_one_case_are_refused_where_they_say_different_things(liver_alone):
    describe(liver_alone[1].parent, annotated={"sub-01_T1": ["liver", "tumour"], "sub-01_T2": ["liver"]})
    refused("'sub-01_T1' and 'sub-01_T2' both are the case sub-01, and it says different things", *liver_alone)
    describe(liver_alone[1].parent, patients={"sub-01": "ann", "sub-01_T2": "bob"})
    refused("'sub-01' and 'sub-01_T2' both are the case sub-01, and it says different things", *liver_alone)
    same = {"sub-01_T1": "liver", "sub-01_T2": "liver", "sub-02": "liver"}
    describe(liver_alone[1].parent, annotated=same, patients=dict.fromkeys(same, "ann"))
    assert evaluate(*liver_alone).groups == ("ann", "ann")


def test_annotated_may_name_a_case_that_was_not_predicted_by_its_id(liver_alone):
    (liver_alone[0] / "sub-02_pred.nii.gz").unlink()
    describe(liver_alone[1].parent, annotated={"sub-01_T1": ["liver"], "sub-02_T1": ["liver"]})
    report = evaluate(*liver_alone)
    assert report.missing == ("sub-02",)
    assert report.counts(2)["cases"] == 0


def test_of_a_pair_of_files_annotated_may_name_those_beside_them(tmp_path):
    for name in ("sub-01", "sub-02"):
        save(tmp_path / "ref" / f"{name}.nii.gz", cube())
    mine = save(tmp_path / "pred.nii.gz", cube())
    describe(tmp_path / "ref", annotated={"sub-01": ["liver"], "sub-02": ["liver"]})
    assert evaluate(mine, tmp_path / "ref" / "sub-01.nii.gz").counts(2)["cases"] == 0


def test_to_find_what_annotated_names_no_lists_or_deeper_folders_are_read(liver_alone):
    data = liver_alone[1].parent
    (data / "people.csv").write_text("case\nsub-03\n")
    save(data / "archive" / "2019" / "sub-03.nii.gz", cube())
    describe(data, annotated={"sub-01": ["liver"], "sub-02": ["liver"], "sub-03": ["liver"]})
    refused("`annotated` names the case 'sub-03', which is not there", *liver_alone)


def test_scans_in_the_folders_of_cases_are_no_references_that_strict_asks_for(tmp_path):
    for case in ("B_0", "B_1"):
        save(tmp_path / "pred" / case / f"{case}_seg.nii.gz", cube())
        save(tmp_path / "ref" / case / f"{case}_seg.nii.gz", cube())
        save(tmp_path / "ref" / case / f"{case}_t1.nii.gz", cube())
    report = evaluate(tmp_path / "pred", tmp_path / "ref", strict=True)
    assert [case.name for case in report.cases] == ["B_0", "B_1"]
    assert report.missing == ()


def test_masks_of_other_sides_of_one_patient_are_no_pair(tmp_path):
    save(tmp_path / "pred" / "P1" / "P1_left.nii.gz", cube())
    save(tmp_path / "ref" / "P1" / "P1_right.nii.gz", cube())
    sentence = "P1/P1_left.nii.gz is of P1_left, P1/P1_right.nii.gz of P1_right"
    refused(sentence, tmp_path / "pred", tmp_path / "ref")
