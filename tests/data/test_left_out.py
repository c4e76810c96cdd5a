"""What a folder holds and nothing reads is counted and named; links to folders are followed, circles are not."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from vpt.data.check import check_dataset
from vpt.data.doubts.drawn import drawn_below
from vpt.data.doubts.left_out import ending_of, kinds, left_out, unread_beside
from vpt.data.layouts import read_labelled
from vpt.data.scans import find_scans, unread_scans
from vpt.data.walking import Walk
from vpt.errors import VptError
from vpt.use.archives.finding import find_archive


def fill(folder: Path, *names: str) -> Path:
    """Pictures of noise where Pillow writes the ending, else files that are never opened."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        seed = zlib.crc32(str(folder / name).encode())
        if name.endswith((".png", ".jfif", ".gif", ".jpg")):
            pixels = np.random.default_rng(seed).integers(0, 255, (12, 10), np.uint8)
            Image.fromarray(pixels).save(folder / name)
        else:
            (folder / name).write_bytes(b"anything")
    return folder


def some(stem: str, count: int, ending: str) -> list[str]:
    return [f"{stem}{number}{ending}" for number in range(count)]


def warnings(root: Path) -> str:
    return "\n".join(f"{each.file}: {each.text}" for each in check_dataset(root).warnings)


# --- class folders and tables -----------------------------------------------------------------------------------------


def test_jfif_and_single_gif_are_read(tmp_path):
    fill(tmp_path / "a", *some("x", 5, ".jfif"))
    fill(tmp_path / "b", *some("x", 5, ".gif"))
    assert len(read_labelled(tmp_path).cases) == 10
    assert warnings(tmp_path) == ""


@pytest.mark.parametrize(
    ("folder", "names", "said"),
    [
        ("a", some("y", 20, ".heic"), "20 .heic files are not read in a; convert them to PNG, or take them out"),
        ("a/deep", ["y.heic"], "1 .heic file is not read in a/deep; convert them to PNG"),
        ("", ["y.mat", "z.npy"], "2 files (1 .mat, 1 .npy) are not read; convert them"),
        (
            "c",
            some("n", 3, ".mgz"),
            "c: no file of the class c is read (3 .mgz), so it is no class; convert them to PNG",
        ),
        ("b", ["scan.nii.bz2"], "1 .nii.bz2 file is not read in b"),
        ("b", ["noending"], "1 nameless file is not read in b"),
    ],
)
def test_unread_files_of_classes_are_named(tmp_path, folder, names, said):
    for name in ("a", "b"):
        fill(tmp_path / name, *some("x", 5, ".png"))
    fill(tmp_path / folder, *names)
    assert said in warnings(tmp_path)


def test_an_image_that_lost_its_ending_is_told_and_a_text_without_one_is_not(tmp_path, save):
    (tmp_path / "LICENSE").write_text("Do as you like.")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "IM0001", format="PNG")

    assert left_out(tmp_path, ()).sentences() == ["1 nameless file is not read; convert them, or take them out"]


@pytest.mark.parametrize("name", ["pipe", "pipe.nii.gz", "pipe.png", "pipe.csv", "pipe.json", "pipe.zip"])
def test_a_pipe_is_not_waited_for(tmp_path, save, name):
    save(tmp_path / "a.nii.gz", np.zeros((2, 2, 2), np.uint8))
    os.mkfifo(tmp_path / name)
    waiting = Thread(target=lambda: (unread_beside(tmp_path), drawn_below(tmp_path)), daemon=True)
    waiting.start()
    waiting.join(timeout=20)
    assert not waiting.is_alive()
    with pytest.raises(VptError, match=r"no dataset\.json in this folder"):
        check_dataset(tmp_path)


@pytest.mark.parametrize("name", ["annotations/instances_train2017.json", "train/_annotations.coco.json"])
def test_annotations_of_coco_are_called_so(name, tmp_path):
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text('{"images": [], "annotations": []}')

    (said,) = left_out(tmp_path, ()).sentences()
    assert said.startswith(f"1 file of boxes and polygons as COCO has them not read: {name}; draw them as masks")
    assert f"; 1 file of boxes and polygons as COCO has them not read: {name}; " in unread_beside(tmp_path)


def test_what_is_hidden_or_describes_the_set_does_not_count(tmp_path):
    for name in ("a", "b"):
        fill(tmp_path / name, *some("x", 5, ".png"), "._x.png", ".DS_Store", "Thumbs.db")
    fill(tmp_path, "README.md", "LICENSE", "notes.txt", ".gitignore")
    fill(tmp_path / ".git", "pack.bin")
    assert warnings(tmp_path) == ""


def test_a_class_of_one_side_with_only_unread_files_is_named(tmp_path):
    for side in ("train", "val"):
        for name in ("a", "b"):
            fill(tmp_path / side / name, *some(f"{side}{name}", 5, ".png"))
    fill(tmp_path / "train/c", *some("q", 4, ".pcx"))
    assert "train/c: no file of the class c is read (4 .pcx), so it is no class" in warnings(tmp_path)


def test_too_few_classes_are_refused_with_what_is_not_read(tmp_path):
    fill(tmp_path / "a", *some("x", 5, ".png"))
    fill(tmp_path / "b", *some("x", 6, ".heic"))
    with pytest.raises(VptError, match=r"no dataset\.json in this folder.*; 6 \.heic files are not read in b: convert"):
        check_dataset(tmp_path)


def test_images_that_a_table_does_not_list_are_named(tmp_path):
    fill(tmp_path / "im", *some("x", 12, ".png"), "y.heic")
    lines = [f"im/x{number}.png,{'ab'[number % 2]}" for number in range(10)]
    (tmp_path / "labels.csv").write_text("path,label\n" + "\n".join(lines))
    said = warnings(tmp_path)
    assert "2 .png files are not read in im: they are in no usable line of labels.csv" in said
    assert "1 .heic file is not read in im" in said


# --- images and volumes with labels -----------------------------------------------------------------------------------


def test_unread_files_beside_images_and_masks_are_named(make_images):
    root = make_images(cases=5)
    fill(root / "images", "a.heic", "b.heic")
    fill(root / "masks", "a.mat")
    fill(root / "images/more", *some("x", 3, ".png"))
    said = warnings(root)
    assert "3 files (2 .heic, 1 .mat) are not read in images, masks; convert them to PNG" in said
    assert "3 .png files are not read in images/more: they belong to no case" in said


def test_masks_of_another_kind_are_named_and_gif_is_read(make_images):
    root = make_images(cases=4)
    for path in sorted((root / "masks").iterdir()):
        Image.open(path).save(path.with_suffix(".gif"))
        path.unlink()
    assert check_dataset(root).ok
    for path in (root / "masks").iterdir():
        path.rename(path.with_suffix(".mat"))
    with pytest.raises(VptError, match=r"masks: the masks are 4 \.mat, which are not read; convert them to PNG"):
        check_dataset(root)


def test_one_mask_of_another_kind_is_named_where_it_is_missing(make_images):
    root = make_images(cases=4)
    (root / "masks/case_01.png").rename(root / "masks/case_01.mat")
    errors = [f"{each.file}: {each.text}" for each in check_dataset(root).errors]
    assert errors == ["images/case_01.png: its mask is case_01.mat, which is not read; convert it to PNG"]


def test_unread_files_of_volumes_are_named_but_not_scans_to_predict(make_dataset, save):
    root = make_dataset(cases=4)
    fill(root / "imagesTr", "s.mgz", "t.mnc")
    save(root / "imagesTs/new_0000.nii.gz", np.zeros((4, 4, 4), np.uint8))
    said = warnings(root)
    assert "2 files (1 .mgz, 1 .mnc) are not read in imagesTr; convert them to .nii.gz" in said
    assert "imagesTs" not in said


# --- scans to predict -------------------------------------------------------------------------------------------------


def test_what_predict_does_not_read_is_told_with_its_subfolders(tmp_path, save):
    scans = fill(tmp_path / "scans", "a.mgz", "b.mgz", "c.heic", ".hidden.mgz")
    for place in ("x.nii.gz", "p0/t1.nii.gz", "p1/t1.nii.gz", "p1/t2.nii.gz", "out/x.nii.gz"):
        save(scans / place, np.zeros((2, 2, 2), np.uint8))
    assert unread_scans(scans, 1, scans / "out") == [
        "3 files (2 .mgz, 1 .heic) are not read; convert them, or take them out",
        "2 subfolders with 3 files (3 .nii.gz) are not read: p0, p1; add --recursive, give each as a folder of its "
        "own, or move the files up",
    ]
    assert unread_scans(scans / "x.nii.gz", 1, tmp_path / "out") == []


def test_a_folder_without_scans_says_what_it_holds(tmp_path):
    fill(tmp_path, *some("x", 3, ".heic"))
    fill(tmp_path / "deep", "y.png")
    with pytest.raises(VptError, match=r"no scans found.*; 3 \.heic files are not read: convert them; 1 subfolder"):
        find_scans(tmp_path, 1)


# --- links ------------------------------------------------------------------------------------------------------------


def linked_classes(tmp_path: Path) -> Path:
    for name in ("neg", "pos"):
        fill(tmp_path / "store" / name, *some(name, 6, ".png"))
        for side in ("train", "val"):
            (tmp_path / "set" / side).mkdir(parents=True, exist_ok=True)
            os.symlink(tmp_path / "store" / name, tmp_path / "set" / side / name)
    return tmp_path / "set"


def test_linked_classes_are_read_and_copies_on_two_sides_told(tmp_path):
    root = linked_classes(tmp_path)
    assert len(read_labelled(root).cases) == 24
    assert "12 images with the same pixels on two sides (train/neg/neg0 in train = val/neg/neg0 in val" in warnings(
        root
    )


def test_linked_patients_inside_a_class_are_read(tmp_path):
    for number in range(4):
        fill(tmp_path / f"archive/p{number}", *some(f"p{number}_", 3, ".png"))
        fill(tmp_path / f"set/neg/q{number}", *some(f"q{number}_", 3, ".png"))
    (tmp_path / "set/pos").mkdir()
    for number in range(4):
        os.symlink(f"../../archive/p{number}", tmp_path / f"set/pos/p{number}")
    found = read_labelled(tmp_path / "set")
    assert [sum(example.target == (k,) for example in found.cases) for k in range(2)] == [12, 12]


@pytest.mark.parametrize("target", ["..", "../..", ".", "../../set", "../../../"])
def test_a_link_back_to_a_folder_above_is_not_followed_but_told(tmp_path, target):
    for name in ("neg", "pos"):
        fill(tmp_path / "inner/set" / name / "p", *some(name, 5, ".png"))
    root = tmp_path / "inner/set"
    os.symlink(target, root / "neg/loop")
    assert len(read_labelled(root).cases) == 10
    assert "1 link back to a folder above, not followed: neg/loop; remove it" in warnings(root)


def test_a_link_to_the_set_itself_is_no_class(tmp_path):
    root = linked_classes(tmp_path)
    os.symlink(root, root / "loop")
    os.symlink(root, root / "train/again")
    os.symlink("nowhere", root / "gone")
    os.symlink("self", root / "self")
    assert len(read_labelled(root).cases) == 24


def test_folders_that_link_to_each_other_end(tmp_path):
    for k in range(6):
        fill(tmp_path / f"f{k}", "x.png")
    for k in range(6):
        for other in range(6):
            os.symlink(tmp_path / f"f{other}", tmp_path / f"f{k}/to{other}")
    assert len(list(Walk(tmp_path).files())) < 200


def test_linked_folders_of_images_and_masks_are_read(make_images, tmp_path):
    root = make_images(cases=4)
    for folder in ("images", "masks"):
        shutil.move(root / folder, tmp_path / f"moved_{folder}")
        os.symlink(tmp_path / f"moved_{folder}", root / folder)
    assert check_dataset(root).cases == 4
    assert warnings(
        root
    ) == "masks: 1 of 4 masks is empty (case_03); fine if nothing is there, otherwise annotate it" or (
        "not read" not in warnings(root)
    )


def test_endings_are_counted_by_their_whole_names():
    files = [Path(name) for name in ("a.nii.bz2", "b.nii.bz2", "c.MHA", "d", "v1.2.tar.gz")]
    assert [ending_of(path) for path in files] == [".nii.bz2", ".nii.bz2", ".mha", "", ".tar.gz"]
    assert kinds(files) == "2 .nii.bz2, 1 .mha, 1 without ending, 1 .tar.gz"


@pytest.mark.parametrize("target", ["gone", "../nowhere/deep", "/no/such/folder"])
@pytest.mark.parametrize("place", ["c", "a/patient7", "b/deep"])
def test_links_to_what_is_not_there_are_told(tmp_path: Path, place: str, target: str) -> None:
    for name in "ab":
        fill(tmp_path / name, *some("x", 6, ".png"))
    (tmp_path / place).symlink_to(target)
    assert f"1 link to what is not there: {place} to {target}; mend or remove it" in warnings(tmp_path)
    assert "not read" not in warnings(tmp_path)


def test_a_class_whose_folder_is_empty_is_told(tmp_path: Path) -> None:
    for name in "ab":
        fill(tmp_path / name, *some("x", 6, ".png"))
    (tmp_path / "normal").mkdir()
    assert "the folder normal is empty, so it is no class; add its images, or remove it" in warnings(tmp_path)


@pytest.mark.parametrize("place", ["c", "a/patient7", "b/deep", "a/image.png"])
def test_links_that_a_copy_left_as_text_are_told(tmp_path: Path, place: str) -> None:
    root = tmp_path / "set"
    for name in "ab":
        fill(root / name, *some("x", 6, ".png"))
    fill(tmp_path / "archive", *some("y", 3, ".png"))
    target = os.path.relpath(tmp_path / "archive", (root / place).parent)
    (root / place).write_text(target)
    if place.endswith(".png"):
        assert "not an image" in "".join(each.text for each in check_dataset(root).errors)
    else:
        said = f"1 link that a copy left as a text file, not followed: {place} to {target}; make it a link again"
        assert said in warnings(root)
        assert "not read" not in warnings(root)


def test_a_set_of_which_all_classes_are_links_in_text_is_refused_by_what_they_are(tmp_path: Path) -> None:
    for name in ("neg", "pos"):
        fill(tmp_path / "store" / name, *some("x", 3, ".png"))
        for side in ("train", "val"):
            (tmp_path / "set" / side).mkdir(parents=True, exist_ok=True)
            (tmp_path / "set" / side / name).write_text(f"../../store/{name}")
    with pytest.raises(
        VptError, match=r"4 links that a copy left as a text file, not followed: train/neg to \.\./\.\./st"
    ):
        check_dataset(tmp_path / "set")


def test_text_that_is_no_path_of_anything_is_none(tmp_path: Path) -> None:
    for name in "ab":
        fill(tmp_path / name, *some("x", 6, ".png"))
    (tmp_path / "a" / "note").write_text("see the readme")
    assert "1 nameless file is not read in a" in warnings(tmp_path)


@pytest.mark.parametrize("litter", ["@eaDir", "__MACOSX", ".ipynb_checkpoints", "$RECYCLE.BIN", "lost+found"])
def test_thumbnails_and_bins_of_the_system_are_no_images(tmp_path: Path, litter: str) -> None:
    for name in ("ill", "well"):
        fill(tmp_path / name, *some(name, 6, ".png"))
        fill(tmp_path / name / litter, "THUMB.png")
    fill(tmp_path / litter, "THUMB.jpg")

    assert len(read_labelled(tmp_path).cases) == 12
    assert check_dataset(tmp_path).warnings == ()


def test_what_predict_does_not_read_is_told_with_subfolders_too(tmp_path, save):
    scans = fill(tmp_path / "scans", "a.mgz")
    fill(scans / "p0", "b.mgz", "c.nii.zst")
    for place in ("x.nii.gz", "p0/t1.nii.gz", "p1/t1.nii.gz"):
        save(scans / place, np.zeros((2, 2, 2), np.uint8))
    os.symlink("..", scans / "p1/up")
    said = find_archive([scans], "volumes", 1, tmp_path / "out", recursive=True).notes
    assert list(said) == [
        f"{scans}: 3 files (2 .mgz, 1 .nii.zst) are not read in p0; convert them, or take them out",
        f"{scans}: 1 link back to a folder above, not followed: p1/up; remove it",
    ]


@pytest.mark.parametrize(("said", "told"), [(20, True), (5, True), (4, False), (0, False), ("4", False), (True, False)])
def test_a_set_of_fewer_cases_than_it_says_is_told(make_dataset, said, told):
    source = make_dataset() / "dataset.json"
    source.write_text(json.dumps(json.loads(source.read_text()) | {"numTraining": said}))
    found = [each.text for each in check_dataset(source.parent).warnings if "numTraining" in each.text]
    assert found == (
        [f"`numTraining` is {said}, but 4 cases of it can be found; is the copy complete?"] if told else []
    )


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("images/c00.json", False),  # as dcm2niix leaves it beside each scan
        ("images/c00.bval", False),
        ("logs/run.log", False),
        ("papers/methods.docx", False),
        ("code/convert.ipynb", False),
        ("SHA256SUMS.sha256", False),
        ("CITATION.cff", False),
        ("images/README.md", False),
        ("DICOMDIR", False),  # of a disk, which lists files of DICOM
        ("images/DICOMDIR", False),
        ("images/notes.json", True),
        ("images/c00.txt", True),  # may be an annotation
        ("masks/c00.xml", True),
        ("images/c00.npy", True),
    ],
)
def test_what_only_says_something_of_files_is_not_left_out(make_images, name: str, told: bool) -> None:
    root = make_images()
    first = sorted((root / "images").iterdir())[0].name.partition(".")[0]
    path = root / name.replace("c00", first)
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}" if path.suffix else "\0")
    said = [problem.text for problem in check_dataset(root).problems if "not read" in problem.text]
    assert bool(said) == told


def test_a_list_of_films_is_told_that_they_are_not_read(tmp_path: Path) -> None:
    """The list alone is no way out: it names files that have to be converted first."""
    (tmp_path / "Videos").mkdir()
    for k in range(3):
        (tmp_path / "Videos" / f"0X{k}.avi").write_bytes(b"RIFF")
    (tmp_path / "FileList.csv").write_text("FileName,EF,Split\n0X0,61,TRAIN\n0X1,48,VAL\n0X2,55,TEST\n")
    with pytest.raises(VptError, match=r"\(.*FileList\.csv\); 3 \.avi files are not read in Videos: convert them"):
        check_dataset(tmp_path)
