"""BUSI, Kvasir-SEG, ISIC and any folder: files in their layouts become data sets that `vpt check` accepts."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import prepare_busi
import prepare_folder
import prepare_isic
import prepare_kvasir
import pytest
from likeness import likeness
from PIL import Image
from published import blob, picture, run, write_label_map, write_picture, write_scan

from vpt.data.check import check_dataset
from vpt.data.check_labelled import check_labelled
from vpt.data.layouts import read_dataset, read_labelled
from vpt.data.splits import read_splits


def split_of(folder: Path) -> dict[str, list[str]]:
    return json.loads((folder / "split.json").read_text())


def side_of(folder: Path) -> dict[str, str]:
    return {name: side for side, names in split_of(folder).items() for name in names}


# --- likeness ---------------------------------------------------------------------------------------------------------


def test_pictures_look_alike_through_resizing_brightness_and_what_is_drawn_in_and_not_else(tmp_path: Path) -> None:
    marked = picture(0).copy()
    marked[:16, :16] = 255
    resized = np.asarray(Image.fromarray(picture(0)).resize((70, 61)))
    darker = (picture(0) * 0.8 + 10).astype(np.uint8)
    shown = {"a": picture(0), "b": resized, "c": darker, "d": marked, "e": picture(1), "f": picture(2)}
    for name, values in shown.items():
        write_picture(tmp_path / f"{name}.png", values)

    found = likeness({name: tmp_path / f"{name}.png" for name in shown})

    assert found.groups() == {"a": "a", "b": "a", "c": "a", "d": "a", "e": "e", "f": "f"}
    classes = {"a": "x", "b": "x", "c": "y", "d": "z", "e": "y", "f": "x"}
    assert found.in_two_classes(classes) == ["a", "b", "c"]


# --- BUSI -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def busi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 of each class: benign 2 is 1 again, benign 3 has two masks, normal 7 is benign 4."""
    folder = tmp_path_factory.mktemp("busi") / "Dataset_BUSI_with_GT"
    for offset, kind in enumerate(("benign", "malignant", "normal")):
        for k in range(1, 11):
            shown = {("benign", 2): 1, ("normal", 7): 4}.get((kind, k), 100 * offset + k)
            write_picture(folder / kind / f"{kind} ({k}).png", picture(shown))
            mask = np.zeros((40, 48), np.uint8) if kind == "normal" else blob(k, 2 * k)
            write_picture(folder / kind / f"{kind} ({k})_mask.png", mask)
    write_picture(folder / "benign" / "benign (3)_mask_1.png", blob(25, 30))
    return folder


@pytest.fixture(scope="module")
def busi_made(busi: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("made") / "busi"
    with pytest.MonkeyPatch.context() as patch:
        run(prepare_busi, patch, "--source", busi.parent, "--to", to)
    return to


def test_busi_as_file_managers_leave_it_is_the_same(busi: Path, busi_made: Path, tmp_path: Path, monkeypatch) -> None:
    folder = shutil.copytree(busi, tmp_path / "mine")
    for kind in ("benign", "malignant", "normal"):
        (folder / kind / f"._{kind} (1).png").write_bytes(b"Mac OS X")
        (folder / kind / "Thumbs.db").write_bytes(b"")
    (folder / "benign" / "benign (4).png").rename(folder / "benign" / "benign (4).PNG")
    run(prepare_busi, monkeypatch, "--source", folder, "--to", tmp_path / "to")
    assert split_of(tmp_path / "to") == split_of(busi_made)


def test_busi_is_accepted_for_both_tasks(busi_made: Path) -> None:
    assert check_dataset(busi_made).ok
    assert check_labelled(busi_made).ok
    dataset, labelled = read_dataset(busi_made), read_labelled(busi_made)
    assert dataset.labels == {0: "background", 255: "lesion"}
    assert labelled.classes == ("benign", "malignant", "normal")
    assert len(dataset.cases) == len(labelled.cases) == 28
    assert read_splits(dataset) == read_splits(labelled)


def test_several_masks_of_busi_become_one(busi_made: Path) -> None:
    mask = np.asarray(Image.open(busi_made / "masks" / "benign_003.png"))
    assert np.array_equal(mask, blob(3, 6) | blob(25, 30))


def test_what_looks_alike_in_busi_is_one_patient_and_on_one_side(busi_made: Path) -> None:
    dataset, side = read_dataset(busi_made), side_of(busi_made)
    assert dataset.patient("benign_002") == dataset.patient("benign_001") != dataset.patient("benign_003")
    assert side["benign_002"] == side["benign_001"]
    kinds = {each: {name.split("_")[0] for name in names} for each, names in split_of(busi_made).items()}
    assert all(found == {"benign", "malignant", "normal"} for found in kinds.values())


def test_an_image_of_two_classes_is_left_out_and_named(
    busi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(prepare_busi, monkeypatch, "--source", busi, "--to", tmp_path / "to")

    assert "left out: 2 images that two classes have (benign_004, normal_007)" in capsys.readouterr().out
    assert not (tmp_path / "to" / "images" / "benign_004.png").exists()


@pytest.mark.parametrize(
    ("name", "values", "sentence"),
    [
        ("benign (11).png", picture(50), "benign_011 has no mask; get all files again"),
        ("malignant.png", picture(50), r"no image or mask of BUSI by its name; expected benign \(1\)\.png"),
        ("benign (3)_mask_2.png", np.zeros((48, 40), np.uint8), "40x48 pixels, its image has 48x40"),
    ],
)
def test_files_of_busi_that_do_not_fit_are_refused(
    busi: Path, name: str, values: np.ndarray, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(busi, tmp_path / "busi")
    write_picture(tmp_path / "busi" / "benign" / name, values)

    with pytest.raises(SystemExit, match=sentence):
        run(prepare_busi, monkeypatch, "--source", tmp_path / "busi", "--to", tmp_path / "to")
    assert [path.name for path in tmp_path.iterdir()] == ["busi"]


# --- Kvasir-SEG -------------------------------------------------------------------------------------------------------


def test_masks_of_kvasir_become_exact_and_similar_frames_stay_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "Kvasir-SEG"
    for k in range(11):
        write_picture(folder / "images" / f"cju{k}.jpg", picture(max(k, 1), colour=True))  # the first two are alike
        write_picture(folder / "masks" / f"cju{k}.jpg", np.dstack([blob(k, k)] * 3))
    (folder / "kavsir_bboxes.json").write_text("{}")

    run(prepare_kvasir, monkeypatch, "--source", folder, "--to", tmp_path / "to")

    assert np.array_equal(np.asarray(Image.open(tmp_path / "to" / "masks" / "cju7.png")), blob(7, 7))
    assert (tmp_path / "to" / "images" / "cju7.jpg").samefile(folder / "images" / "cju7.jpg")
    dataset, side = read_dataset(tmp_path / "to"), side_of(tmp_path / "to")
    assert dataset.patient("cju0") == dataset.patient("cju1") != dataset.patient("cju2")
    assert side["cju0"] == side["cju1"]
    assert {side: len(names) for side, names in split_of(tmp_path / "to").items() if side == "val"} == {"val": 1}
    assert check_dataset(tmp_path / "to").ok


# --- ISIC -------------------------------------------------------------------------------------------------------------


def write_isic(folder: Path) -> Path:
    for seed, (word, count) in enumerate({"Training": 3, "Validation": 1, "Test": 2}.items()):
        images, masks = folder / f"ISIC2018_Task1-2_{word}_Input", folder / f"ISIC2018_Task1_{word}_GroundTruth"
        for k in range(count):
            name = f"ISIC_{seed}00000{k}"
            write_picture(images / f"{name}.jpg", picture(10 * seed + k, colour=True))
            write_picture(images / f"{name}_superpixels.png", picture(10 * seed + k, colour=True))
            write_picture(masks / f"{name}_segmentation.png", blob(k, k))
        (images / "LICENSE.txt").write_text("CC")
    return folder


def test_isic_has_the_sides_of_the_challenge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(prepare_isic, monkeypatch, "--source", write_isic(tmp_path / "mine"), "--to", tmp_path / "to")

    assert split_of(tmp_path / "to") == {
        "train": ["ISIC_0000000", "ISIC_0000001", "ISIC_0000002"],
        "val": ["ISIC_1000000"],
        "test": ["ISIC_2000000", "ISIC_2000001"],
    }
    assert read_dataset(tmp_path / "to").labels == {0: "background", 255: "lesion"}
    assert check_dataset(tmp_path / "to").ok


def test_a_missing_part_of_isic_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(write_isic(tmp_path / "mine") / "ISIC2018_Task1_Test_GroundTruth")

    with pytest.raises(SystemExit, match="expected one folder called ISIC2018_Task1_Test_GroundTruth, found none"):
        run(prepare_isic, monkeypatch, "--source", tmp_path / "mine", "--to", tmp_path / "to")


# --- any folder -------------------------------------------------------------------------------------------------------


def test_any_folder_is_described_and_split_as_it_is_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for k in range(10):
        write_scan(tmp_path / f"pat{k:02d}_T1.nii.gz", k)
        write_label_map(tmp_path / f"pat{k:02d}_seg.nii.gz", k, [1])

    run(prepare_folder, monkeypatch, tmp_path)

    assert {side: len(names) for side, names in split_of(tmp_path).items()} == {"train": 7, "val": 1, "test": 2}
    content = json.loads((tmp_path / "dataset.json").read_text())
    assert content["training"][0] == {"case": "pat00", "image": "pat00_T1.nii.gz", "label": "pat00_seg.nii.gz"}
    assert check_dataset(tmp_path).ok
    before = (tmp_path / "split.json").read_text()
    run(prepare_folder, monkeypatch, tmp_path, "--seed", "5")
    assert "written: nothing, all is there" in capsys.readouterr().out
    assert (tmp_path / "split.json").read_text() == before


def test_class_folders_get_a_split_with_the_share_of_every_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for offset, kind in enumerate(("cat", "dog")):
        for k in range(10):
            write_picture(tmp_path / kind / f"{k}.png", picture(100 * offset + k))

    run(prepare_folder, monkeypatch, tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["cat", "dog", "split.json"]
    counts = {side: Counter(name.split("/")[0] for name in names) for side, names in split_of(tmp_path).items()}
    assert counts == {side: {"cat": n, "dog": n} for side, n in {"train": 7, "val": 1, "test": 2}.items()}


def test_a_folder_with_errors_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for k in range(4):
        write_picture(tmp_path / "images" / f"{k}.png", picture(k))
        write_picture(tmp_path / "masks" / f"{k}.png", blob(k, k))
    (tmp_path / "masks" / "3.png").unlink()

    with pytest.raises(SystemExit, match="has errors, nothing was written; mend what is listed above"):
        run(prepare_folder, monkeypatch, tmp_path)
    assert "without a mask" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "masks"]
