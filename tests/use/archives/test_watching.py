"""A drop folder: only what has come to rest is read, once; what is done stands over a restart."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import pytest
from masks import scan, scan_plan, threshold

from vpt.errors import VptError
from vpt.use.archives import Asked, ModelMark
from vpt.use.archives.attempts import FolderGone
from vpt.use.archives.records import read_records
from vpt.use.archives.segmenting import MaskBatch
from vpt.use.archives.watching import Resting, Watch
from vpt.use.segmenter import Segmenter

MARK = ModelMark("run", "ab" * 32, "{}")
SETTLE = 10.0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return threshold(scan_plan(pixel_mm=1.0))


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    (tmp_path / "drop").mkdir()
    return tmp_path / "drop"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(segmenter: Segmenter, drop: Path, tmp_path: Path, clock: Clock) -> Callable[[], Watch]:
    def watch(said: list[str] | None = None) -> Watch:
        batch = MaskBatch(segmenter, tmp_path / "out", Asked(existing="continue"), MARK)
        say = print if said is None else said.append
        return Watch(drop, tmp_path / "out", segmenter, batch, Resting(SETTLE, clock), say)

    return watch


def never() -> bool:
    return False


def put(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(exist_ok=True)
    nib.save(scan(seed=seed), path)


def test_a_file_is_read_once_it_has_not_changed_for_some_seconds(watch, drop, clock, tmp_path) -> None:
    watching = watch()
    put(drop / "a.nii.gz")
    seen = []
    for clock.now, change in ((0, None), (9, "grows"), (12, None), (18, None), (19, None), (40, None)):
        if change:
            put(drop / "a.nii.gz", seed=1)
        seen.append(watching.look(never))

    assert seen == [0, 0, 0, 0, 1, 0]
    assert list(read_records(tmp_path / "out")) == ["a"]


def test_a_file_that_changes_is_answered_again(watch, drop, clock, tmp_path) -> None:
    watching = watch()
    put(drop / "a.nii.gz")
    for clock.now in (0, SETTLE):
        watching.look(never)
    first = read_records(tmp_path / "out")["a"]
    put(drop / "a.nii.gz", seed=3)
    os.utime(drop / "a.nii.gz", (1e9, 1e9))
    for clock.now in (20, 31):
        watching.look(never)

    assert read_records(tmp_path / "out")["a"].input_sha256 != first.input_sha256


def test_a_restart_reads_nothing_twice_and_goes_on(watch, drop, clock, tmp_path, segmenter, monkeypatch) -> None:
    put(drop / "a.nii.gz")
    (drop / "bad.nii.gz").write_bytes(b"")
    looks = iter((SETTLE, SETTLE + 1))

    def wait() -> None:
        clock.now = next(looks)

    watch().run(lambda: clock.now > SETTLE, wait)
    done = read_records(tmp_path / "out")
    put(drop / "b.nii.gz", seed=5)
    read: list[str] = []
    prepare = segmenter.prepare
    monkeypatch.setattr(
        segmenter, "prepare", lambda given, force=False: read.append(given[0].name) or prepare(given, force)
    )
    again = watch()
    for clock.now in (100, 111):
        again.look(never)

    assert {name: record.status for name, record in done.items()} == {"a": "done", "bad": "failed"}
    assert read == ["b.nii.gz"]


def test_an_empty_folder_is_waited_for(watch, drop, clock) -> None:
    said: list[str] = []
    watching = watch(said)
    assert [watching.look(never), watching.look(never)] == [0, 0]
    drop.rmdir()
    assert watching.look(never) == 0


def test_a_share_that_is_gone_is_told_each_time_and_that_it_is_there_again(watch, drop: Path, tmp_path: Path) -> None:
    said: list[str] = []
    watching = watch(said)
    put(drop / "a.nii.gz")
    for _ in range(2):
        drop.rename(tmp_path / "away")
        watching.look(never)
        watching.look(never)
        (tmp_path / "away").rename(drop)
        watching.look(never)

    told = [text.removeprefix(f"{drop}: ") for text in said if str(drop) in text]
    gone = "no such file or folder; give a NIfTI file, an image or a folder of them"
    assert told == [gone, "is there again"] * 2


def test_an_output_that_is_gone_ends_the_watch(watch, drop: Path, clock, tmp_path: Path) -> None:
    watching = watch()
    watching.batch.recorder.begin(0)
    put(drop / "a.nii.gz")
    watching.look(never)
    (tmp_path / "out").rename(tmp_path / "away")
    clock.now = SETTLE

    with pytest.raises(FolderGone, match="is not any more the folder that this batch began in"):
        watching.look(never)
    assert not (tmp_path / "out").exists()


def test_a_stop_ends_after_the_present_scan(watch, drop, clock, tmp_path) -> None:
    watching = watch()
    for name in "abcd":
        put(drop / f"{name}.nii.gz")
    watching.look(never)
    clock.now = SETTLE
    asked = iter([False, False, True])

    watching.look(lambda: next(asked, True))

    assert list(read_records(tmp_path / "out")) == ["a", "b"]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == ["a.nii.gz", "b.nii.gz"]


def test_another_watch_and_foreign_files_are_refused(watch, tmp_path) -> None:
    refused: list[str] = []

    def second() -> None:
        with pytest.raises(VptError, match="another `vpt watch` writes here"):
            watch().run(never, lambda: None)
        refused.append("second")

    asked = iter([False, False])
    watch().run(lambda: next(asked, True), second)
    assert refused == ["second"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other/a.nii.gz").write_bytes(b"by hand")
    mine = watch()
    mine.out = tmp_path / "other"
    with pytest.raises(VptError, match="holds files, but no record of vpt"):
        mine.run(never, lambda: None)


def test_the_folder_that_is_watched_is_no_place_for_its_masks(segmenter: Segmenter, drop: Path, clock: Clock) -> None:
    batch = MaskBatch(segmenter, drop, Asked(existing="continue"), MARK)
    watch = Watch(drop, drop, segmenter, batch, Resting(SETTLE, clock))
    with pytest.raises(VptError, match="masks would lie among the scans that they are of; choose another output"):
        watch.run(never, never)
    assert list(drop.iterdir()) == []
