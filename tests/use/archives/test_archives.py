"""Reading ahead and writing behind change nothing but the time: order, failures, memory, what an interrupt leaves."""

from __future__ import annotations

import os
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from masks import bright_disc, broken, image_plan, same_place, scan, scan_plan, threshold
from PIL import Image

from vpt.data.cases import Case
from vpt.data.scans import find_scans
from vpt.errors import VptError
from vpt.use.archives import DiskFull, Failure, Masking, classify_cases, save_labels, segment_cases
from vpt.use.archives.attempts import attempt, one_ahead
from vpt.use.archives.outputs import plan_outputs, plan_predictions
from vpt.use.load import load

CASES = [Case(name, (Path(f"{name}.nii"),), None) for name in "abcde"]


def wait_for(condition) -> None:
    until = time.monotonic() + 10
    while not condition() and time.monotonic() < until:
        time.sleep(0.002)
    assert condition()


def test_the_next_item_is_made_meanwhile_and_no_other():
    made = []
    with closing(one_ahead(lambda item: made.append(item) or item, range(5))) as takes:
        for k, take in enumerate(takes):
            wait_for(lambda k=k: len(made) == min(k + 2, 5))
            time.sleep(0.01)
            assert made == list(range(min(k + 2, 5)))
            assert take() == k
    assert list(one_ahead(str, [])) == []


def test_errors_arise_at_their_own_item_and_stop_no_other():
    def make(item: int) -> int:
        if item % 2:
            raise VptError(f"item {item}")
        return item

    found = [attempt(str(k), "file", take) for k, take in enumerate(one_ahead(make, range(4)))]
    assert found == [0, Failure("1", "item 1"), 2, Failure("3", "item 3")]


def test_what_found_no_memory_beside_another_is_tried_alone():
    held, tries = threading.Event(), []

    def make(item: int) -> int:
        tries.append(item)
        if item == 3 or (item == 1 and held.is_set()):
            raise MemoryError
        return item

    found = []
    for take in one_ahead(make, range(4)):
        held.set()  # the item taken is in memory
        wait_for(lambda: len(tries) >= 2)
        found.append(attempt("x", "file", take))
        held.clear()
    assert found[:3] == [0, 1, 2]
    assert found[3] == Failure("x", "file: could not be processed (MemoryError); the others were")
    assert tries == [0, 1, 1, 2, 3, 3]


def test_leaving_early_ends_the_thread():
    with closing(one_ahead(str, range(5))) as takes:
        assert next(takes)() == "0"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vpt-read")]


class Scan:
    """A prepared scan and its reader in one, which doubts nothing."""

    unit, grid, warned, task = "px", None, (), ""

    def __init__(self, name: str):
        self.name, self.reader = name, self

    def doubts(self) -> list[str]:
        return []

    alone = doubts


class Steps:
    """A segmenter that notes what happens; what it has is all that `segment_cases` uses."""

    def __init__(self, fails=()):
        self.labels = {0: "background", 255: "all"}
        self.fails, self.seen, self.threads = dict(fails), [], {}

    def note(self, step: str, name: str) -> None:
        self.seen.append((step, name))
        self.threads.setdefault(step, set()).add(threading.current_thread().name)
        if (step, name) in self.fails:
            raise self.fails[step, name]

    def prepare(self, images, force=False):
        self.note("read", images[0].stem)
        return Scan(images[0].stem)

    def answering(self, scan):
        return self

    def labels_of(self, scan, told=None, progress=None, keep=None):
        self.note("segment", scan.name)
        return np.full((2, 2), ord(scan.name), np.uint8)

    def mask_of(self, scan, labels, form):
        return labels


@pytest.fixture
def run(tmp_path, monkeypatch):
    def run(steps, tick=lambda done, total, note: None, box=None):
        def save(path, labels):
            steps.note("write", path.stem)
            path.write_bytes(labels.tobytes())

        monkeypatch.setattr("vpt.use.archives.masks.save_labels", save)
        return segment_cases(Masking(steps, lambda case: tmp_path / f"{case.name}.png", box), CASES, tick)

    return run


def test_masks_and_progress_come_in_order_from_three_threads(run, tmp_path):
    steps, ticks = Steps(), []

    def tick(done, total, note):
        assert (tmp_path / f"{note}.png").exists()
        assert not (tmp_path / f"{chr(ord(note) + 1)}.png").exists()
        ticks.append((done, total, note))

    assert run(steps, tick) == []
    assert ticks == [(k + 1, 5, name) for k, name in enumerate("abcde")]
    for step in ("read", "segment", "write"):
        assert [name for what, name in steps.seen if what == step] == list("abcde")
    assert steps.threads["segment"] == {threading.current_thread().name}
    assert all(len(steps.threads[step]) == 1 for step in ("read", "write"))
    assert len(set.union(*steps.threads.values())) == 3
    for k, name in enumerate("abc"):  # one ahead: the scan after the next is read only when this one is done
        assert steps.seen.index(("read", "cde"[k])) > steps.seen.index(("segment", name))


def test_failures_come_in_the_order_of_cases_whatever_failed(run, tmp_path):
    fails = {
        ("write", "a"): OSError(5, "Input/output error"),
        ("segment", "b"): RuntimeError("CUDA out of memory\nmore"),
        ("read", "c"): VptError("c.nii: damaged"),
        ("write", "e"): VptError("e.png: cannot be written"),
    }
    ticks = []
    failures = run(Steps(fails), lambda done, total, note: ticks.append(done))
    assert [failure.name for failure in failures] == ["a", "b", "c", "e"]
    assert failures[1].reason == "b.nii: could not be processed (CUDA out of memory); the others were"
    assert failures[2].reason == "c.nii: damaged"
    assert ticks == [1, 2, 3, 4, 5]
    assert [path.name for path in tmp_path.iterdir()] == ["d.png"]


@pytest.mark.parametrize("step", ["read", "segment", "write"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_comes_through_and_earlier_masks_are_whole(run, tmp_path, step, error):
    steps = Steps({(step, "c"): error()})
    with pytest.raises(error):
        run(steps)
    assert sorted(path.name for path in tmp_path.iterdir() if path.stem < "d") == ["a.png", "b.png"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vpt-")]


def test_a_box_that_fails_is_the_failure_of_its_case(run):
    def box(case):
        if case.name == "b":
            raise VptError("no label")

    assert run(Steps(), box=box) == [Failure("b", "no label")]


def test_a_failing_scan_stops_no_other_and_leaves_nothing(tmp_path):
    folder, out = tmp_path / "scans", tmp_path / "masks"
    folder.mkdir()
    out.mkdir()
    for name in ("a", "z"):
        nib.save(scan(), folder / f"{name}.nii.gz")
    broken(folder, "truncated")
    broken(folder, "nan")
    ticks = []
    failures = segment_cases(
        Masking(threshold(scan_plan()), lambda case: out / f"{case.name}.nii.gz"),
        find_scans(folder, 1),
        lambda done, total, note: ticks.append((done, total)),
    )
    assert [failure.name for failure in failures] == ["nan", "truncated"]
    assert all(str(folder) in failure.reason for failure in failures)
    assert sorted(path.name for path in out.iterdir()) == ["a.nii.gz", "z.nii.gz"]
    assert ticks == [(1, 4), (2, 4), (3, 4), (4, 4)]
    same_place(nib.load(out / "z.nii.gz"), nib.load(folder / "z.nii.gz"))


def test_a_mask_cut_short_leaves_the_old_one(tmp_path, monkeypatch):
    nib.save(scan(), tmp_path / "a.nii.gz")
    (tmp_path / "out").mkdir()
    target = tmp_path / "out/a.nii.gz"
    target.write_bytes(b"the mask of yesterday")

    def full(image, path):
        Path(path).write_bytes(b"half a mask")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nib, "save", full)
    masking = Masking(threshold(scan_plan()), lambda case: target)
    with pytest.raises(DiskFull, match=r"No space left .* --continue"):
        segment_cases(masking, [Case("a", (tmp_path / "a.nii.gz",), None)] * 3)
    assert [path.name for path in target.parent.iterdir()] == ["a.nii.gz"]
    assert target.read_bytes() == b"the mask of yesterday"


# --- where masks go ---------------------------------------------------------------------------------------------------


@pytest.fixture
def scans(tmp_path) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in ("a", "b", "c_0000"):
        nib.save(scan((4, 4, 3)), folder / f"{name}.nii.gz")
    return folder


def outputs(scans: Path, out: Path, overwrite=False, skip=False) -> dict[str, Path]:
    cases, target = plan_outputs(find_scans(scans, 1), out, overwrite, skip)
    return {case.name: target(case) for case in cases}


def test_a_folder_of_scans_goes_to_a_folder_that_is_made(scans, tmp_path):
    out = tmp_path / "deep/down"
    assert outputs(scans, out) == {name: out / f"{name}.nii.gz" for name in ("a", "b", "c")}
    assert out.is_dir()


def test_one_scan_goes_to_one_file_or_into_a_folder(scans, tmp_path):
    assert outputs(scans / "a.nii.gz", tmp_path / "new/mask.nii.gz") == {"a": tmp_path / "new/mask.nii.gz"}
    assert (tmp_path / "new").is_dir()
    assert outputs(scans / "a.nii.gz", tmp_path / "out") == {"a": tmp_path / "out/a.nii.gz"}
    with pytest.raises(VptError, match="one file for 3 scans; give a folder"):
        outputs(scans, tmp_path / "mask.nii.gz")


@pytest.mark.parametrize("name", ["a.mgz", "a.nii.bz2", "a.txt", "a.NPY"])
def test_no_folder_is_called_as_a_file_that_nothing_writes(scans, tmp_path, name):
    with pytest.raises(VptError, match=rf"{name}: no answer is written as \.\w+; give NAME\.nii\.gz, NAME\.png or the"):
        outputs(scans / "a.nii.gz", tmp_path / name)
    assert not (tmp_path / name).exists()
    (tmp_path / name).mkdir()
    assert list(outputs(scans, tmp_path / name)) == ["a", "b", "c"]
    assert list(outputs(scans, tmp_path / "out.2026.05")) == ["a", "b", "c"]


def test_masks_that_exist_are_kept_unless_told_otherwise(scans, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("a", "c"):
        (out / f"{name}.nii.gz").write_bytes(b"a mask")
    with pytest.raises(VptError, match=r"a\.nii\.gz: exists already \(and 1 more\); add --overwrite"):
        outputs(scans, out)
    assert list(outputs(scans, out, skip=True)) == ["b"]
    assert list(outputs(scans, out, overwrite=True)) == ["a", "b", "c"]
    assert (out / "a.nii.gz").read_bytes() == b"a mask"  # planning touches nothing


@pytest.mark.parametrize("flags", [{}, {"overwrite": True}, {"skip": True}])
def test_scans_are_never_replaced_by_their_masks(scans, tmp_path, flags):
    with pytest.raises(VptError, match="would replace the scans themselves"):
        outputs(scans, scans, **flags)
    with pytest.raises(VptError, match="would replace the scans themselves"):
        outputs(scans / "a.nii.gz", scans / "../scans/a.nii.gz", **flags)
    assert list(outputs(scans, scans / "masks")) == ["a", "b", "c"]


def test_outputs_that_cannot_be_written_are_refused_before_any_work(scans, tmp_path):
    (tmp_path / "notes").write_text("a file")
    with pytest.raises(VptError, match=r"notes: cannot be made a folder"):
        outputs(scans, tmp_path / "notes")
    with pytest.raises(VptError, match="cannot be made a folder"):
        outputs(scans, tmp_path / "notes/deeper")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(scans, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(VptError, match="not writable"):
        outputs(scans, tmp_path / "locked")


def test_no_scans_at_all(tmp_path):
    with pytest.raises(VptError, match="no such file or folder"):
        outputs(tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_folder_of_images_becomes_a_folder_of_pngs(tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    pixels, _ = bright_disc()
    Image.fromarray(pixels).save(folder / "a.JPG", quality=95)
    Image.fromarray(pixels.T.copy()).save(folder / "b.png")
    (folder / "bad.png").write_bytes(b"")
    cases, target = plan_outputs(find_scans(folder, 1), out, overwrite=False, skip_existing=False)
    failures = segment_cases(Masking(threshold(image_plan()), target), cases)
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.png"]
    assert Image.open(out / "a.png").mode == "L"
    assert Image.open(out / "b.png").size == (90, 60)
    assert set(np.unique(np.array(Image.open(out / "a.png")))) == {0, 117}
    assert [failure.name for failure in failures] == ["bad"]
    assert failures[0].reason == f"{folder / 'bad.png'}: an empty file, expected an image; copy or export it again"
    with pytest.raises(VptError, match=r"a\.png: exists already \(and 1 more\); add --overwrite"):
        plan_outputs(find_scans(folder, 1), out, overwrite=False, skip_existing=False)
    cases, _ = plan_outputs(find_scans(folder, 1), out, overwrite=False, skip_existing=True)
    assert [case.name for case in cases] == ["bad"]
    with pytest.raises(VptError, match="the masks would replace the scans themselves"):
        plan_outputs(find_scans(folder, 1), folder, overwrite=True, skip_existing=False)


def test_one_image_goes_to_a_png_or_a_folder(tmp_path):
    image = tmp_path / "a.bmp"
    Image.fromarray(bright_disc()[0]).save(image)
    options = {"overwrite": False, "skip_existing": False}
    cases, target = plan_outputs(find_scans(image, 1), tmp_path / "deep" / "mask.png", **options)
    assert target(cases[0]) == tmp_path / "deep" / "mask.png"
    cases, target = plan_outputs(find_scans(image, 1), tmp_path / "folder", **options)
    assert target(cases[0]) == tmp_path / "folder" / "a.png"
    for name in ("mask.jpg", "mask.nii.gz"):
        with pytest.raises(
            VptError, match=r"the mask of an image cannot be written as this; give NAME\.png or a folder"
        ):
            plan_outputs(find_scans(image, 1), tmp_path / name, **options)
    nib.save(scan(), tmp_path / "scan.nii.gz")
    with pytest.raises(VptError, match=r"the mask of a scan cannot be written as this; give NAME\.nii\.gz or a folder"):
        plan_outputs(find_scans(tmp_path / "scan.nii.gz", 1), tmp_path / "mask.png", **options)


@pytest.mark.slow
def test_ids_above_255_are_written_with_sixteen_bits(tmp_path):
    segmenter = threshold(image_plan(), {0: "background", 3: "rim", 4000: "core"})
    mask = segmenter.segment(bright_disc()[0])
    assert mask.dtype == np.uint16
    save_labels(tmp_path / "a.png", mask)
    assert Image.open(tmp_path / "a.png").mode == "I;16"
    assert set(np.unique(np.array(Image.open(tmp_path / "a.png")))) == {0, 4000}


# --- classes ----------------------------------------------------------------------------------------------------------


def test_a_mask_is_no_place_for_classes_nor_a_table_for_masks(tmp_path: Path, tiny_classes: Path) -> None:
    folder = tiny_classes / "flat"
    for name in ("mask.png", "mask.nii.gz"):
        with pytest.raises(VptError, match=f"{name}: the model classifies, and its answer is a table; give FILE.csv"):
            plan_predictions(tmp_path / name, overwrite=False)
    with pytest.raises(VptError, match=r"out\.csv: the model segments, and its answers are masks; give a folder"):
        plan_outputs(find_scans(folder, 1), tmp_path / "out.csv", overwrite=False, skip_existing=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_scan_that_fails_for_lack_of_memory_stops_no_other(
    class_run: Path, tiny_classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier, images = load(class_run, "cpu"), sorted((tiny_classes / "lying").glob("*.png"))[:3]
    prepare = classifier.prepare

    def limited(files: Any, force: bool = False) -> Any:
        if files[0] == images[1]:
            raise MemoryError
        return prepare(files)

    monkeypatch.setattr(classifier, "prepare", limited)
    names, probabilities, failures = classify_cases(classifier, [(path.stem, (path,)) for path in images])
    assert names == [images[0].stem, images[2].stem]
    assert probabilities.shape[0] == 2
    assert [failure.reason for failure in failures] == [
        f"{images[1]}: could not be processed (MemoryError); the others were"
    ]
