"""An archive for a model of several channels, laid out as its training was: BraTS' folders of cases, BIDS, flat."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_series import write_series
from masks import scan, scan_plan, threshold

from vpt.data.plan import Percentiles
from vpt.use.archives import Asked, ModelMark, Outcome, segment_archive
from vpt.use.archives.finding import find_archive
from vpt.use.archives.segmenting import MaskBatch
from vpt.use.archives.watching import Resting, Watch
from vpt.use.segmenter import Segmenter

OUT = Path("out")
NAMES = ("t2", "flair", "t1")  # not as the alphabet has them
MARK = ModelMark("run/best.safetensors", "ab" * 32, "{}")


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    plan = scan_plan(pixel_mm=1.0, neighbours=False, channels=NAMES, intensity=(Percentiles(),) * len(NAMES))
    return threshold(plan)


@pytest.fixture
def fill(tmp_path: Path) -> Callable[..., Path]:
    """Scans, of which none holds what another does."""

    def fill(*paths: str) -> Path:
        for seed, path in enumerate(paths):
            (tmp_path / "all" / path).parent.mkdir(parents=True, exist_ok=True)
            nib.save(scan(seed=seed), tmp_path / "all" / f"{path}.nii.gz")
        return tmp_path / "all"

    return fill


@pytest.fixture
def run(segmenter: Segmenter, tmp_path: Path) -> Callable[..., Outcome]:
    def run(*inputs: Path, recursive: bool = True, **asked) -> Outcome:
        return segment_archive(segmenter, inputs, tmp_path / "out", Asked(recursive=recursive, **asked), MARK)

    return run


def of_case(case: str, *names: str) -> list[str]:
    return [f"{case}{name}" for name in names or sorted(NAMES)]


def test_folders_of_cases_are_segmented_in_the_order_of_the_model(fill, run, segmenter, tmp_path) -> None:
    root = fill(*of_case("p1/p1_"), *of_case("p2/p2_", "T1", "FLAIR", "T2"), "p1/p1_seg")

    outcome = run(root)

    assert (outcome.total, outcome.failures) == (2, [])
    files = [root / f"p1/p1_{name}.nii.gz" for name in NAMES]
    for order, same in ((files, True), (files[::-1], False)):
        expected = nib.Nifti1Image(np.stack([nib.load(file).get_fdata() for file in order], -1), scan().affine)
        mask = np.asarray(segmenter.segment(expected).dataobj)
        assert np.array_equal(np.asarray(nib.load(tmp_path / "out/p1/p1.nii.gz").dataobj), mask) is same
    told = {
        each["case"]: each["files"] for each in json.loads((tmp_path / "out/predictions.json").read_text())["cases"]
    }
    assert told == {
        "p1/p1": ["p1_t2.nii.gz", "p1_flair.nii.gz", "p1_t1.nii.gz"],
        "p2/p2": ["p2_T2.nii.gz", "p2_FLAIR.nii.gz", "p2_T1.nii.gz"],
    }


def test_a_case_that_lacks_channels_is_one_failure_and_done_once_they_are_there(fill, run, tmp_path) -> None:
    root = fill(*of_case("p1/p1_"), *of_case("p2/p2_", "flair", "t1"), "p2/p2_seg")

    first = run(root)
    shutil.copy(root / "p1/p1_t2.nii.gz", root / "p2/p2_t2.nii.gz")
    second = run(root, existing="continue")

    (failure,) = first.failures
    assert (failure.name, failure.reason) == (
        "p2/p2",
        f"{root / 'p2/p2_flair.nii.gz'}: p2 has the channels flair, t1, but not t2, which the model was trained on; "
        "add it, or take the case out",
    )
    assert (first.total, first.answered, second.total, second.answered) == (2, 1, 2, 2)
    assert json.loads((tmp_path / "out/failures.json").read_text()) == {}


def test_a_channel_that_is_there_twice_is_one_failure(fill, run) -> None:
    root = fill(*of_case("a_"), *of_case("b_"))
    nib.save(scan(), root / "b_t1.nii")

    outcome = run(root, recursive=False)

    (failure,) = outcome.failures
    assert failure.name == "b"
    assert "b has the channel t1 more than once (b_t1.nii, b_t1.nii.gz); keep one" in failure.reason
    assert outcome.total == 2


def test_a_file_that_holds_all_channels_is_segmented_in_a_batch(fill, run, segmenter, tmp_path) -> None:
    root = fill(*of_case("a_"))
    files = [root / f"a_{name}.nii.gz" for name in NAMES]
    whole = np.stack([np.asarray(nib.load(file).dataobj) for file in files], -1)
    nib.save(nib.Nifti1Image(whole, scan().affine), root / "b_t1.nii.gz")

    outcome = run(root)

    assert (outcome.total, outcome.failures) == (2, [])
    masks = [np.asarray(nib.load(tmp_path / f"out/{name}.nii.gz").dataobj) for name in ("a", "b_t1")]
    assert np.array_equal(*masks)


def test_a_channel_of_two_words_is_no_other_of_one(fill, tmp_path) -> None:
    names = ("T1", "T1 post", "T2")
    plan = scan_plan(pixel_mm=1.0, neighbours=False, channels=names, intensity=(Percentiles(),) * 3)

    outcome = segment_archive(threshold(plan), [fill("a_T1", "a_T1_post", "a_T2")], tmp_path / "out", Asked(), MARK)

    assert (outcome.total, outcome.failures) == (1, [])


def test_one_folder_of_a_case_is_an_archive_of_one(fill, run, tmp_path) -> None:
    root = fill(*of_case("p1/"), *of_case("p2/x-"))

    assert run(root / "p1", recursive=False).total == 1
    assert run(root / "p2", recursive=False).total == 1
    assert {path.name for path in (tmp_path / "out").glob("*.nii.gz")} == {"p1.nii.gz", "x.nii.gz"}


def test_sessions_of_bids_and_folders_are_never_mixed(fill) -> None:
    halves = ("sub-2/ses-1/anat/sub-2_ses-1_T1w", "sub-2/ses-2/anat/sub-2_ses-2_FLAIR", "x/q_T1w", "y/q_FLAIR")
    names = [f"sub-1/ses-{k}/anat/sub-1_ses-{k}_{name}" for k in (1, 2) for name in ("T1w", "FLAIR", "T2w")]
    root = fill(*names, *halves)

    found = find_archive([root], "volumes", ("T1w", "FLAIR"), OUT, recursive=True)
    apart = find_archive([root / "x", root / "y"], "volumes", ("T1w", "FLAIR"), OUT)

    assert {case.name: [file.name for file in case.images] for case in found.cases} == {
        f"sub-1/ses-{k}/anat/sub-1_ses-{k}": [f"sub-1_ses-{k}_T1w.nii.gz", f"sub-1_ses-{k}_FLAIR.nii.gz"]
        for k in (1, 2)
    }
    failed = ["sub-2/ses-1/anat/sub-2_ses-1", "sub-2/ses-2/anat/sub-2_ses-2", "x/q", "y/q"]
    assert [failure.name for failure in found.failures] == failed
    assert found.notes == (
        "2 files are sequences that the model was not trained on, beside those of a case, and left out: "
        "sub-1_ses-1_T2w.nii.gz, sub-1_ses-2_T2w.nii.gz",
    )
    assert len(found.files) == len(names) + len(halves)
    assert (apart.cases, [failure.name for failure in apart.failures]) == ((), ["q", "q"])


def test_series_of_dicom_are_put_together_in_the_folder_that_holds_them(tmp_path: Path) -> None:
    for name in ("p1/T1", "p1/T2", "p2/T2", "p2/T1"):
        write_series(tmp_path / name)

    flat = find_archive([tmp_path], "volumes", ("T2", "T1"), OUT)
    deep = find_archive([tmp_path], "volumes", ("T2", "T1"), OUT, recursive=True)

    assert [case.name for case in flat.cases] == ["p1", "p2"]
    assert [case.name for case in deep.cases] == ["p1/p1", "p2/p2"]
    assert {tuple(file.name for file in case.images) for case in (*flat.cases, *deep.cases)} == {("T2", "T1")}
    assert flat.failures == deep.failures == ()


def test_forms_that_say_the_channels_otherwise_stay_as_they_are(fill, save) -> None:
    root = fill("a_0000", "a_0001", "t1_study_0000", "t1_study_0001", "c_0000")
    for name in ("b", "d_t1"):
        save(root / f"{name}.nii.gz", np.zeros((4, 4, 3, 2), np.int16))

    found = find_archive([root], "volumes", ("t1", "t2"), OUT)

    assert {case.name: len(case.images) for case in found.cases} == {"a": 2, "b": 1, "d_t1": 1, "t1_study": 2}
    (failure,) = found.failures
    assert "c has the channel files 0000, expected 0000 0001" in failure.reason


def test_models_of_one_channel_take_every_file_for_a_scan(fill) -> None:
    root = fill("x/CT", "x/a_CT", "x/b_CT")

    found = find_archive([root], "volumes", ("CT",), OUT, recursive=True)

    assert [case.name for case in found.cases] == ["x/CT", "x/a_CT", "x/b_CT"]


def test_of_two_cases_of_one_name_the_second_fails(fill, save) -> None:
    root = fill("a/x_t1", "a/x_t2", "b/x_t1", "b/x_t2", "c/y_t1", "c/y_t2", "c/z_t1")
    save(root / "c/z.nii.gz", np.zeros((4, 4, 3, 2), np.int16))

    found = find_archive([root / name for name in "abc"], "volumes", ("t1", "t2"), OUT)

    assert [(case.name, case.images[0].parent.name) for case in found.cases] == [("x", "a"), ("y", "c"), ("z", "c")]
    assert [failure.name for failure in found.failures] == ["x_t1", "z_t1"]
    assert "the second scan called x; keep one" in found.failures[0].reason
    assert "z has the channel t1, but not t2" in found.failures[1].reason


def test_a_drop_folder_waits_for_all_channels_of_a_case(fill, segmenter, tmp_path) -> None:
    root, said, now = fill(*of_case("p1_", "t1", "flair")), list[str](), [0.0]
    batch = MaskBatch(segmenter, tmp_path / "out", Asked(existing="continue"), MARK)
    watch = Watch(root, tmp_path / "out", segmenter, batch, Resting(10.0, lambda: now[0]), said.append)
    seen = [watch.look(lambda: False)]
    nib.save(scan(), root / "p1_t2.nii.gz")
    for time in (20.0, 29.0, 31.0, 60.0):
        now[0] = time
        seen.append(watch.look(lambda: False))

    assert seen == [0, 0, 0, 1, 0]
    assert said[0].startswith(f"waits: {root / 'p1_flair.nii.gz'}: p1 has the channels flair, t1, but not t2")
    assert (tmp_path / "out/p1.nii.gz").is_file()


def test_sequences_of_one_session_of_bids_are_put_together_from_its_folders(fill) -> None:
    names = ("FLAIR", "adc", "dwi")
    lying = ("#/ses-1/anat/#_ses-1_FLAIR", "#/ses-1/dwi/#_ses-1_adc", "#/ses-1/dwi/#_ses-1_dwi")
    paths = [path.replace("#", sub) for path in lying for sub in ("sub-1", "sub-2")]
    root = fill(*paths, *(f"derivatives/{sub}/ses-1/{sub}_ses-1_msk" for sub in ("sub-1", "sub-2")))

    found = find_archive([root], "volumes", names, OUT, recursive=True)

    assert [case.name for case in found.cases] == ["sub-1/ses-1/sub-1_ses-1", "sub-2/ses-1/sub-2_ses-1"]
    assert [path.parent.name for path in found.cases[0].images] == ["anat", "dwi", "dwi"]
    assert found.failures == ()
    assert any("2 files look like masks" in note for note in found.notes)

    found = find_archive([root], "volumes", names[1:], OUT, recursive=True)  # of which one folder has all

    assert [case.name for case in found.cases] == ["sub-1/ses-1/dwi/sub-1_ses-1", "sub-2/ses-1/dwi/sub-2_ses-1"]
    assert found.failures == ()
    assert any("2 files are sequences that the model was not trained on" in note for note in found.notes)


def test_a_case_of_bids_that_lacks_a_sequence_is_one_failure(fill) -> None:
    root = fill("sub-1/anat/sub-1_FLAIR", "sub-1/dwi/sub-1_dwi", "sub-2/anat/sub-2_FLAIR")

    found = find_archive([root], "volumes", ("FLAIR", "dwi"), OUT, recursive=True)

    assert [case.name for case in found.cases] == ["sub-1/sub-1"]
    assert [failure.name for failure in found.failures] == ["sub-2/anat/sub-2"]
