"""Volumes that ITK reads, and SimpleITK images in memory: masks are like the scan, in its format, at its place.

ITK's world is LPS, so that two axes change their sign. Needs SimpleITK, the extra `itk`.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vpt.errors import VptError
from vpt.readers.base import Source
from vpt.readers.doubts import UNITS, converted, odd_spacing, shear
from vpt.readers.grid import Grid
from vpt.readers.volumes import VolumeReader, placed
from vpt.readers.voxels import Channel

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


class ItkReader(VolumeReader):
    """A SimpleITK image, or one for every channel; the formats of files are subclasses.

    Several components of a voxel are channels.
    """

    endings: ClassVar[tuple[str, ...]] = ()
    mask_endings: ClassVar[tuple[str, ...]] = (".nrrd", ".mha", ".nii.gz", ".nii")

    @classmethod
    def claims(cls, sources: tuple[Source, ...]) -> bool:
        return all(hasattr(source, "GetDirection") and hasattr(source, "GetPixelIDValue") for source in sources)

    @classmethod
    def name_of(cls, source: Source) -> str:
        return str(source) if isinstance(source, Path) else "the image given"

    @cached_property
    def _first(self) -> Any:
        """An image, or a reader that has read the header; both are asked in the same way."""
        return self._opened(self.sources[0])

    def _opened(self, source: Source) -> Any:
        if source.GetPixelIDTypeAsString().startswith(
            "label"
        ):  # asked for its voxels, SimpleITK ends the whole process
            raise VptError(f"{self.name}: a LabelMap of SimpleITK, expected a scan; give the scan itself")
        return source

    def shape(self) -> tuple[int, ...]:
        return _shape(self._first)

    def grid(self) -> Grid:
        return self._placed(self._first, self.name)

    def _placed(self, image: Any, name: str) -> Grid:
        factor = UNITS.get(self.length_unit() or "mm", 1.0)
        return placed(_shape(image), np.diag([factor, factor, factor, 1.0]) @ affine_of(image), name)

    def length_unit(self) -> str:
        """The unit of distances that the header names; "" where it names none."""
        return ""

    def read(self, k: int) -> tuple[Channel, Grid]:
        source, name = self.sources[k], self.name if k == 0 else self.name_of(self.sources[k])
        grid = self._placed(self._first if k == 0 else self._opened(source), name)
        read = self._channel(source, name)
        array = read.stored
        if array.ndim == 4 and array.shape[3] == 1:
            array = array[..., 0]
        return Channel(array.reshape(grid.shape + array.shape[3:], order="A"), read.slope, read.inter), grid

    def _channel(self, source: Source, name: str) -> Channel:
        """The voxels (X, Y[, Z][, channels]) of a source."""
        return Channel(_numbers(source, name))

    def is_deep(self) -> bool:
        from SimpleITK import sitkInt8, sitkUInt8, sitkVectorUInt8

        return self._first.GetPixelIDValue() not in (sitkInt8, sitkUInt8, sitkVectorUInt8)

    def doubts(self) -> list[str]:
        grid, unit = self.grid(), self.length_unit()
        found = [*self._orientation(grid), *odd_spacing(grid), *shear(grid)]
        if unit and UNITS.get(unit) != 1.0:
            known = unit in UNITS
            found.append(converted(unit, UNITS[unit]) if known else f"distances in {unit!r} count as mm; convert it")
        return found

    def _orientation(self, grid: Grid) -> list[str]:
        """Sentences that say it where the header does not tell how the axes lie."""
        return []

    def mask(self, labels: np.ndarray) -> Any:
        """Labels (X, Y, Z) as a SimpleITK image on the scan's grid in mm; nothing else of the scan is kept."""
        itk = require_itk(self.name)
        flat = self._first.GetDimension() == 2
        image = itk.GetImageFromArray(np.ascontiguousarray(labels[..., 0].T if flat else labels.transpose(2, 1, 0)))
        axes = 2 if flat else 3
        world = LPS @ self.grid().affine
        spacing = np.linalg.norm(world[:3, :3], axis=0)
        image.SetSpacing(spacing[:axes].tolist())
        image.SetOrigin(world[:axes, 3].tolist())
        image.SetDirection((world[:3, :3] / spacing)[:axes, :axes].ravel().tolist())
        return image

    @staticmethod
    def write_mask(path: Path, mask: Any) -> None:
        itk = require_itk(str(path))
        try:
            itk.WriteImage(mask, str(path), useCompression=not path.name.lower().endswith(".nii"))
        except RuntimeError as error:
            raise VptError(f"{path}: could not be written ({_reason(error)}); choose another output") from error


class ItkFileReader(ItkReader):
    """A format of files, whose header may name a file of the voxels beside it."""

    library: ClassVar[str]
    """What ITK calls the part of it that reads the format: it does not guess another by the content."""

    @classmethod
    def claims(cls, sources: tuple[Source, ...]) -> bool:
        return all(isinstance(source, Path) for source in sources) and cls.claims_name(sources[0])

    @staticmethod
    @abstractmethod
    def beside(header: Path) -> str:
        """The name of the file of the voxels; "" where they follow the header."""

    def files(self) -> tuple[Path, ...]:
        named = [self.beside(source) for source in self.sources if source.is_file()]
        return (*self.sources, *(self.sources[0].parent / name for name in named if name))


def require_itk(name: str) -> Any:
    try:
        import SimpleITK
    except ImportError as error:
        raise VptError(
            f"{name}: needs SimpleITK, which is not installed; pip install 'vpt[itk]', or convert it to .nii.gz"
        ) from error
    return SimpleITK


def header_of(path: Path, library: str) -> Any:
    """An ITK reader of a file that has read its header and no voxels."""
    itk = require_itk(str(path))
    reader = itk.ImageFileReader()
    reader.SetImageIO(library)
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise VptError(f"{path}: its header cannot be read ({_reason(error)}); export the scan again") from error
    return reader


def affine_of(image: Any) -> np.ndarray:
    """Voxel index -> RAS in the header's own unit, (4, 4); of an image of one slice with a third axis of 1."""
    count = min(image.GetDimension(), 3)
    direction = np.reshape(image.GetDirection(), (image.GetDimension(),) * 2)[:count, :count]
    world = np.eye(4)
    world[:count, :count] = direction * np.array(image.GetSpacing()[:count])
    world[:count, 3] = image.GetOrigin()[:count]
    return LPS @ world


def _shape(image: Any) -> tuple[int, ...]:
    """(X, Y), (X, Y, Z) or (X, Y, Z, channels)."""
    size, components = tuple(map(int, image.GetSize())), _components(image)
    if components == 1:
        return size
    return (*size, 1, components) if len(size) == 2 else (*size, components)


def _components(image: Any) -> int:
    """How many numbers a voxel has; an image and a reader call it by two names."""
    count = getattr(image, "GetNumberOfComponentsPerPixel", None) or image.GetNumberOfComponents
    return int(count())


def _numbers(image: Any, name: str) -> np.ndarray:
    """The voxels (X, Y[, Z][, channels]) of a SimpleITK image, X varying fastest in memory."""
    array = require_itk(name).GetArrayFromImage(image)
    if array.dtype.kind not in "iuf":
        raise VptError(f"{name}: colour or complex voxels, expected plain numbers; save one number per voxel")
    if _components(image) == 1:
        return np.asarray(array.T)
    turned = np.moveaxis(array, -1, 0).T
    return np.asarray(turned[:, :, None] if array.ndim == 3 else turned)


def _reason(error: BaseException) -> str:
    """The last line of what ITK says, without its source file."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
