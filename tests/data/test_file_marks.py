"""Data that changed in place are noticed, copies are not."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

import numpy as np

from vpt.data.file_marks import END, marks_of


def test_a_copy_has_the_same_mark_and_a_byte_at_either_end_another(tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(3 * END)
    paths = [tmp_path / name for name in ("a", "copy", "first", "last", "longer")]
    for path in paths:
        path.write_bytes(content)
    os.utime(paths[1], (1, 1))
    for path, place in zip(paths[2:4], (END - 1, 2 * END), strict=True):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
    paths[4].write_bytes(content + b"\0")
    marks = marks_of(paths)
    assert marks_of(paths * 20) == marks * 20  # by threads
    assert marks[0] == marks[1]
    assert len(set(marks)) == 4


def test_a_small_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    found = set()
    for place in range(10):
        path.write_bytes(bytes(place) + b"x" + bytes(9 - place))
        found.update(marks_of([path]))
    assert len(found) == 10


def test_a_voxel_in_the_middle_of_a_packed_scan_shows_at_its_end(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 255, 4 * END, dtype=np.uint8)
    other = voxels.copy()
    other[2 * END] ^= 1
    for name, values in (("a", voxels), ("b", other)):
        (tmp_path / name).write_bytes(gzip.compress(values.tobytes(), 1, mtime=0))
    assert (tmp_path / "a").stat().st_size == (tmp_path / "b").stat().st_size
    first, second = marks_of([tmp_path / "a", tmp_path / "b"])
    assert first != second


def test_a_folder_is_known_by_what_lies_in_it(tmp_path: Path) -> None:
    series = tmp_path / "series"
    series.mkdir()
    for k in range(3):
        (series / f"{k}.dcm").write_bytes(bytes([k]) * 10)
    shutil.copytree(series, tmp_path / "copy")
    before = marks_of([series, tmp_path / "copy", tmp_path / "gone"])
    (series / "2.dcm").write_bytes(b"y" * 10)
    (tmp_path / "copy" / "1.dcm").rename(tmp_path / "copy" / "3.dcm")
    after = marks_of([series, tmp_path / "copy"])
    assert before[0] == before[1]
    assert before[2] == ""
    assert len({before[0], *after}) == 3
