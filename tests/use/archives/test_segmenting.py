"""A batch over an archive: every scan answered or named, what is done stands, parts make the same masks."""

from __future__ import annotations

import gzip
import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from masks import broken, image_plan, scan, scan_plan, threshold
from PIL import Image

from vpt import files
from vpt.data.plan import Window
from vpt.errors import VptError
from vpt.use.archives import Asked, Beside, DiskFull, ModelMark, Outcome, Part, segment_archive
from vpt.use.archives.attempts import FolderGone
from vpt.use.archives.masks import count_labels
from vpt.use.archives.records import read_records
from vpt.use.segmenter import Segmenter

MARK = ModelMark("run/best.safetensors", "ab" * 32, "{}")
PLAN = scan_plan(pixel_mm=1.0)
HOSTILE = {
    "offset": (108, struct.pack("<f", float("inf"))),
    "srow": (280, struct.pack("<ff", 1e38, 1e38)),
    "affine": (280, struct.pack("<fff", 1e38, 0, 0)),
    "shape": (40, struct.pack("<4h", 3, 30000, 30000, 30000)),
    "type": (70, struct.pack("<h", 77)),
}


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return threshold(PLAN)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    for k, name in enumerate("abc"):
        nib.save(scan(seed=k), folder / f"{name}.nii.gz")
    return folder


@pytest.fixture
def run(segmenter: Segmenter, scans: Path, tmp_path: Path) -> Callable[..., Outcome]:
    def run(mark: ModelMark = MARK, model: Segmenter = segmenter, **asked: Any) -> Outcome:
        return segment_archive(model, [scans], tmp_path / "out", Asked(**asked), mark)

    return run


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def test_hostile_and_damaged_scans_fail_by_name_and_stop_no_other(run, scans, tmp_path) -> None:
    raw = bytearray(gzip.decompress((scans / "a.nii.gz").read_bytes()))
    for name, (place, content) in HOSTILE.items():
        data = bytearray(raw)
        data[place : place + len(content)] = content
        (scans / f"bad_{name}.nii.gz").write_bytes(gzip.compress(bytes(data)))
    for name, factor in {"large": 50.0, "small": 0.02}.items():
        image = scan(affine=np.diag([factor, factor, factor, 1.0]))
        nib.save(image, scans / f"bad_{name}.nii.gz")
    broken(scans, "truncated").rename(scans / "bad_truncated.nii.gz")
    bad = sorted(path.name for path in scans.glob("bad_*"))

    outcome = run()

    assert (outcome.total, outcome.answered) == (3 + len(bad), 3)
    assert [Path(failure.reason.partition(": ")[0]).name for failure in outcome.failures] == bad
    assert not [failure for failure in outcome.failures if failure.error], (
        "every one of these has a sentence of its own"
    )
    assert {path.name for path in (tmp_path / "out").glob("*.nii.gz")} == {"a.nii.gz", "b.nii.gz", "c.nii.gz"}
    assert list(json.loads((tmp_path / "out/failures.json").read_text())) == [
        name.removesuffix(".nii.gz") for name in bad
    ]


def test_a_record_says_what_was_done(run, scans, tmp_path, segmenter) -> None:
    run()

    told = json.loads((tmp_path / "out/predictions.json").read_text())["cases"][0]
    mask, grid = voxels(tmp_path / "out/a.nii.gz"), nib.load(scans / "a.nii.gz")
    volume = abs(np.linalg.det(grid.affine[:3, :3])) / 1000
    assert told["volumes_ml"] == {
        name: pytest.approx((mask == id).sum() * volume, abs=1e-3) for id, name in segmenter.labels.items() if id
    }
    assert (told["files"], told["output"], told["model_sha256"]) == (["a.nii.gz"], "a.nii.gz", MARK.sha256)
    assert told["seconds"] > 0
    assert told["versions"].keys() == {"vpt", "torch"}
    assert str(tmp_path) not in (tmp_path / "out/predictions.json").read_text() + (tmp_path / "out/log.txt").read_text()


class Counting(Segmenter):
    """Notes which scans it reads."""

    def __init__(self, other: Segmenter, fails: dict[str, BaseException] | None = None):
        self.__dict__ |= other.__dict__
        self.read: list[str] = []
        self.fails = fails or {}

    def prepare(self, scan: Any, force: bool = False) -> Any:
        name = scan[0].name.partition(".")[0]
        self.read.append(name)
        if name in self.fails:
            raise self.fails[name]
        return super().prepare(scan, force)


@pytest.mark.slow
def test_continue_does_what_is_new_has_changed_or_is_gone(run, scans, tmp_path, segmenter) -> None:
    run()
    nib.save(scan(seed=9), scans / "b.nii.gz")
    nib.save(scan(seed=8), scans / "d.nii.gz")
    (tmp_path / "out/c.nii.gz").unlink()
    counting = Counting(segmenter)

    outcome = run(model=counting, existing="continue")

    assert (counting.read, outcome.total, outcome.answered, outcome.before) == (["b", "c", "d"], 4, 4, 1)
    again = Counting(segmenter)
    assert (run(model=again, existing="continue").before, again.read) == (4, [])
    for mark in (replace(MARK, sha256="cd" * 32), replace(MARK, settings='{"tta": true}')):
        other = Counting(segmenter)
        assert (run(mark, other, existing="continue").before, other.read) == (0, ["a", "b", "c", "d"])
    assert len(json.loads((tmp_path / "out/predictions.json").read_text())["cases"]) == 4


@pytest.mark.slow
def test_continue_makes_a_mask_that_was_cut_off_again_and_keeps_one_that_was_corrected(
    run, tmp_path, segmenter
) -> None:
    run()
    cut, corrected = tmp_path / "out/a.nii.gz", tmp_path / "out/b.nii.gz"
    whole = cut.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    mask = nib.load(corrected)
    drawn = np.asarray(mask.dataobj).copy()
    drawn[::2] = 1 - drawn[::2]
    nib.save(nib.Nifti1Image(drawn, mask.affine, mask.header), corrected)
    by_hand = corrected.read_bytes()
    counting = Counting(segmenter)

    run(model=counting, existing="continue")

    assert (counting.read, cut.read_bytes(), corrected.read_bytes()) == (["a"], whole, by_hand)


@pytest.mark.slow
def test_what_a_killed_process_was_writing_is_cleared_beside_every_answer(run, tmp_path) -> None:
    out = tmp_path / "out"
    for place in (out, out / "previews", out / "probabilities"):
        place.mkdir(exist_ok=True)
        (place / f".part-{files._machine()}-{2**22 + 1}-a.nii.gz").write_bytes(b"half")

    run(beside=Beside(probabilities=True, preview=True))

    assert not list(out.rglob(".part-*"))


def test_what_failed_is_tried_again_or_only_listed(run, scans, segmenter) -> None:
    broken(scans, "nan")
    run()
    retried, left = Counting(segmenter), Counting(segmenter)

    assert [failure.name for failure in run(model=retried, existing="continue").failures] == ["nan"]
    outcome = run(model=left, existing="continue", skip_failed=True)

    assert (retried.read, left.read) == (["nan"], [])
    assert [failure.name for failure in outcome.failures] == ["nan"]
    assert outcome.failures[0].reason.endswith("unchanged)")


def test_masks_that_are_not_in_the_record_are_not_replaced_unasked(run, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.nii.gz").write_bytes(b"by hand")

    with pytest.raises(VptError, match="exists already; add --overwrite"):
        run(existing="continue")
    assert (tmp_path / "out/a.nii.gz").read_bytes() == b"by hand"


@pytest.mark.parametrize("name", ["predictions.csv", "predictions.json", "failures.json", "quality.csv"])
def test_files_called_as_a_record_of_which_none_was_begun_are_not_replaced_unasked(run, tmp_path, name) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("by hand")

    with pytest.raises(VptError, match=rf"{name}: not of a batch of `vpt predict`, .*; move it, add --overwrite, or"):
        run()
    assert [(file.name, file.read_text()) for file in (tmp_path / "out").iterdir()] == [(name, "by hand")]
    run(existing="overwrite")


@pytest.mark.slow
def test_parts_make_the_same_masks_and_one_record(run, tmp_path, segmenter, scans) -> None:
    run()
    for number in range(2):
        segment_archive(segmenter, [scans], tmp_path / "two", Asked(part=Part(number, 2, "test")), MARK)

    for name in "abc":
        assert (tmp_path / f"two/{name}.nii.gz").read_bytes()[10:] == (tmp_path / f"out/{name}.nii.gz").read_bytes()[
            10:
        ]
    assert {name: record.part for name, record in read_records(tmp_path / "two").items()} == {
        "a": "part 0 of 2",
        "b": "part 1 of 2",
        "c": "part 0 of 2",
    }


def test_what_nobody_expected_is_one_failure_with_its_place_in_the_log(run, tmp_path, segmenter) -> None:
    outcome = run(model=Counting(segmenter, {"b": KeyError("Miller")}))

    assert (outcome.answered, [failure.error for failure in outcome.failures]) == (2, ["KeyError"])
    assert "(KeyError: 'Miller'), which nobody expected; please report it" in outcome.failures[0].reason
    log = (tmp_path / "out/log.txt").read_text()
    assert "test_segmenting.py" in log
    assert "Miller" not in log


def test_an_interrupt_leaves_a_record_of_what_was_done(run, tmp_path, segmenter) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(model=Counting(segmenter, {"c": KeyboardInterrupt()}))

    assert list(read_records(tmp_path / "out")) == ["a"]
    assert json.loads((tmp_path / "out/predictions.json").read_text())["counts"] == {"done": 1}
    assert run(existing="continue").before == 1


def test_a_full_disk_ends_the_batch(run, tmp_path, monkeypatch) -> None:
    def full(image: Any, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nib, "save", full)
    with pytest.raises(DiskFull, match="go on with --continue"):
        run()
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_one_file_has_no_record_beside_it(segmenter, scans, tmp_path) -> None:
    segment_archive(segmenter, [scans / "a.nii.gz"], tmp_path / "one/a.nii.gz", Asked(), MARK)

    assert [path.name for path in (tmp_path / "one").iterdir()] == ["a.nii.gz"]
    with pytest.raises(VptError, match="--continue needs the record of a folder"):
        segment_archive(segmenter, [scans / "a.nii.gz"], tmp_path / "one/a.nii.gz", Asked(existing="continue"), MARK)


@pytest.mark.slow
def test_probabilities_and_a_picture_lie_beside_the_mask(run, scans, tmp_path, segmenter) -> None:
    run(beside=Beside(probabilities=True, preview=True))

    found, mask = nib.load(tmp_path / "out/probabilities/a.nii.gz"), nib.load(tmp_path / "out/a.nii.gz")
    values, ids = found.get_fdata(), sorted(segmenter.labels)
    assert found.shape == (*mask.shape, len(ids))
    assert np.allclose(found.affine, mask.affine)
    assert np.abs(values.sum(-1) - 1).max() < 0.01
    assert (np.array(ids)[values.argmax(-1)] == voxels(tmp_path / "out/a.nii.gz")).mean() > 0.99
    assert Image.open(tmp_path / "out/previews/a.png").width > 100
    (tmp_path / "out/previews/b.png").unlink()
    counting = Counting(segmenter)
    run(model=counting, existing="continue", beside=Beside(preview=True))
    assert counting.read == ["b"]


@pytest.mark.slow
def test_of_a_scan_that_is_cropped_the_probabilities_lie_on_the_whole(tmp_path) -> None:
    array = np.zeros((40, 36, 30), np.float32)
    array[12:24, 8:20, 10:20] = np.random.default_rng(0).uniform(100, 900, (12, 12, 10))
    (tmp_path / "in").mkdir()
    nib.save(nib.Nifti1Image(array, np.diag([-1, 1, 2, 1])), tmp_path / "in/a.nii.gz")
    plan = scan_plan(crop="foreground", intensity=(Window(low=0, high=1000),))

    segment_archive(
        threshold(plan),
        [tmp_path / "in"],
        tmp_path / "out",
        Asked(beside=Beside(probabilities=True, preview=True)),
        MARK,
    )

    found, mask = nib.load(tmp_path / "out/probabilities/a.nii.gz"), voxels(tmp_path / "out/a.nii.gz")
    values, ids = found.get_fdata(), sorted(threshold(plan).labels)
    assert found.shape == (*array.shape, len(ids))
    assert np.abs(values.sum(-1) - 1).max() < 0.01
    assert (np.array(ids)[values.argmax(-1)] == mask).mean() > 0.99
    assert mask.any()
    assert np.allclose(values[30:, ..., 0], 1)
    assert (tmp_path / "out/previews/a.png").is_file()


@pytest.mark.parametrize("shape", [(4, 3, 5), (4, 3)])
def test_labels_of_any_id_are_counted_in_little_memory(shape) -> None:
    labels = np.zeros(shape, np.uint32)
    labels[0], labels[1, 0] = 2**32 - 1, 7
    one = labels[0].size

    assert count_labels(labels, {0: "background", 7: "seven", 9: "nine", 2**32 - 1: "last"}) == {
        "seven": labels[1, 0].size,
        "nine": 0,
        "last": one,
    }


def test_images_are_counted_in_pixels(tmp_path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(np.tile(np.arange(0, 250, 5, dtype=np.uint8), (40, 1))).save(tmp_path / "in/a.png")

    segment_archive(threshold(image_plan()), [tmp_path / "in"], tmp_path / "out", Asked(), MARK)

    record = read_records(tmp_path / "out")["a"]
    mask = np.array(Image.open(tmp_path / "out/a.png"))
    assert record.volumes_ml == {}
    assert record.pixels == {"rim": int((mask == 3).sum()), "core": int((mask == 117).sum())}


@pytest.mark.parametrize("existing", ["overwrite", "continue", "refuse"])
def test_no_scan_is_replaced_by_the_mask_of_another_of_its_name(
    segmenter: Segmenter, tmp_path: Path, existing: Any
) -> None:
    """`x.nii.gz` fails, being the second of its name, and is what the mask of `x.nii` would be called."""
    folder = tmp_path / "scans"
    folder.mkdir()
    nib.save(scan(seed=0), folder / "x.nii")
    nib.save(scan(seed=1), folder / "x.nii.gz")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    with pytest.raises(VptError, match=r"the masks would replace the scans themselves \(x\.nii\.gz\)"):
        segment_archive(segmenter, [folder], folder, Asked(existing=existing), MARK)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("name", ["probabilities", "previews"])
def test_a_folder_called_as_what_lies_beside_masks_is_not_written_over(
    segmenter: Segmenter, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "scans"
    (folder / name).mkdir(parents=True)
    nib.save(scan(seed=0), folder / "x.nii.gz")
    nib.save(scan(seed=1), folder / name / "x.nii.gz")
    asked = Asked(recursive=True, beside=Beside(probabilities=True))

    if name == "previews":  # of another ending than masks of volumes
        assert segment_archive(segmenter, [folder], tmp_path / "out", asked, MARK).failures == []
        return
    with pytest.raises(VptError, match=r"x\.nii\.gz would be written for probabilities/x and for x; rename one"):
        segment_archive(segmenter, [folder], tmp_path / "out", asked, MARK)
    assert not (tmp_path / "out").exists()


def test_of_two_scans_of_one_name_the_record_has_one_answered_and_one_failed(
    segmenter: Segmenter, tmp_path: Path
) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        nib.save(scan(seed=0), tmp_path / folder / "x.nii.gz")
    given, out = [tmp_path / "one", tmp_path / "two"], tmp_path / "out"

    for existing in ("refuse", "continue"):
        outcome = segment_archive(segmenter, given, out, Asked(existing=existing), MARK)
        records = read_records(out)
        assert [failure.name for failure in outcome.failures] == ["x.nii.gz"]
        assert {name: record.status for name, record in records.items()} == {"x": "done", "x.nii.gz": "failed"}
    assert outcome.before == 1


def test_a_header_that_names_no_file_fails_by_itself(segmenter: Segmenter, scans: Path, tmp_path: Path) -> None:
    (scans / "j.mhd").write_bytes(b"ObjectType = Image\nElementDataFile = a\0b")
    outcome = segment_archive(segmenter, [scans], tmp_path / "out", Asked(), MARK)
    assert [failure.name for failure in outcome.failures] == ["j"]
    assert outcome.answered == 3


def test_the_masks_of_an_earlier_batch_are_no_scans_that_would_be_replaced(
    segmenter: Segmenter, tmp_path: Path
) -> None:
    folder, image = tmp_path / "scans", scan(seed=0)
    folder.mkdir()
    nib.save(nib.Nifti1Pair(np.asarray(image.dataobj), image.affine), folder / "x.img")
    assert segment_archive(segmenter, [folder], folder, Asked(), MARK).failures == []
    assert (folder / "x.nii.gz").exists()

    again = segment_archive(segmenter, [folder], folder, Asked(existing="continue"), MARK)

    assert (again.total, again.before, again.failures) == (1, 1, [])  # the mask is no second scan called x


@pytest.mark.parametrize("recursive", [False, True])
def test_answers_of_an_earlier_batch_are_no_scans_of_the_next(segmenter, scans, tmp_path, recursive) -> None:
    beside = Beside(probabilities=True, preview=True)
    earlier = scans / "first" if recursive else scans
    (scans / "a.nii.gz").rename(scans / "a_0000.nii.gz")
    for name in "bc":
        (scans / f"{name}.nii.gz").rename(scans / f"{name}_0000.nii.gz")
    segment_archive(segmenter, [scans], earlier, Asked(recursive=recursive, beside=beside), MARK)

    outcome = segment_archive(segmenter, [scans], tmp_path / "out", Asked(recursive=recursive), MARK)
    again = segment_archive(segmenter, [scans], earlier, Asked(recursive=recursive, existing="continue"), MARK)

    assert (outcome.total, outcome.failures) == (3, [])
    assert {path.name for path in (tmp_path / "out").rglob("*.nii.gz")} == {"a.nii.gz", "b.nii.gz", "c.nii.gz"}
    number = 6 if recursive else 3
    assert [note for note in outcome.notes if f"{number} files are answers of an earlier `vpt predict`" in note]
    assert (again.total, again.before, again.failures) == (3, 3, [])


def test_answers_that_alone_are_given_are_scans(segmenter, scans, tmp_path) -> None:
    segment_archive(segmenter, [scans], tmp_path / "out", Asked(), MARK)

    outcome = segment_archive(segmenter, [tmp_path / "out"], tmp_path / "of_answers", Asked(force=True), MARK)

    assert outcome.total == 3


def test_a_folder_that_is_moved_away_ends_the_batch_and_no_other_is_filled(segmenter, scans, tmp_path) -> None:
    out, moved = tmp_path / "out", tmp_path / "moved"

    class Moving(Counting):
        def prepare(self, scan: Any, force: bool = False) -> Any:
            if len(self.read) == 1 and not moved.exists():
                out.rename(moved)
            return super().prepare(scan, force)

    with pytest.raises(FolderGone, match=r"out: is not any more the folder .* go on with --continue"):
        segment_archive(Moving(segmenter), [scans], out, Asked(), MARK)

    assert not (out / "predictions.json").exists()
    assert len(list(out.glob("*.nii.gz"))) <= 1  # that which was being written
    assert len(read_records(moved)) <= 1
    shutil.rmtree(out, ignore_errors=True)
    moved.rename(out)
    again = segment_archive(segmenter, [scans], out, Asked(existing="continue"), MARK)
    assert (again.total, again.failures) == (3, [])


def test_a_mask_that_stays_where_its_scan_fails_is_told_as_an_earlier_one(run, scans, tmp_path) -> None:
    run()
    (scans / "b.nii.gz").write_bytes(b"broken")

    outcome = run(existing="continue")

    (failure,) = outcome.failures
    assert failure.reason.endswith("; b.nii.gz, which lies there, is an earlier answer")
    assert "earlier answer" in json.loads((tmp_path / "out/failures.json").read_text())["b"]["reason"]


def test_what_lay_beside_a_mask_goes_with_it(run, scans, tmp_path) -> None:
    out = tmp_path / "out"
    run(beside=Beside(probabilities=True, preview=True, quality=True))
    (out / "previews/of_mine.png").write_bytes(b"mine")
    nib.save(scan(seed=9), scans / "b.nii.gz")

    run(existing="continue")

    assert sorted(path.name for path in (out / "probabilities").iterdir()) == ["a.nii.gz", "c.nii.gz"]
    assert sorted(path.name for path in (out / "previews").iterdir()) == ["a.png", "c.png", "of_mine.png"]
    assert "b," not in (out / "quality.csv").read_text()
    run(existing="overwrite")
    assert not list((out / "probabilities").iterdir())
    assert not (out / "quality.csv").exists()
