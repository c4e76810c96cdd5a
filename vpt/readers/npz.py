"""NumPy archives (.npz) as MedSAM keeps cases: the scan `imgs`, its labels `gts`, and `spacing`, all in one file.

`imgs` is (D, H, W), (H, W) or in colour (H, W, 3), as `gts` is without the colours; `spacing` is that of x (W), y (H)
and z (D) in mm, as SimpleITK gives it. Directions are not stored: x runs to the left, y to the back, z upwards, as ITK
has them without any. Nothing is unpickled, and no more is held than the array that is asked for.
"""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from math import prod
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from vpt.errors import VptError
from vpt.readers.base import Source
from vpt.readers.content import in_place_of
from vpt.readers.damage import is_withheld, require_memory, spoiled
from vpt.readers.doubts import odd_spacing
from vpt.readers.grid import Grid, by
from vpt.readers.inflate import DENSEST
from vpt.readers.labels import LabelMap
from vpt.readers.nifti import NiftiReader, volume_in_memory
from vpt.readers.volumes import VolumeReader, ids_in, placed
from vpt.readers.voxels import Channel
from vpt.vocabulary import COLOURS
from vpt.words import listed

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

SCAN, LABELS, SPACING = "imgs", "gts", "spacing"
ALIKE = 1.01  # times: in-plane spacings that count as equal
DAMAGED = (
    OSError, EOFError, ValueError, KeyError, TypeError, SyntaxError, RuntimeError, zipfile.BadZipFile, zlib.error,
    struct.error, tokenize.TokenError,
)  # fmt: skip


class NpzReader(VolumeReader):
    """A case's file, or one of `imgs` alone; a picture is a volume of one slice, whose colours are its channels."""

    endings = (".npz",)
    mask_endings = NiftiReader.mask_endings
    numbered = False
    write_mask = staticmethod(NiftiReader.write_mask)

    @classmethod
    def claims(cls, sources: tuple[Source, ...]) -> bool:
        return all(isinstance(source, Path) for source in sources) and cls.claims_name(sources[0])

    @cached_property
    def _arrays(self) -> dict[str, Described]:
        return arrays_of(self.sources[0])

    @cached_property
    def _spacing(self) -> tuple[float, float, float] | None:
        return _spacing_of(self.sources[0], self._arrays)

    @property
    def _is_colour(self) -> bool:
        return _is_colour(self._arrays)

    def shape(self) -> tuple[int, ...]:
        scan = _required(self._arrays, SCAN, self.name)
        if scan.ndim not in (2, 3):
            raise VptError(
                f"{self.name}: `imgs` has the shape {scan.shape}, expected (D, H, W) or (H, W, 3); reshape it"
            )
        return _as_volume(scan.shape, self._is_colour)

    def grid(self) -> Grid:
        return self._placed(self.shape())

    def label_grid(self) -> Grid:
        labels = _required(self._arrays, LABELS, self.name)
        if labels.ndim not in (2, 3):
            raise VptError(f"{self.name}: `gts` has the shape {labels.shape}, expected (D, H, W) or (H, W); reshape it")
        grid = self._placed(_as_volume(labels.shape, colour=False))
        if SCAN in self._arrays and not grid.matches(scan := self.grid()):
            found = f"`gts` is {by(grid.shape)}, `imgs` {by(scan.shape)} (x, y, z)"
            raise VptError(f"{self.name}: {found}; save them on one grid")
        return grid

    def _placed(self, shape: tuple[int, ...]) -> Grid:
        x, y, z = self._spacing or (1.0, 1.0, 1.0)
        return placed(shape, np.diag([-x, -y, z, 1.0]), self.name)

    def read(self, k: int) -> tuple[Channel, Grid]:
        reader = self if k == 0 else NpzReader((self.sources[k],))
        grid, array = reader.grid(), read_array(reader.sources[0], SCAN, reader._arrays[SCAN])
        if reader._is_colour:
            return Channel(array.transpose(1, 0, 2)[:, :, None]), grid
        return Channel(array.T.reshape(grid.shape, order="A")), grid

    def labels(self) -> LabelMap:
        grid = self.label_grid()
        array = read_array(self.sources[0], LABELS, self._arrays[LABELS]).T.reshape(grid.shape, order="A")
        ids = ids_in(array, self.name)
        return LabelMap(array if array.dtype.kind in "iu" else np.rint(array).astype(np.int64), ids, grid, self.name)

    def is_deep(self) -> bool:
        return _required(self._arrays, SCAN, self.name).dtype.itemsize > 1

    def doubts(self) -> list[str]:
        grid = self.grid()
        if grid.shape[2] == 1:
            return odd_spacing(grid)
        if self._spacing is None:
            return ["no `spacing`, so voxels count as cubes of 1 mm; save it (x, y, z in mm)"]
        return [*_turned(self._spacing), *odd_spacing(grid)]

    def mask(self, labels: np.ndarray) -> Nifti1Image:
        """Labels (X, Y, Z) as NIfTI on the grid of the arrays."""
        image = volume_in_memory(labels, self.grid().affine)
        image.header.set_xyzt_units("mm")
        return image


# --- what is in a file ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Described:
    """An array as its header describes it."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


def arrays_of(path: Path) -> dict[str, Described]:
    """Those arrays of a file that a case is made of, see `described`. Raises VptError for a file without them."""
    found, held = described(path, (SCAN, LABELS, SPACING))
    if SCAN not in found and LABELS not in found:
        there = listed(held) if held else "nothing"
        if "train_images" in held:
            raise VptError(
                f"{path}: a data set of many images (MedMNIST), expected one scan; give its scans one by one"
            )
        raise VptError(f"{path}: holds {there}, expected the arrays `imgs` (and `gts` to train); rename them")
    if SPACING not in found and (misnamed := get_close_matches(SPACING, held, n=1, cutoff=0.75)):
        raise VptError(
            f"{path}: holds `{misnamed[0]}` and no `spacing`, without which voxels would count as cubes of 1 mm; "
            "rename it if it is that, or else take it out"
        )
    return found


def described(path: Path, names: Collection[str]) -> tuple[dict[str, Described], list[str]]:
    """Name -> shape and type of those arrays that are wanted and there, and the names of all; only headers are read.

    Raises VptError for a file that is none, is damaged, or claims more than it can hold.
    """
    found = {}
    with _opened(path) as archive:
        held = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        # A name that is damaged in the directory alone would be that of an array that is not there.
        for member in held.values():
            with suppress(RuntimeError):  # packed in a way that zipfile has no means for, which is no damage
                archive.open(member).close()
        for name in names:
            if info := held.get(name):
                with archive.open(info) as file:
                    found[name] = _described(file, info, path.stat().st_size, f"{path}: `{name}`")
    return found, sorted(held)


def is_case(path: Path) -> bool:
    """Whether a file holds a scan and its labels, by its list of contents; not where that cannot be read."""
    try:
        with _opened(path) as archive:
            return {f"{SCAN}.npy", f"{LABELS}.npy"} <= set(archive.namelist())
    except VptError:
        return False


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    if not path.is_file() or not path.stat().st_size:
        raise VptError(f"{path}: {'an empty file' if path.is_file() else in_place_of(path)}, expected a .npz of a scan")
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except DAMAGED as error:
        if isinstance(low := spoiled(path, error), MemoryError) or is_withheld(error):
            raise low from error
        reason = " ".join(str(error).split())[:200]
        raise VptError(f"{path}: truncated, damaged or no .npz ({reason}); copy or export the file again") from error


def _described(file: IO[bytes], info: zipfile.ZipInfo, packed: int, name: str) -> Described:
    """packed: the size of the whole file, about whose parts its list of contents may lie."""
    shape, _, dtype = _header(file)
    found = Described(shape, dtype)
    if dtype.kind not in "buif":
        raise VptError(f"{name} is of type {dtype}, expected plain numbers; convert it, and save it again")
    if found.bytes > info.file_size or found.bytes > packed * DENSEST:
        raise VptError(f"{name} claims {by(shape)} numbers, more than the file can hold; copy or export the file again")
    return found


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether the first axis varies fastest, and type, which is refused where it would be unpickled."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)  # which newer ones are like, but for the names of fields


def read_array(path: Path, name: str, described: Described) -> np.ndarray:
    """An array of a file, as it was described. Raises VptError for a damaged one, MemoryError for more than fits."""
    require_memory(f"{path}: `{name}`", described.shape, described.bytes)
    with _opened(path) as archive, archive.open(f"{name}.npy") as file:
        array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
    if (array.shape, array.dtype) != (described.shape, described.dtype):
        raise VptError(f"{path}: `{name}` changed while it was read; start again")
    return array.view(np.uint8) if array.dtype == bool else array


def _required(arrays: dict[str, Described], name: str, file: str) -> Described:
    if name not in arrays:
        what = "a scan" if name == SCAN else "labels"
        raise VptError(f"{file}: holds {', '.join(sorted(arrays))}, expected {what} (`{name}`); add the array")
    return arrays[name]


def _is_colour(arrays: dict[str, Described]) -> bool:
    """Three numbers at the end are colours, unless the labels have the same three."""
    shape = arrays[SCAN].shape if SCAN in arrays else ()
    labels = arrays[LABELS].shape if LABELS in arrays else ()
    return len(shape) == 3 and shape[-1] == COLOURS and labels != shape


def _as_volume(shape: tuple[int, ...], colour: bool) -> tuple[int, ...]:
    """(D, H, W), (H, W) or (H, W, 3) -> (W, H, D) or (W, H, 1, 3)."""
    if colour:
        return shape[1], shape[0], 1, shape[2]
    return (*shape[::-1], 1)[:3]


def _turned(spacing: tuple[float, float, float]) -> list[str]:
    """Pixels are nearly always square, so that y and z are alike only where the order is another one."""
    x, y, z = spacing
    if max(y, z) > ALIKE * min(y, z) or max(x, y) <= ALIKE * min(x, y):
        return []
    return [f"`spacing` {by(spacing)} is read as x, y, z, but looks like z, y, x; turn it around if it is"]


def _spacing_of(path: Path, arrays: dict[str, Described]) -> tuple[float, float, float] | None:
    if SPACING not in arrays:
        return None
    described = arrays[SPACING]
    if described.shape not in ((2,), (3,)):
        raise VptError(f"{path}: `spacing` has the shape {described.shape}, expected 3 numbers (x, y, z); correct it")
    x, y, z = (*read_array(path, SPACING, described).astype(float).tolist(), 1.0)[:3]
    if not (np.isfinite([x, y, z]).all() and min(x, y, z) > 0):
        raise VptError(f"{path}: `spacing` is {by((x, y, z))}, expected 3 numbers above 0 (x, y, z in mm); correct it")
    return x, y, z
