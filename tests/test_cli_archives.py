"""`vpt predict` of an archive and `vpt watch`, as a person uses them."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Told

from vpt.errors import VptError
from vpt.use.segmenter import Segmenter


@pytest.fixture
def scans(tiny_data: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    (folder / "deep").mkdir(parents=True)
    for name in ("blobs_000_0000", "blobs_001_0000"):
        shutil.copy(tiny_data / "imagesTr" / f"{name}.nii.gz", folder)
    shutil.copy(tiny_data / "imagesTr/blobs_002_0000.nii.gz", folder / "deep/blobs_000_0000.nii.gz")
    (folder / "broken.nii.gz").write_bytes(b"")
    return folder


@pytest.mark.slow
def test_an_archive_in_parts_that_goes_on(
    vpt: Callable[..., Told], tiny_run: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("predict", "-i", scans, "-o", tmp_path / "out", "-m", tiny_run, "--recursive", "--device", "cpu")
    for rank in "10":
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        told = vpt(*words)
        assert f"part {rank} of 2 (torchrun (RANK)): " in told.out
    monkeypatch.delenv("RANK")

    told = vpt(*words, "--continue", "--skip-failed")

    assert (told.code, "3 of 4 scans segmented" in told.out) == (1, True)
    assert "3 of them were done before and are unchanged" in told.out
    assert "broken.nii.gz: an empty file" in told.err
    assert "unchanged)" in told.err
    found = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [case["case"] for case in found["cases"]] == ["broken", "blobs_000", "blobs_001", "deep/blobs_000"]
    assert (tmp_path / "out/deep/blobs_000.nii.gz").is_file()
    assert vpt(*words, "--skip-failed").code == 2
    assert vpt(*words, "--continue", "--overwrite").code == 2


@pytest.mark.slow
def test_classes_go_to_standard_output_to_json_or_a_folder_that_goes_on(
    vpt: Callable[..., Told], class_run: Path, tiny_classes: Path, tmp_path: Path
) -> None:
    images = sorted((tiny_classes / "flat").glob("*.png"))[:4]
    words = ("predict", *(word for path in images for word in ("-i", path)), "-m", class_run, "--device", "cpu")

    told = vpt(*words, "-o", "-")
    assert (told.code, "4 of 4 scans classified" in told.err) == (0, True)
    rows = list(csv.DictReader(told.out.splitlines()))
    assert [row["name"] for row in rows] == [path.stem for path in images]

    assert vpt(*words, "-o", tmp_path / "a.json").code == 0
    found = json.loads((tmp_path / "a.json").read_text())
    assert list(found) == [path.stem for path in images]
    assert all(sum(each.values()) == pytest.approx(1) for each in found.values())

    for part in range(2):
        assert vpt(*words, "-o", tmp_path / "out", "--num-parts", 2, "--part-id", part).code == 0
    with open(tmp_path / "out/predictions.csv", newline="") as file:
        assert [row["prediction"] for row in csv.DictReader(file)] == [row["prediction"] for row in rows]
    told = vpt(*words, "-o", tmp_path / "out", "--continue")
    assert "4 of them were done before" in told.out
    assert json.loads((tmp_path / "out/predictions.json").read_text())["counts"] == {"done": 4}


def test_watch_refuses_what_it_cannot_do(vpt: Callable[..., Told], class_run: Path, tmp_path: Path) -> None:
    told = vpt("watch", tmp_path / "nowhere", "-o", tmp_path / "out", "-m", class_run)
    assert (told.code, "no such folder" in told.err) == (1, True)
    assert vpt("watch", tmp_path, "-o", tmp_path / "out", "-m", class_run, "--settle", "-1").code == 2
    assert vpt("watch", tmp_path, "-o", tmp_path / "out", "-m", class_run, "--preview").code == 2


def test_watch_loads_the_model_as_it_is_asked_to(
    vpt: Callable[..., Told], tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(models: list[Path], **given: Any) -> None:
        asked.append(given)
        raise VptError("enough is known")

    asked: list[dict[str, Any]] = []
    monkeypatch.setattr("vpt.use.load.load", load)
    said = {"device": "cpu", "weights": tmp_path, "precision": "32-true", "task": "liver", "decide": "dice"}
    options = [part for name, value in said.items() for part in (f"--{name}", value)]

    told = vpt("watch", tmp_path, "-o", tmp_path / "out", "-m", tiny_run, "--tta", *options)

    assert (told.code, "enough is known" in told.err) == (1, True)
    assert asked == [{**said, "tta": True, "compile": False, "postprocess": True}]


def test_watch_takes_several_models_as_one_only(vpt: Callable[..., Told], tiny_run: Path, tmp_path: Path) -> None:
    told = vpt("watch", tmp_path, "-o", tmp_path / "out", "-m", tiny_run, "-m", tiny_run)
    assert (told.code, "several models; add --mean to average their probabilities" in told.err) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_batch_goes_on(
    vpt: Callable[..., Told],
    tiny_run: Path,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    code: int,
) -> None:
    words = ("predict", "-i", tiny_data / "imagesTr", "-o", tmp_path / "out", "-m", tiny_run, "--device", "cpu")
    labels_of, calls = Segmenter.labels_of, iter(range(9))

    def interrupted(*given: Any, **named: Any) -> Any:
        if next(calls) == 2:
            os.kill(os.getpid(), number)
        return labels_of(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Segmenter, "labels_of", interrupted)
        told = vpt(*words)
    assert (told.code, "the same command with --continue goes on" in told.err) == (code, True)
    done = json.loads((tmp_path / "out/predictions.json").read_text())["counts"]["done"]
    told = vpt(*words, "--continue")
    assert (told.code, f"{done} of them {'was' if done == 1 else 'were'} done before" in told.out) == (0, True)
    assert done in (1, 2)
    assert [path.name for path in (tmp_path / "out").glob(".part*")] == []


@pytest.mark.slow
def test_a_folder_of_masks_gets_its_page_of_all_that_it_records(
    vpt: Callable[..., Told], tiny_run: Path, scans: Path, tmp_path: Path
) -> None:
    words = ("predict", "-i", scans, "-o", tmp_path / "out", "-m", tiny_run, "--recursive", "--report")

    told = vpt(*words, "--device", "cpu")

    assert (told.code, f"report: {tmp_path}/out/report.html" in told.out) == (1, True)
    page = (tmp_path / "out/report.html").read_text()
    assert "3 of 4 scans segmented" in page
    assert page.index("broken.nii.gz: an empty file") < page.index("<h3>deep/blobs_000</h3>")
    assert "data:image/" in page
    assert "no picture" not in page

    (tmp_path / "out/report.html").unlink()
    assert vpt(*words, "--device", "cpu", "--continue").code == 1
    assert (tmp_path / "out/report.html").read_text().count('<article class="case">') == 3


def test_a_folder_of_classes_gets_a_page_and_a_file_none(
    vpt: Callable[..., Told], class_run: Path, tiny_classes: Path, tmp_path: Path
) -> None:
    words = ("predict", "-i", tiny_classes / "flat", "-m", class_run, "--device", "cpu", "--report")

    assert vpt(*words, "-o", tmp_path / "out").code == 0
    assert "scans classified." in (tmp_path / "out/report.html").read_text()

    told = vpt(*words, "-o", tmp_path / "a.csv")
    assert (told.code, "give a folder as the output" in told.err) == (2, True)
    assert not (tmp_path / "a.csv").exists()
