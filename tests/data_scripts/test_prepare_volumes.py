"""MSD, BTCV and AMOS: files in their layouts become data sets that `vpt check` finds nothing wrong with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import nibabel as nib
import numpy as np
import prepare_amos
import prepare_btcv
import prepare_msd
import pytest
from published import run, write_label_map, write_scan

from vpt.data.check import check_dataset
from vpt.data.layouts import read_dataset
from vpt.data.splits import read_splits
from vpt.published import msd


def sides_of(folder: Path) -> dict[str, int]:
    return {side: len(names) for side, names in json.loads((folder / "split.json").read_text()).items()}


def accepted(folder: Path) -> None:
    """As `vpt check` says it."""
    found = check_dataset(folder)
    assert [problem.text for problem in found.problems] == []


# --- MSD --------------------------------------------------------------------------------------------------------------


def write_task(folder: Path, channels: tuple[str, ...] = ("CT",), cases: int = 10) -> Path:
    several = len(channels) if len(channels) > 1 else 0
    names = [f"spleen_{k}" for k in range(cases)]
    for seed, name in enumerate(names):
        write_scan(folder / "imagesTr" / f"{name}.nii.gz", seed, several)
        write_label_map(folder / "labelsTr" / f"{name}.nii.gz", seed, [1])
    write_scan(folder / "imagesTs" / "spleen_99.nii.gz", 99, several)
    (folder / "imagesTr" / "._spleen_0.nii.gz").write_bytes(b"of a Mac")
    content = {
        "name": "Spleen",
        "modality": dict(enumerate(channels)),
        "labels": {"0": "background", "1": "spleen"},
        "numTraining": cases,
        "training": [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names],
        "test": ["./imagesTs/spleen_99.nii.gz"],
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def test_a_task_of_msd_is_taken_as_published_with_a_drawn_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = write_task(tmp_path / "Task09_Spleen")

    for number, source in enumerate((task, tmp_path)):
        run(prepare_msd, monkeypatch, "--task", "Task09_Spleen", "--source", source, "--to", tmp_path / f"to{number}")

    said = capsys.readouterr().out
    assert "licence: CC BY-SA 4.0\ncite: Antonelli et al." in said
    assert "10 cases are ready" in said
    to = tmp_path / "to0"
    assert sides_of(to) == {"train": 7, "val": 1, "test": 2}
    assert (to / "split.json").read_text() == (tmp_path / "to1" / "split.json").read_text()
    assert (to / "imagesTr" / "spleen_3.nii.gz").samefile(task / "imagesTr" / "spleen_3.nii.gz")
    assert sorted(path.name for path in to.iterdir()) == [
        "dataset.json", "imagesTr", "imagesTs", "labelsTr", "split.json",
    ]  # fmt: skip
    assert len(list((to / "imagesTr").iterdir())) == 10
    accepted(to)


def test_a_split_that_is_given_is_taken_and_its_cases_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, split = write_task(tmp_path / "Task09_Spleen"), tmp_path / "own.json"
    split.write_text(json.dumps({"train": ["spleen_4", "spleen_1"], "val": ["spleen_0"], "test": ["spleen_9"]}))
    given = ["--task", "Task09_Spleen", "--source", task, "--split", split]

    run(prepare_msd, monkeypatch, *given, "--to", tmp_path / "to")

    assert sides_of(tmp_path / "to") == {"train": 2, "val": 1, "test": 1}
    for part in ("imagesTr", "labelsTr"):
        names = sorted(path.name for path in (tmp_path / "to" / part).iterdir())
        assert names == [f"spleen_{k}.nii.gz" for k in (0, 1, 4, 9)]
    accepted(tmp_path / "to")
    split.write_text(json.dumps({"train": ["spleen_4"], "val": ["spleen_0"], "test": ["liver_9"]}))
    with pytest.raises(SystemExit, match="the task has no case liver_9"):
        run(prepare_msd, monkeypatch, *given, "--to", tmp_path / "other")


def test_the_split_of_the_documented_numbers_is_that_of_the_data(data_root: Path) -> None:
    shipped = Path(__file__).parents[2] / "configs" / "splits" / "hippocampus.json"

    assert json.loads(shipped.read_text()) == json.loads((data_root / "hippocampus3d" / "split.json").read_text())


def test_of_four_channels_some_are_chosen_and_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = write_task(tmp_path / "Task01_BrainTumour", ("FLAIR", "T1w", "t1gd", "T2w"), 3)
    given = ["--task", "Task01_BrainTumour", "--source", task, "--to", tmp_path / "to"]

    run(prepare_msd, monkeypatch, *given[:-1], tmp_path / "all")
    assert read_dataset(tmp_path / "all").channels == ("FLAIR", "T1w", "t1gd", "T2w")
    with pytest.raises(SystemExit, match="no channel is called T3; choose of FLAIR, T1w, t1gd, T2w"):
        run(prepare_msd, monkeypatch, *given, "--channels", "T3")
    run(prepare_msd, monkeypatch, *given, "--channels", "T2w,FLAIR")

    whole, some = (
        nib.Nifti1Image.from_filename(root / "imagesTr" / "spleen_1.nii.gz") for root in (task, tmp_path / "to")
    )
    assert np.array_equal(np.asanyarray(some.dataobj), np.asanyarray(whole.dataobj)[..., [3, 0]])
    assert some.get_data_dtype() == whole.get_data_dtype()
    assert np.array_equal(some.affine, whole.affine)
    assert some.header.get_zooms()[:3] == whole.header.get_zooms()[:3]
    assert read_dataset(tmp_path / "to").channels == ("T2w", "FLAIR")
    accepted(tmp_path / "to")


def test_every_task_has_an_address_and_a_hash_of_its_own() -> None:
    archives = [archive for task in msd.TASKS for archive in msd.origin_of(task).archives]
    assert all(archive.url.endswith(f"/{archive.name}") and len(archive.md5 or "") == 32 for archive in archives)
    assert len({archive.md5 for archive in archives}) == 10


def test_another_task_is_no_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"error: Task09_Spleeen: no task of the Decathlon.*Task09_Spleen"):
        run(prepare_msd, monkeypatch, "--task", "Task09_Spleeen", "--to", tmp_path / "to")


# --- BTCV -------------------------------------------------------------------------------------------------------------


def write_btcv(folder: Path, numbers: list[int]) -> Path:
    for number in numbers:
        write_scan(folder / "Training" / "img" / f"img{number:04d}.nii.gz", number)
        write_label_map(folder / "Training" / "label" / f"label{number:04d}.nii.gz", number, range(1, 14))
    write_scan(folder / "Testing" / "img" / "img0061.nii.gz", 61)
    return folder


def test_btcv_has_its_organs_and_the_split_of_the_papers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = write_btcv(tmp_path / "RawData", [1, 2, 5, 6, 7, 9, 10, 21])
    archive = tmp_path / "mine" / "RawData.zip"
    archive.parent.mkdir()
    with ZipFile(archive, "w") as content:
        for path in raw.rglob("*.gz"):
            content.write(path, path.relative_to(tmp_path))

    run(prepare_btcv, monkeypatch, "--source", archive, "--to", tmp_path / "to")

    dataset = read_dataset(tmp_path / "to")
    assert dataset.channels == ("CT",)
    assert (dataset.labels[6], dataset.labels[13]) == ("liver", "left adrenal gland")
    splits = read_splits(dataset)
    assert splits.test == ("btcv_0001", "btcv_0002")
    assert (len(splits.train), len(splits.val)) == (5, 1)
    assert [path.name for path in (tmp_path / "to" / "imagesTs").iterdir()] == ["btcv_0061_0000.nii.gz"]
    image = (tmp_path / "to" / "imagesTr" / "btcv_0005_0000.nii.gz").read_bytes()
    assert image == (raw / "Training" / "img" / "img0005.nii.gz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["RawData", "mine", "to"]
    accepted(tmp_path / "to")


def test_a_scan_of_btcv_without_its_labels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = write_btcv(tmp_path / "RawData", [1, 5])
    (raw / "Training" / "label" / "label0005.nii.gz").unlink()

    with pytest.raises(SystemExit, match="1 cases lack a partner, first btcv_0005 a label map; get all files again"):
        run(prepare_btcv, monkeypatch, "--source", raw, "--to", tmp_path / "to")
    assert not (tmp_path / "to").exists()


# --- AMOS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def amos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("amos") / "amos22"
    for side, numbers in {"Tr": [1, 4, 9, 508, 510, 541], "Va": [13, 22, 556]}.items():
        for number in numbers:
            write_scan(folder / f"images{side}" / f"amos_{number:04d}.nii.gz", number)
            write_label_map(folder / f"labels{side}" / f"amos_{number:04d}.nii.gz", number, range(1, 16))
    write_scan(folder / "imagesTs" / "amos_0002.nii.gz", 2)
    return folder


@pytest.mark.parametrize(
    ("modality", "channel", "sides"),
    [("ct", "CT", {"train": 2, "val": 1, "test": 2}), ("mri", "MRI", {"train": 2, "val": 1, "test": 1})],
)
def test_one_modality_of_amos_with_its_own_sides(
    amos: Path, modality: str, channel: str, sides: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(prepare_amos, monkeypatch, "--modality", modality, "--source", amos, "--to", tmp_path / "to")

    dataset = read_dataset(tmp_path / "to")
    assert (dataset.channels, len(dataset.labels), dataset.labels[15]) == ((channel,), 16, "prostate/uterus")
    assert sides_of(tmp_path / "to") == sides
    assert set(read_splits(dataset).test) == ({"amos_0013", "amos_0022"} if modality == "ct" else {"amos_0556"})
    assert (tmp_path / "to" / "imagesTs").is_dir() == (modality == "ct")
    accepted(tmp_path / "to")
