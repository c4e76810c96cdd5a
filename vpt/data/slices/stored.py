"""What is computed once of samples, and read in every epoch: rows of one memory-mapped file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vpt.data.slices.cached_arrays import damaged, mapped
from vpt.errors import VptError
from vpt.files import atomic
from vpt.readers import ColourMask

SUM = np.dtype("<u4")  # CRC-32 of a row's bytes


class Viewed(Dataset, ABC):
    """A data set with `views` fixed views of every slice or example, `count` in all, each with a number.

    A view is the same in every epoch and for every seed of a run: its crop and augmentation follow from `view_seed`.
    """

    views: int

    @property
    @abstractmethod
    def count(self) -> int: ...

    @abstractmethod
    def number(self, draw: Any) -> int:
        """Which view it is that a draw gives."""

    @abstractmethod
    def view(self, number: int) -> Any:
        """A draw that gives this view."""

    @abstractmethod
    def __getitem__(self, draw: Any) -> tuple[Tensor, ...]:
        """The image, or the slices of a stack, come first."""


def view_seed(*place: int) -> int:
    """The seed of a view from its place: case, slice and number of the view, or example and number."""
    return int(np.random.SeedSequence(place).generate_state(1)[0])


@dataclass(frozen=True)
class Store:
    """A file with an array (N, ...): row k belongs to the view `numbers[k]`, (N,) sorted; a checksum for every row.

    Opened anew each time, so that a store goes to workers as a path.
    """

    path: Path
    numbers: np.ndarray

    def rows(self) -> np.ndarray:
        """All of it, memory-mapped and read only, every row verified. Raises VptError for a damaged one."""
        rows, sums = _mapped(self.path)
        for k, row in enumerate(rows):
            self._verify(k, row, sums)
        return rows

    def read(self, number: int) -> Tensor:
        """The row of a view, as it is stored, verified. Raises VptError for a damaged one."""
        rows, sums = _mapped(self.path)
        k = int(np.searchsorted(self.numbers, number))
        row = np.array(rows[k])
        self._verify(k, row, sums)
        return torch.from_numpy(row)

    def _verify(self, k: int, row: np.ndarray, sums: np.ndarray) -> None:
        if _sum_of(row) != sums[k]:
            raise VptError(f"{self.path}: damaged: row {k} is not what was stored; delete the file, it is made again")


def is_whole(path: Path, count: int) -> bool:
    """Whether a file of so many rows is there, with their checksums, which earlier versions did not write."""
    try:
        return len(_mapped(path)[0]) == count
    except VptError:
        return False


def write_rows(path: Path, batches: Iterable[np.ndarray], count: int) -> None:
    """Batches (b, ...), `count` rows in all -> one .npy file, complete or not at all; behind the array its checksums.

    Written as a stream: a full disk is an error then, and not the end of the process as with a memory map.
    """
    sums: list[int] = []
    with atomic(path) as part, open(part, "wb") as file:
        for number, batch in enumerate(batches):
            if number == 0:
                header = {"descr": batch.dtype.str, "fortran_order": False, "shape": (count, *batch.shape[1:])}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(batch).data)
            sums += map(_sum_of, batch)
        file.write(np.array(sums, SUM).data)


def _mapped(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The rows, memory-mapped, and their checksums (N,). Raises VptError where one of them is not whole."""
    rows = mapped(path)
    if not isinstance(rows, np.memmap) or not rows.ndim:
        raise damaged(path, "it holds no rows")
    try:
        return rows, np.memmap(path, SUM, "r", offset=rows.offset + rows.nbytes, shape=(len(rows),))
    except (OSError, ValueError) as error:
        raise damaged(path, f"its checksums are missing: {error}") from error


def _sum_of(row: np.ndarray) -> int:
    return crc32(np.ascontiguousarray(row).data)


def to_half(values: Tensor) -> np.ndarray:
    """As float16.

    Raises:
        VptError: values that it does not hold.
    """
    half = values.to(torch.float16)
    if not half.isfinite().all():
        raise VptError("tokens beyond half precision (65504); set train.cache_gb=0 to store none")
    return half.cpu().numpy()


def versions_of(files: Sequence[Path | ColourMask]) -> list[str]:
    """A line for each file, another one once it has another size, was written again or has other colours' ids.

    A folder that is one scan has the lines of its files.
    """
    lines = []
    for file in files:
        path = Path(file)
        with suppress(OSError):  # reading it says what is wrong
            name = repr(file) if isinstance(file, ColourMask) else str(file)
            lines += [_version_of(each, str(each)) for each in sorted(path.iterdir())] if path.is_dir() else []
            lines.append(_version_of(path, name))
    return lines


def _version_of(path: Path, name: str) -> str:
    stat = path.stat()
    return f"{name} {stat.st_size} {stat.st_mtime_ns}" if path.is_file() else name
