"""Image files (PNG, JPEG, BMP, TIFF, WebP): decoded with Pillow into grey or colour, masks into label ids.

Whatever a file's mode (palette, alpha, CMYK, 1 bit, 16 bit), what comes out is grey or red, green, blue, turned upright
as its EXIF orientation asks. Neither torch nor MONAI is needed, so that `vpt check` starts at once.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vpt.errors import VptError
from vpt.readers.array import ArrayReader, as_picture, is_grey
from vpt.readers.base import Source
from vpt.readers.grid import Grid, picture_grid

if TYPE_CHECKING:
    from PIL.Image import Image

JPEG_ENDINGS = (".jpg", ".jpeg")
JPEG_THRESHOLD = 127  # above it a pixel of a JPEG mask is foreground
DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")  # one number per pixel, of more than 8 bits
GREY_MODES = ("1", "L", "LA", "La", *DEEP_MODES)  # grey by the header alone
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # EXIF: rows and columns change places
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


class PictureReader(ArrayReader):
    """An image file: once it is decoded, an array of pixels."""

    endings = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

    @classmethod
    def claims(cls, sources: tuple[Source, ...]) -> bool:
        return len(sources) == 1 and isinstance(sources[0], Path) and cls.claims_name(sources[0])

    @classmethod
    def name_of(cls, source: Source) -> str:
        return str(source)

    def picture(self) -> np.ndarray:
        return read_picture(self.sources[0])

    def ids(self) -> np.ndarray:
        return read_mask(self.sources[0])

    def grid(self) -> Grid:
        return picture_grid(*picture_size(self.sources[0]))

    def count_channels(self, exact: bool = True) -> int:
        return 3 if (is_colour if exact else may_be_colour)(self.sources[0]) else 1

    def is_deep(self) -> bool:
        return is_deep(self.sources[0])

    @property
    def is_lossy(self) -> bool:
        return is_jpeg(self.sources[0])


def picture_size(path: Path) -> tuple[int, int]:
    """(rows, columns) of an image as it is seen; only the header is read."""
    with _opened(path) as image:
        columns, rows = image.size
        return (columns, rows) if image.getexif().get(ORIENTATION) in TURNED else (rows, columns)


def read_picture(path: Path) -> np.ndarray:
    """An image as (1, rows, columns) where it is grey, (3, rows, columns) where not; uint8, uint16 or float32.

    A colour file whose channels are equal up to JPEG's noise is grey. Alpha is dropped.
    Raises VptError for a file that is missing, empty, damaged, no image, or of several pages.
    """
    with _opened(path) as image:
        return as_picture(_pixels(_upright(image), str(path)), str(path))


def is_colour(path: Path) -> bool:
    """Whether an image has colour; grey modes are told by the header, others by their pixels."""
    with _opened(path) as image:
        return image.mode not in GREY_MODES and not is_grey(_pixels(image, str(path)))


def may_be_colour(path: Path) -> bool:
    """Whether an image is stored with colours, by its header alone; they may still all be grey."""
    with _opened(path) as image:
        return image.mode not in GREY_MODES


def is_deep(path: Path) -> bool:
    """Whether an image has more than 8 bits per pixel (only grey ones do); only the header is read."""
    with _opened(path) as image:
        return image.mode in DEEP_MODES


def read_mask(path: Path) -> np.ndarray:
    """A mask's label ids (rows, columns), integers: its pixel values, or the indices of a palette with colours.

    A JPEG's values are not exact: above 127 is 255, the others are 0. A 1-bit mask holds 0 and 255 as well.
    Raises VptError for what `read_picture` refuses, colours, and values that are no whole numbers.
    """
    with _opened(path) as image:
        image = _upright(image)
        if image.mode == "P" and not is_grey(_palette(image)):
            return np.array(image)
        pixels = _pixels(image, str(path))
    if pixels.ndim == 3:
        if not is_grey(pixels):
            raise VptError(
                f"{path}: a colour picture, expected one label id per pixel; "
                "save it as grey, with a value of its own for every colour"
            )
        pixels = np.rint(pixels.mean(-1)).astype(np.uint8)
    if is_jpeg(path):
        return np.where(pixels > JPEG_THRESHOLD, 255, 0).astype(np.uint8)
    if pixels.dtype.kind == "f":
        raise VptError(f"{path}: holds {pixels.dtype} values, expected label ids; save the mask as 8-bit grey")
    return pixels


def is_jpeg(path: Path) -> bool:
    return path.name.lower().endswith(JPEG_ENDINGS)


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """The image, header read; what goes wrong in here or while it is used is told with the file's name."""
    from PIL import Image, UnidentifiedImageError

    if not path.is_file():
        raise VptError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}, expected an image file")
    if path.stat().st_size == 0:
        raise VptError(f"{path}: an empty file, expected an image; copy or export it again")
    try:
        with Image.open(path) as image:
            pages = getattr(image, "n_frames", 1)
            if pages > 1 and image.format != "MPO":  # a camera's JPEG with a preview behind the picture
                raise VptError(f"{path}: holds {pages} pages, expected one image; save every page as a file")
            yield image
    except UnidentifiedImageError as error:
        raise VptError(f"{path}: not an image, or damaged in its header; export it again as PNG") from error
    except Image.DecompressionBombError as error:
        raise VptError(f"{path}: too large an image ({error}); cut it into tiles, or make it smaller") from error
    except DAMAGED as error:
        reason = " ".join(str(error).split())
        raise VptError(f"{path}: truncated or damaged ({reason}); copy or download the file again") from error


def _upright(image: Image) -> Image:
    from PIL import ImageOps

    return ImageOps.exif_transpose(image) or image


def _pixels(image: Image, name: str) -> np.ndarray:
    """(rows, columns) uint8, uint16 or float32, or (rows, columns, 3) uint8."""
    if image.mode in ("I", "I;16", "I;16L", "I;16B", "I;16N"):
        values = np.array(image).astype(np.int64)
        if values.min() < 0 or values.max() > np.iinfo(np.uint16).max:
            raise VptError(f"{name}: values from {values.min()} to {values.max()}, expected 0 to 65535; save as 16-bit")
        return values.astype(np.uint16)
    if image.mode == "F":
        return np.array(image, np.float32)
    if image.mode in GREY_MODES:
        return np.array(image.convert("L"))
    if image.mode in ("P", "PA") and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))


def _palette(image: Image) -> np.ndarray:
    """(N, 3): all colours of a palette, so that the masks of one data set are read alike whatever each holds of it."""
    return np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
