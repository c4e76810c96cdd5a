"""A folder of MedSAM's .npz files is a data set as it comes: recognised, checked, trained on, predicted."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny_run import ONE_STEP

from vpt.data.check import Check, check_dataset
from vpt.data.layouts import is_labelled, read_dataset, read_labelled, survey, write_description
from vpt.data.scans import find_scans
from vpt.engine.run import train
from vpt.errors import VptError
from vpt.readers import reader_of
from vpt.use.load import load
from vpt.use.runs import evaluate_run


def put(path: Path, seed: int, colour: bool = False, labels: bool = True) -> None:
    """A bright box, labelled 1, whose core is labelled 3, in noise of its own."""
    rng = np.random.default_rng(seed)
    gts = np.zeros((5, 24, 20), np.uint8)
    gts[1:4, 4 + seed % 5 : 16, 5:15] = 1
    gts[2:3, 8:12, 8:12] = 3
    imgs = (rng.normal(60, 8, gts.shape) + 50 * gts).clip(0, 255).astype(np.uint8)
    arrays = {"imgs": np.stack([imgs[2]] * 3, -1) if colour else imgs} | {"spacing": np.array([2.0, 2.0, 5.0])}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays | ({"gts": gts[2] if colour else gts} if labels else {}))


def errors(found: Check) -> list[str]:
    """The files of which one is told."""
    return [problem.file for problem in found.problems if problem.severity == "error"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two modalities in folders, as MedSAM keeps them, which look like folders of classes. Read only."""
    root = tmp_path_factory.mktemp("medsam") / "npz"
    for number in range(6):
        put(root / ("CT" if number % 2 else "MR") / f"Abd_{number:04d}.npz", number)
    return root


def test_it_is_recognised_though_its_folders_look_like_classes(data: Path) -> None:
    assert not is_labelled(data)
    dataset, problems = survey(data)
    assert problems == []
    assert [case.name for case in dataset.cases] == [f"Abd_{number:04d}" for number in range(6)]
    assert (dataset.channels, dataset.kind, list(dataset.labels)) == (("image",), "volumes", [0, 1, 3])
    assert dataset.guess == "6 .npz files with the scan `imgs` and its labels `gts`, as MedSAM keeps them"


def test_check_finds_nothing_wrong(data: Path) -> None:
    found = check_dataset(data)
    assert errors(found) == []
    assert not any("not read" in problem.text for problem in found.problems)


@pytest.mark.slow
def test_it_is_trained_on_and_its_run_predicts_and_evaluates(data: Path, tmp_path: Path) -> None:
    run = train(data, tmp_path / "run", overrides=ONE_STEP, brief=True)
    report, _ = evaluate_run(run)
    assert len(report.cases) >= 1
    put(tmp_path / "new" / "x.npz", 9, labels=False)
    (case,) = find_scans(tmp_path / "new", 1)
    assert case.name == "x"
    mask = load(run, device="cpu").segment(tmp_path / "new" / "x.npz")
    assert isinstance(mask, nib.Nifti1Image)
    assert (mask.shape, nib.aff2axcodes(mask.affine)) == ((20, 24, 5), ("L", "P", "S"))
    assert mask.header.get_zooms() == (2, 2, 5)


def test_pictures_in_colour_have_three_channels_and_files_are_no_channels(tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path / "train" / f"2D_{number:04d}.npz", number, colour=True)
    put(tmp_path / "val" / "2D_0003.npz", 3, colour=True)
    dataset = read_dataset(tmp_path)
    assert dataset.channels == ("red", "green", "blue")
    assert dataset.sides == {**{f"2D_{k:04d}": "train" for k in range(3)}, "2D_0003": "val"}
    assert [case.name for case in find_scans(tmp_path / "train", 3)] == ["2D_0000", "2D_0001", "2D_0002"]


def test_each_bad_file_is_named_and_hides_no_other(data: Path, tmp_path: Path) -> None:
    for number in range(4):
        put(tmp_path / f"a_{number}.npz", number)
    put(tmp_path / "colour.npz", 4, colour=True)
    put(tmp_path / "unlabelled.npz", 5, labels=False)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "a_0.npz").read_bytes()[:300])
    (tmp_path / "other.npz").write_bytes(b"PK\x05\x06" + bytes(18))
    dataset, problems = survey(tmp_path)
    assert [case.name for case in dataset.cases] == ["a_0", "a_1", "a_2", "a_3"]
    for text, problem in zip(
        [
            "colour.npz: 3 channels, the set has 1; keep one kind",
            "cut.npz: truncated, damaged or no .npz",
            "other.npz: holds nothing, expected the arrays `imgs`",
            "unlabelled.npz: holds no labels (`gts`); add them",
        ],
        sorted(map(str, problems)),
        strict=True,
    ):
        assert problem.startswith(f"{tmp_path}/{text}")
    named = {Path(file).name for file in errors(check_dataset(tmp_path))}
    assert named == {"colour.npz", "cut.npz", "other.npz", "unlabelled.npz"}


def test_labels_are_named_by_a_description_and_what_was_guessed_is_written(tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path / "s" / f"a_{number}.npz", number)
    (written,) = write_description(read_dataset(tmp_path / "s"), Path("dataset.json"))
    dataset = read_dataset(tmp_path / "s")
    assert [case.name for case in dataset.cases] == ["a_0", "a_1", "a_2"]
    written.write_text('{"labels": {"background": 0, "rim": 1, "core": 3}, "channel_names": {"0": "MR"}}')
    dataset = read_dataset(tmp_path / "s")
    assert (dataset.labels, dataset.channels) == ({0: "background", 1: "rim", 3: "core"}, ("MR",))


def test_one_case_is_no_data_set(data: Path) -> None:
    with pytest.raises(VptError, match=r"Abd_0000\.npz: one case as MedSAM keeps them .* give the folder of all cases"):
        read_labelled(data / "MR" / "Abd_0000.npz")


def test_archives_of_other_things_are_no_cases(tmp_path: Path) -> None:
    np.savez(tmp_path / "weights.npz", layer=np.zeros(3))
    with pytest.raises(VptError, match=r"no dataset\.json in this folder"):
        survey(tmp_path)
    (case,) = find_scans(tmp_path, 1)
    with pytest.raises(VptError, match=r"weights\.npz: holds layer, expected the arrays `imgs`"):
        reader_of(case.images).grid()
