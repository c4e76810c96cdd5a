"""Which files a refusal of changed data names."""

from __future__ import annotations

from pathlib import Path

import pytest

from vpt.engine.kept_marks import MARKED, changed_since, digest_of, keep_marks

MARKS = {"p1": ["a", "b"], "p2": ["c", "d", "(0,) None"]}
FILES = {"p1": [Path("p1.png"), Path("m1.png")], "p2": [Path("p2.png"), Path("m2.png")]}


def told(folder: Path, marks: dict[str, list[str]], digest: str = digest_of(MARKS)) -> str:
    return changed_since(folder, marks, FILES, {MARKED: digest})


@pytest.mark.parametrize(
    ("marks", "said"),
    [
        (MARKS, ""),
        (MARKS | {"p1": ["a", "x"]}, "1 of 5 changed: m1.png"),
        (MARKS | {"p2": ["c", "d", "(1,) None"]}, "1 of 5 changed: what is said of p2"),
        ({"p1": ["a", "x"], "p2": ["x", "d", "(0,) None"]}, "2 of 5 changed: m1.png, p2.png"),
        (MARKS | {"p1": ["a"]}, ""),  # a case with fewer files is another list, of which each that is left is the same
        (MARKS | {"p1": ["b"]}, ""),  # whichever went
        (MARKS | {"p1": ["x", "b", "a"]}, "1 of 6 changed: p1.png"),  # and one that came
    ],
)
def test_files_are_named_whose_marks_are_others(marks: dict[str, list[str]], said: str, tmp_path: Path) -> None:
    keep_marks(tmp_path, MARKS)
    assert told(tmp_path, marks) == said


def test_marks_of_another_state_and_damaged_ones_name_nothing_and_are_written_anew(tmp_path: Path) -> None:
    other = MARKS | {"p1": ["a", "x"]}
    assert told(tmp_path, other) == ""
    keep_marks(tmp_path, other)
    assert told(tmp_path, other) == ""
    keep_marks(tmp_path, MARKS)
    assert told(tmp_path, other) == "1 of 5 changed: m1.png"
    (tmp_path / "data.json").write_text("[")
    assert told(tmp_path, other) == ""
    keep_marks(tmp_path, MARKS)
    assert told(tmp_path, other) == "1 of 5 changed: m1.png"
