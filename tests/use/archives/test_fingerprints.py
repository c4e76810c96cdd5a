"""The model that is recorded is the one that answered, also where a training replaces its file meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from vpt.errors import VptError
from vpt.files import file_sha256, write_text
from vpt.use.archives import ModelMark, loaded_whole


def test_what_is_replaced_while_it_is_loaded_is_loaded_once_more(tmp_path: Path) -> None:
    file, seen = tmp_path / "best.safetensors", []
    write_text(file, "first")

    def load() -> str:
        seen.append(file.read_text())
        if len(seen) == 1:
            write_text(file, "second")
        return seen[-1]

    made, hashes = loaded_whole([file], load)

    assert (made, seen) == ("second", ["first", "second"])
    assert hashes == [file_sha256(file)]
    assert ModelMark.of([file], {}, hashes) == ModelMark.of([file], {})


def test_what_is_replaced_every_time_is_refused(tmp_path: Path) -> None:
    file, seen = tmp_path / "best.safetensors", []
    write_text(file, "0")

    def load() -> None:
        seen.append(file)
        write_text(file, str(len(seen)))

    with pytest.raises(VptError, match=r"best\.safetensors: was replaced 3 times while it was loaded; wait until"):
        loaded_whole([file], load)
