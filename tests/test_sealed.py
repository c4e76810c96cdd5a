"""A result that was changed after it was written is refused by name; one of an earlier version is read."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from vpt.errors import VptError
from vpt.files import write_json
from vpt.sealed import read_sealed, write_sealed

RESULT = {"score": 0.8125, "seed": 3, "cases": [0.1 + 0.2, None, 1e-17], "settings": {"optim.lr": 1e-3}, "name": "é"}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write_sealed(tmp_path / "result.json", RESULT | {"pairs": (1, 2), "none": math.nan})

    assert read_sealed(tmp_path / "result.json") == RESULT | {"pairs": [1, 2], "none": None}


def test_no_changed_byte_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_sealed(path, RESULT)
    whole = path.read_bytes()
    believed = []
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            found = read_sealed(path)
        except VptError:
            continue
        if {key: found[key] for key in RESULT if key in found} != RESULT:
            believed.append((place, found))

    assert not believed


@pytest.mark.parametrize("content", ["[]", "1", '"x"', "null", "", "{"])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(VptError, match=r"result\.json: "):
        read_sealed(tmp_path / "result.json")


def test_a_result_without_a_checksum_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / "result.json", RESULT)
    assert read_sealed(tmp_path / "result.json") == json.loads(json.dumps(RESULT))
