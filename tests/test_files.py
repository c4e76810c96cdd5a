"""Writes are complete or absent, also when the disk is full."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vpt import files
from vpt.errors import VptError
from vpt.files import DiskFull, atomic, holds_file, is_no_space, read_json, require_own, write_json, write_text
from vpt.tensor_files import read_tensors, write_tensors

BIG = {"a": torch.zeros(100_000)}


def test_a_write_replaces_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for text in ("old", "new: ü"):
        write_text(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert list(tmp_path.iterdir()) == [path]


def test_the_temporary_file_keeps_the_ending_and_lies_beside(tmp_path: Path) -> None:
    with atomic(tmp_path / "mask.nii.gz") as part:
        assert part.name.endswith("mask.nii.gz")
        assert part.parent == tmp_path
        part.write_bytes(b"x")
        assert not (tmp_path / "mask.nii.gz").exists()
    assert (tmp_path / "mask.nii.gz").read_bytes() == b"x"


def write_half(path: Path, error: BaseException) -> None:
    with atomic(path) as part:
        part.write_text("half")
        raise error


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path, kind: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(kind):
        write_half(path, kind())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_os_error_inside_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(VptError, match=r"a\.txt: cannot be written \(No space left on device\); free space or choose"):
        write_half(tmp_path / "a.txt", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert list(tmp_path.iterdir()) == []


def test_what_follows_from_a_full_disk_is_known_as_such(tmp_path: Path) -> None:
    for number, full in {errno.ENOSPC: True, errno.EDQUOT: True, errno.EACCES: False}.items():
        with pytest.raises(VptError) as caught:
            write_half(tmp_path / "a.txt", OSError(number, os.strerror(number)))
        assert is_no_space(caught.value) == full
    assert is_no_space(DiskFull("told by another process"))
    assert not is_no_space(VptError("full"))


@pytest.mark.parametrize(
    "write", [lambda path: write_text(path, "x" * 100_000), lambda path: write_tensors(path, BIG, {})]
)
def test_a_full_disk_is_a_sentence_and_the_old_file_stays(
    tmp_path: Path, write: Callable[[Path], None], full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with full_disk(10_000), pytest.raises(VptError) as caught:
        write(path)
    assert str(caught.value).startswith(f"{path}: cannot be written (")
    assert "File too large" in str(caught.value)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("folder", ["missing", "file", "/proc"])
def test_a_folder_that_cannot_be_written_to(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(VptError, match=r"a\.txt: cannot be written"):
        write_text(tmp_path / folder / "a.txt", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_nothing_is_computed_for_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    entered = False
    with pytest.raises(VptError, match="cannot be written"), atomic(tmp_path / "missing" / "a.txt"):
        entered = True
    assert not entered


def test_files_are_as_readable_as_others_whatever_the_writer(tmp_path: Path) -> None:
    """safetensors makes files that only their owner can read."""
    (tmp_path / "plain").touch()
    write_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(3)}, {"key": "value"})
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_json_turns_what_is_not_finite_into_null(tmp_path: Path) -> None:
    value = {"a": math.nan, 1: [math.inf, 0.5, (-math.inf, 2)], "b": {"c": True, "d": None, "e": "ü"}}
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert found == {"a": None, "1": [None, 0.5, [None, 2]], "b": {"c": True, "d": None, "e": "ü"}}
    assert read_json(tmp_path / "a.json") == found


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"cannot be read as UTF-8 text \(.+\); save it again"),
        (b"{half", r"not valid JSON at line 1, column 2 \(.+\); correct it there"),
        (b"\xff\xfe", r"cannot be read as UTF-8 text \(.+\); save it again"),
    ],
)
def test_json_that_cannot_be_read_is_said_with_its_name(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(VptError, match=r"a\.json: " + said):
        read_json(tmp_path / "a.json")


TENSORS = {
    "b": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "a": torch.tensor([1, 2, 250], dtype=torch.uint8),
    "half": torch.ones(3, dtype=torch.float16),
    "step": torch.tensor(7.0),
    "none": torch.zeros(0, 4),
}
WORDS = {"format": "ours", "vpt": '{"ü": 1}', "z": "last"}


def test_tensors_come_back_with_their_metadata_and_are_a_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, TENSORS, WORDS)
    tensors, metadata = read_tensors(path, "copy it again")
    assert metadata == WORDS
    for found in (tensors, load_file(path)):
        assert found.keys() == TENSORS.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())


def test_two_saves_of_the_same_give_the_same_bytes(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a", TENSORS, WORDS)
    write_tensors(tmp_path / "b", dict(reversed(TENSORS.items())), dict(reversed(WORDS.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def read_or_refused(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]] | None:
    with suppress(VptError):
        return read_tensors(path, "copy it again")
    return None


def test_no_changed_byte_of_a_file_of_tensors_is_believed(tmp_path: Path) -> None:
    """At the most the checksum is not found any more, or a space stands elsewhere."""
    path = tmp_path / "a.safetensors"
    write_tensors(path, TENSORS, WORDS)
    whole, believed = path.read_bytes(), 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        if read := read_or_refused(path):
            believed += 1
            assert read[1].items() >= WORDS.items()
            assert all(torch.equal(read[0][name], tensor) for name, tensor in TENSORS.items())
    assert believed <= len("sha256")


def test_damage_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    write_tensors(path, TENSORS, WORDS)
    whole = bytearray(path.read_bytes())
    whole[-3] ^= 0xFF
    path.write_bytes(whole)
    with pytest.raises(VptError, match=r"best\.safetensors: damaged: its content has the SHA-256 .{16}\.\.\., but"):
        read_tensors(path, "copy it again")


def test_files_from_before_checksums_are_read(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "old.safetensors", metadata=WORDS)
    tensors, metadata = read_tensors(tmp_path / "old.safetensors", "copy it again")
    assert metadata == WORDS
    assert torch.equal(tensors["b"], TENSORS["b"])


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**63])
def test_a_header_of_absurd_length_is_refused(tmp_path: Path, length: int) -> None:
    (tmp_path / "a").write_bytes(length.to_bytes(8, "little") + b"{}" * 50)
    with pytest.raises(VptError, match=r"a: not a readable safetensors file \(.+\); copy it again"):
        read_tensors(tmp_path / "a", "copy it again")


def test_a_disk_that_knows_no_permissions_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As exFAT and some shares, which refuse `chmod` to whoever does not own the mount."""

    def refuse(*given: object, **more: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refuse)
    write_text(tmp_path / "a.txt", "text")
    assert (tmp_path / "a.txt").read_text() == "text"


def test_parts_of_killed_writers_are_cleared_and_others_stay(tmp_path: Path) -> None:
    gone, machine = 2**22 + 1, files._machine()
    dead, alive, elsewhere = f".part-{machine}-{gone}-a", f".part-{machine}-{os.getpid()}-b", f".part-ffffff-{gone}-c"
    strange = f".part-{machine}-{10**20}-d"  # no number that a process has
    for name in (dead, alive, elsewhere, f".part-{gone}-old", "d.part", ".part-of-mine", strange):
        (tmp_path / name).write_text("")
    files.clear_parts(tmp_path)
    kept = {alive, "d.part", ".part-of-mine", strange}
    assert {item.name for item in tmp_path.iterdir()} == {*kept, elsewhere, f".part-{gone}-old"}
    files.clear_parts(tmp_path, own=True)
    assert {item.name for item in tmp_path.iterdir()} == kept


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("can't allocate memory: 8 bytes"), OSError(12, "Cannot allocate memory")]
)
def test_too_little_memory_is_no_damage_of_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    write_tensors(tmp_path / "a.safetensors", BIG, {})

    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("safetensors.safe_open", full)
    with pytest.raises(VptError, match=r"a\.safetensors: too little memory for its tensors; close other programs"):
        read_tensors(tmp_path / "a.safetensors", "make it again")


def test_what_stands_in_the_place_of_a_file_is_not_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    assert not holds_file(path)
    path.write_text("{}")
    assert holds_file(path)
    require_own(path)
    for make in (
        Path.mkdir,
        os.mkfifo,
        lambda path: path.symlink_to("gone"),
        lambda path: path.symlink_to(path),
    ):
        path.rmdir() if path.is_dir() else path.unlink()
        make(path)
        with pytest.raises(VptError, match=r"split\.json: .*, expected a file; put the file there, or remove this"):
            holds_file(path)
        with pytest.raises(VptError, match=r"split\.json: .* is not written into; remove it"):
            require_own(path)
