"""What lies in a cache and is damaged is refused with its name, and says what to remove."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from vpt.data.layouts import read_dataset
from vpt.data.plan import Percentiles, Plan
from vpt.data.slices.cached_arrays import mapped, save_array
from vpt.data.slices.cached_slices import prepare_cases
from vpt.data.synthetic import make_dataset
from vpt.errors import VptError
from vpt.progress import silent

PLAN = Plan(plane="axial", pixel_mm=2.0, image_size=32, neighbours=True, channels=("MRI",), intensity=(Percentiles(),))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("cached") / "blobs", cases=1)


def _with_value(path: Path, value: int) -> None:
    array = np.load(path)
    array[0, 0, 0] = value
    np.save(path, array)


def _with_bytes(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("image", lambda path: path.write_bytes(path.read_bytes()[:-7])),
        ("image", lambda path: path.write_bytes(b"")),
        ("image", lambda path: np.save(path, np.load(path)[:-1])),
        ("image", lambda path: np.save(path, np.load(path).astype(np.int16))),
        ("label", lambda path: np.save(path, np.load(path).astype(np.float32))),
        ("label", lambda path: _with_value(path, 3)),
        ("image", lambda path: _with_bytes(path, -9)),
        ("label", lambda path: _with_bytes(path, -200)),
        ("label", lambda path: path.write_bytes(path.read_bytes().replace(b": False", b": (((((", 1))),
    ],
)  # fmt: skip
def test_what_is_damaged_is_named_and_can_be_made_anew(data: Path, tmp_path: Path, file: str, damage) -> None:
    dataset = read_dataset(data)
    prepare_cases(dataset, dataset.cases, PLAN, tmp_path / "cache", silent)
    path = tmp_path / "cache" / f"{dataset.cases[0].name}.{file}.npy"
    damage(path)

    with pytest.raises(VptError, match=rf"{file}\.npy: damaged .*remove .*cache") as said:
        prepare_cases(dataset, dataset.cases, PLAN, tmp_path / "cache", silent)

    assert "prepared anew" in str(said.value)


def test_a_system_without_file_handles_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_array(tmp_path / "a.npy", np.zeros(3))

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(np, "load", refused)
    with pytest.raises(VptError, match=r"a\.npy: cannot be opened \(Too many open files\); allow more") as said:
        mapped(tmp_path / "a.npy")
    assert "remove" not in str(said.value)


def test_a_full_disk_is_told_as_that(tmp_path: Path, full_disk: Callable[[int], AbstractContextManager[None]]) -> None:
    with (
        pytest.raises(VptError, match=r"a\.npy: cannot be written \(File too large\); free space") as said,
        full_disk(1000),
    ):
        save_array(tmp_path / "a.npy", np.zeros(5000))
    assert isinstance(said.value.__cause__, OSError)
    assert said.value.__cause__.errno == errno.EFBIG  # that of a full disk is ENOSPC
    assert not [*tmp_path.iterdir()]
