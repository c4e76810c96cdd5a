"""The record of a batch: whole after a kill, merged from many processes, and without what is nobody's business."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpt.errors import VptError
from vpt.use.archives.records import Journal, Record, begin, is_recorded, read_records, shown, summarise

DONE = Record("a", "done", ("a.nii.gz",), "1f", "2e", "{}", "2026-01-01", 1.5, "a.nii.gz", {"liver": 1.25})
FAILED = Record("b", "failed", ("b.nii.gz",), "3d", "2e", "{}", "2026-01-02", reason="b.nii.gz: empty")


def test_records_of_several_processes_are_merged_and_the_last_counts(tmp_path: Path) -> None:
    Journal(tmp_path).add([DONE, FAILED])
    Journal(tmp_path).add([replace(FAILED, status="done", when="2026-01-03", reason="")])

    found = read_records(tmp_path)

    assert list(found) == ["a", "b"]
    assert found["a"] == DONE
    assert (found["b"].status, found["b"].when) == ("done", "2026-01-03")


def test_the_last_counts_where_the_clock_was_set_back_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = 3_980_000_000.0  # in 2096
    before = Journal(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("time.time", lambda: ahead)
        before.add([replace(FAILED, when="2096-02-13")])
    os.utime(before.path, (ahead, ahead))
    after = Journal(tmp_path)
    after.add([DONE])
    after.add([replace(FAILED, status="done", when="2026-01-03", reason="")])
    summarise(tmp_path)

    assert read_records(tmp_path)["b"].status == "done"
    assert json.loads((tmp_path / "failures.json").read_text()) == {}
    assert "order" not in json.loads((tmp_path / "predictions.json").read_text())["cases"][0]


def test_records_from_before_there_was_an_order_are_followed_by_new_ones(tmp_path: Path) -> None:
    begin(tmp_path)
    line = json.loads(FAILED.as_line())
    del line["order"], line["crc32"]
    (tmp_path / ".journal" / "20990101T000000-0.jsonl").write_text(json.dumps(line | {"when": "2099-01-01"}) + "\n")
    Journal(tmp_path).add([replace(FAILED, status="done", reason="")])

    assert read_records(tmp_path)["b"].status == "done"


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(0, 400))
def test_wherever_a_kill_cuts_the_journal_the_lines_before_count(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    journal = Journal(folder)
    journal.add([DONE, FAILED])
    whole = journal.path.read_bytes()
    first = whole.index(b"\n")
    journal.path.write_bytes(whole[:cut])

    found = read_records(folder)

    assert list(found.values()) == ([DONE] if first <= cut < len(whole) - 1 else [] if cut < first else [DONE, FAILED])


@pytest.mark.parametrize("line", [b"[1]", b"7", b'"x"', b"{}", b'{"case": "a"}', b"\xff\xfe", b"null", b"[" * 50000])
def test_other_lines_are_no_records(tmp_path: Path, line: bytes) -> None:
    journal = Journal(tmp_path)
    journal.add([DONE])
    journal.path.write_bytes(line + b"\n" + journal.path.read_bytes())

    assert list(read_records(tmp_path)) == ["a"]


@settings(max_examples=50, deadline=None)
@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_line_of_which_a_bit_has_changed_is_no_record(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("flipped")
    journal = Journal(folder)
    journal.add([DONE])
    whole = bytearray(journal.path.read_bytes())
    whole[place % (len(whole) - 1)] ^= 1 << bit
    journal.path.write_bytes(whole)

    assert list(read_records(folder).values()) in ([], [DONE])


@pytest.mark.parametrize(
    "odd", [{"seconds": "x"}, {"files": 5}, {"settings": "{"}, {"warnings": [1]}, {"volumes_ml": []}, {"status": "ok"}]
)
def test_a_line_with_other_types_is_no_record(tmp_path: Path, odd: dict[str, Any]) -> None:
    journal = Journal(tmp_path)
    journal.add([DONE])
    values = json.loads(journal.path.read_bytes())
    del values["crc32"]
    journal.path.write_text(json.dumps(values) + "\n" + json.dumps(values | odd | {"case": "b"}) + "\n")

    assert list(read_records(tmp_path)) == ["a"]
    summarise(tmp_path)


def test_summaries_tell_failures_first(tmp_path: Path) -> None:
    begin(tmp_path)
    Journal(tmp_path).add([DONE, FAILED])

    summarise(tmp_path)

    told: dict[str, Any] = json.loads((tmp_path / "predictions.json").read_text())
    assert told["counts"] == {"done": 1, "failed": 1}
    assert [case["case"] for case in told["cases"]] == ["b", "a"]
    assert told["cases"][1]["volumes_ml"] == {"liver": 1.25}
    assert json.loads((tmp_path / "failures.json").read_text())["b"]["reason"] == "b.nii.gz: empty"
    with open(tmp_path / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["status"], row["liver (ml)"]) for row in rows] == [
        ("b", "failed", ""),
        ("a", "done", "1.25"),
    ]


def test_a_folder_is_recorded_once_a_batch_has_begun(tmp_path: Path) -> None:
    assert not is_recorded(tmp_path)
    assert read_records(tmp_path) == {}
    begin(tmp_path)
    assert is_recorded(tmp_path)


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(VptError, match=r"cannot be written .No space left"):
        Journal(tmp_path).add([DONE])


def test_records_hold_no_folders_and_no_text_of_headers() -> None:
    path = Path("/home/ward 7/Miller/scan.nii.gz")
    text = f"{path}: 2 series, expected one: 3 'Miller^Anna' or \"O'Hara\"; the scan's header is 'it\\'s' odd"

    assert (
        shown(text, [path]) == "scan.nii.gz: 2 series, expected one: 3 '...' or '...'; the scan's header is '...' odd"
    )
