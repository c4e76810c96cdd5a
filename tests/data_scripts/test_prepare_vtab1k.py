"""A task of VTAB-1k becomes a folder that vpt reads, whole or not at all, and what is wrong with it is one sentence."""

from __future__ import annotations

import csv
import io
import os
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import prepare_vtab1k as script
import pytest
from PIL import Image

from vpt.data.layouts import read_labelled
from vpt.errors import VptError
from vpt.published import material

CLASSES = 12


def lines_of(part: str, count: int, first: int = 0) -> list[str]:
    return [f"images/{part}/{number:06d}.jpg {number % CLASSES}" for number in range(first, first + count)]


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task as it is passed on, where all images of training share a folder. Read only."""
    root = tmp_path_factory.mktemp("vtab-1k") / "caltech101"
    train, val, test = lines_of("train", 800), lines_of("train", 200, first=800), lines_of("test", 30)
    for name, lines in {"train800": train, "val200": val, "train800val200": train + val, "test": test}.items():
        root.mkdir(exist_ok=True)
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (200, 90, 30)).save(buffer, "JPEG")
    for line in train + val + test:
        path = root / line.split()[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(buffer.getvalue())
    return root


@pytest.fixture
def task(original: Path, tmp_path: Path) -> Path:
    """One to change: its lists are copies, its images links."""
    root = tmp_path / "vtab-1k" / "caltech101"
    shutil.copytree(original / "images", root / "images", copy_function=os.link)
    for path in original.glob("*.txt"):
        shutil.copy(path, root)
    return root


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "data" / "caltech101"


def refused(task: Path, target: Path, sentence: str, names: Path | None = None) -> None:
    """Assert that the sentence is said and nothing is left."""
    with pytest.raises(VptError, match=sentence) as refusal:
        script.prepare(task, target, names)
    assert "\n" not in str(refusal.value)
    assert not target.parent.exists() or list(target.parent.iterdir()) == []


def rewrite(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


# --- whole ------------------------------------------------------------------------------------------------------------


def test_a_task_becomes_a_labelled_set_with_its_sides(original: Path, target: Path) -> None:
    assert script.prepare(original, target) == target

    found = read_labelled(target)
    sides = [found.sides[case.name] for case in found.cases]
    assert {side: sides.count(side) for side in ("train", "val", "test")} == {"train": 800, "val": 200, "test": 30}
    assert found.classes == tuple(map(str, range(CLASSES)))
    assert sorted(path.name for path in target.iterdir()) == ["images", "labels.csv"]
    assert [path.name for path in target.parent.iterdir()] == ["caltech101"]
    with open(target / "labels.csv", newline="") as file:
        assert list(csv.reader(file))[:2] == [["path", "label", "split"], ["images/train/000000.jpg", "0", "train"]]


def test_images_are_linked_and_stay_where_they_were(task: Path, target: Path) -> None:
    script.prepare(task, target)

    image = "images/test/000007.jpg"
    assert (task / image).samefile(target / image)


def test_images_are_copied_where_nothing_can_be_linked(
    task: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(material.os, "link", refuse)
    script.prepare(task, target)

    image = "images/test/000007.jpg"
    assert not (task / image).samefile(target / image)
    assert (task / image).read_bytes() == (target / image).read_bytes()
    assert len(list((target / "images/test").iterdir())) == 30


def test_names_of_classes_come_from_a_file(original: Path, target: Path, tmp_path: Path) -> None:
    names = tmp_path / "classes.txt"
    names.write_text("\n".join(f"class, the {number}th" for number in range(CLASSES)) + "\n\n")

    script.prepare(original, target, names)

    assert "class, the 11th" in read_labelled(target).classes


def test_the_thousand_may_lie_in_a_folder_of_their_own(task: Path, target: Path) -> None:
    rewrite(task / "train800val200.txt", lambda lines: [line.replace("train", "train800val200") for line in lines])

    assert len(read_labelled(script.prepare(task, target)).cases) == 1030


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["zip", "tar.gz"])
def test_an_archive_is_unpacked_and_leaves_nothing_else(
    original: Path, target: Path, tmp_path: Path, ending: str
) -> None:
    kind = {"zip": "zip", "tar.gz": "gztar"}[ending]
    archive = Path(shutil.make_archive(str(tmp_path / "task"), kind, original.parent, original.name))

    script.prepare(archive, target)

    assert len(read_labelled(target).cases) == 1030
    assert [path.name for path in target.parent.iterdir()] == ["caltech101"]


def test_the_command_says_where_it_put_it(
    original: Path, target: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["prepare", "--from", str(original), "--to", str(target)])
    script.main()
    assert f"vpt check {target}" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"error: .*caltech101: is there already; remove it"):
        script.main()


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("train800.txt", lambda lines: lines[1:], r"train800\.txt: 799 images, expected 800"),
        ("val200.txt", lambda lines: [*lines, "images/test/000001.jpg 1"], r"val200\.txt: 201 images, expected 200"),
        ("train800val200.txt", lambda lines: lines[1:], r"train800val200\.txt: 999 images, expected 1000"),
        ("val200.txt", lambda lines: ["images/train/000000.jpg 0", *lines[1:]], r"000000\.jpg is already in train800"),
        ("test.txt", lambda lines: lines + lines[:1], r"test/000000\.jpg is already in test\.txt; list it once"),
        (
            "test.txt",
            lambda lines: [*lines, "images/test/7.jpg 1"],
            r"1 of 1031 images are missing, first .*7\.jpg",
        ),
        ("test.txt", lambda lines: [], "lists no images"),
        ("test.txt", lambda lines: ["images/a.jpg"], r"line 1 is 'images/a\.jpg', expected an image and its class"),
        ("test.txt", lambda lines: ["images/a.jpg x"], r"line 1 is 'images/a\.jpg x', expected"),
        ("test.txt", lambda lines: ["../../a.jpg 1"], r"the path '\.\./\.\./a\.jpg' leads out of its folder"),
        ("test.txt", lambda lines: ["/etc/a.jpg 1"], "the path '/etc/a.jpg' leads out of its folder"),
        ("test.txt", lambda lines: ["test.txt 1"], r"test\.txt is no image; supported are"),
        (
            "train800val200.txt",
            lambda lines: [lines[0][:-1] + "5", *lines[1:]],
            "classes are not those of train800",
        ),
        (
            "train800val200.txt",
            lambda lines: [lines[0][:-1] + "1", lines[1][:-1] + "0", *lines[2:]],
            r"train/000000\.jpg has another class than in its own list",
        ),
    ],
)
def test_lists_that_are_not_those_of_vtab_are_refused(
    task: Path, target: Path, name: str, change: Callable[[list[str]], list[str]], sentence: str
) -> None:
    rewrite(task / name, change)

    refused(task, target, sentence)


def test_a_missing_list_or_source_is_named(task: Path, target: Path) -> None:
    (task / "val200.txt").unlink()

    refused(task, target, r"val200\.txt: no such file; a task of VTAB-1k has train800\.txt, val200\.txt, test\.txt")
    refused(task / "gone", target, "gone: no such folder or archive")
    refused(task / "test.txt", target, r"test\.txt: neither a folder nor an archive; expected .*\.tar\.gz")


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["a"] * 11, "11 names, but classes go up to 11; give 12 names"),
        (["a"] * 12, "'a' names two classes"),
        ([*"abcdefghijk", "l|m"], r"'l\|m' is no name of a class"),
        (["a", "", *"cdefghijkl"], "'' is no name of a class"),
        (None, "cannot be read"),
    ],
)
def test_names_that_do_not_fit_are_refused(
    original: Path, target: Path, tmp_path: Path, names: list[str] | None, sentence: str
) -> None:
    file = tmp_path / "classes.txt"
    if names is not None:
        file.write_text("\n".join(names))

    refused(original, target, sentence, file)


@pytest.mark.parametrize("path", ["../out.txt", "/tmp/vpt-out.txt", "task/../../out.txt"])
@pytest.mark.parametrize("ending", [".zip", ".tar"])
def test_archives_that_lead_out_of_their_folder_are_refused(
    target: Path, tmp_path: Path, path: str, ending: str
) -> None:
    archive = tmp_path / f"bad{ending}"
    if ending == ".zip":
        with zipfile.ZipFile(archive, "w") as content:
            content.writestr(path, "out")
    else:
        with tarfile.open(archive, "w") as content:
            content.addfile(tarfile.TarInfo(path), io.BytesIO())

    refused(archive, target, f"the path '{path}' leads out of its folder")
    assert not (tmp_path / "out.txt").exists()
    assert not Path("/tmp/vpt-out.txt").exists()


def test_links_in_an_archive_are_refused(target: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "bad.tar.gz", "w:gz") as content:
        link = tarfile.TarInfo("task/images")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        content.addfile(link)

    refused(tmp_path / "bad.tar.gz", target, "task/images is a link or a device")


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
def test_a_damaged_archive_is_named(original: Path, target: Path, tmp_path: Path, ending: str) -> None:
    kind = {".zip": "zip", ".tar.gz": "gztar"}[ending]
    archive = Path(shutil.make_archive(str(tmp_path / "task"), kind, original.parent, original.name))
    archive.write_bytes(archive.read_bytes()[:5000])

    refused(archive, target, "cannot be unpacked")


def test_an_archive_of_several_tasks_or_of_none_is_refused(target: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as content:
        for task in ("vtab-1k/dtd", "vtab-1k/svhn"):
            content.writestr(f"{task}/train800.txt", "")
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as content:
        content.writestr("readme.txt", "")

    refused(tmp_path / "all.zip", target, r"expected one folder with train800\.txt, found vtab-1k/dtd, vtab-1k/svhn")
    refused(tmp_path / "none.zip", target, r"expected one folder with train800\.txt, found none")


def test_a_full_disk_leaves_nothing(original: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(material.os, "link", refuse)
    monkeypatch.setattr(material.shutil, "copyfile", refuse)

    refused(original, target, r"caltech101: cannot be written \(No space left on device\)")
