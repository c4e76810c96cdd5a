"""Image files (PNG, JPEG, BMP, TIFF, GIF, WebP, Netpbm, JPEG 2000, Targa), decoded with Pillow: into grey or colour,
masks into label ids.

Whatever a file's mode (palette, alpha, CMYK, 1 bit, 16 bit), what comes out is grey or red, green, blue, turned upright
as its EXIF orientation asks. Neither torch nor MONAI is needed, so that `vpt check` starts at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from vpt.errors import VptError
from vpt.readers.array import COLOUR_NOISE, ArrayReader, as_picture, is_grey
from vpt.readers.base import Source
from vpt.readers.grid import Grid, picture_grid
from vpt.readers.jpeg2000 import Jpeg2000
from vpt.readers.pillow_file import (
    DEEP_MODES,
    GREY_MODES,
    WHOLE_MODES,
    alpha_of,
    doubts_of_transparency,
    doubts_of_turn,
    has_alpha,
    is_deep_negative,
    opened,
    palette,
    pixels_of,
    seen,
    turn_of,
    upright,
    whole_numbers,
)
from vpt.readers.png import may_hold_exif, states_white
from vpt.readers.pnm import Pnm

if TYPE_CHECKING:
    from PIL.Image import Image

JPEG_ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif")
JPEG_THRESHOLD = 127  # above it a pixel of a JPEG mask is foreground
FLAT, MIDDLE, MANY = 8, (24, 231), 0.002  # levels that an even area of JPEG spans; between black and white; its share
EXACT = 2**24  # above it 32-bit floats skip whole numbers
HALF_CLEAR = 128  # of alpha: what is less is not seen
RGB_CODE = np.array([1 << 16, 1 << 8, 1])
TURNED = (5, 6, 7, 8)  # EXIF: rows and columns change places


class PictureReader(ArrayReader):
    """An image file: once it is decoded, an array of pixels."""

    endings: ClassVar[tuple[str, ...]] = (
        ".png",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".bmp",
        ".tif",
        ".tiff",
        ".gif",
        ".webp",
        ".pgm",
        ".ppm",
        ".pbm",
        ".pnm",
        ".jp2",
        ".j2k",
        ".tga",
    )

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

    def orientation(self) -> int:
        return orientation(self.sources[0])

    def white(self) -> float | None:
        return white_of(self.sources[0])

    @property
    def is_lossy(self) -> bool:
        return is_jpeg(self.sources[0])

    def doubts(self) -> list[str]:
        with opened(self.sources[0]) as image:
            turned = [] if image.format == "PNG" and not may_hold_exif(self.sources[0]) else doubts_of_turn(image)
            if not has_alpha(image):
                return turned
        with opened(self.sources[0], pixels=True) as image:
            return [*turned, *doubts_of_transparency(image)]


def picture_size(path: Path) -> tuple[int, int]:
    """(rows, columns) of an image as it is seen; only the header is read."""
    with opened(path) as image:
        columns, rows = image.size
        tiff = image.format == "TIFF"  # whose size Pillow turns itself
    return (columns, rows) if not tiff and orientation(path) in TURNED else (rows, columns)


def orientation(path: Path) -> int:
    """How EXIF asks an image to be turned before it is seen, 1 (not at all) to 8; only the header is read."""
    with opened(path) as image:
        return 1 if image.format == "PNG" and not may_hold_exif(path) else turn_of(image)


def read_picture(path: Path) -> np.ndarray:
    """An image as (1, rows, columns) where it is grey, (3, rows, columns) where not; uint8, uint16 or float32.

    A colour file whose channels are equal up to JPEG's noise is grey. Alpha is dropped.
    Raises VptError for a file that is missing, empty, damaged, no image, or of several pages.
    """
    with opened(path, pixels=True) as image:
        return as_picture(seen(image, str(path)), str(path))


def is_colour(path: Path) -> bool:
    """Whether an image has colour; grey modes are told by the header, others by their pixels."""
    with opened(path, pixels=True) as image:
        return image.mode not in GREY_MODES and not is_grey(pixels_of(image, str(path)))


def may_be_colour(path: Path) -> bool:
    """Whether an image is stored with colours, by its header alone; they may still all be grey."""
    with opened(path) as image:
        return image.mode not in GREY_MODES


def is_deep(path: Path) -> bool:
    """Whether an image has more than 8 bits per pixel (only grey ones do); only the header is read."""
    with opened(path) as image:
        return image.mode in DEEP_MODES


def white_of(path: Path) -> float | None:
    """The value of white in a picture of more than 8 bits, where its file states it: see the readers of headers."""
    if states_white(path) or ((pnm := Pnm.of(path)) and pnm.is_scaled and pnm.white > 255):
        return float(np.iinfo(np.uint16).max)
    found = Jpeg2000.of(path)
    return float(found.white) if found and found.white else None


def read_mask(path: Path) -> np.ndarray:
    """A mask's label ids (rows, columns), integers: its pixel values, or the indices of a palette with colours.

    The values of a .jpg are not exact: above 127 is 255, the others are 0. A 1-bit mask holds 0 and 255 as well.
    Raises VptError for what `read_picture` refuses, colours, values that are no whole numbers, transparency that says
    other than the values, a lossy file that is not called .jpg, and a .jpg with more than black and white.
    """
    with opened(path, pixels=True) as image:
        lossy = lossy_format(image, path)
        if lossy and not is_jpeg(path):
            raise VptError(
                f"{path}: {lossy} by its content, whose values are not exact, so no label ids; "
                "export the mask as PNG, or threshold it (above 127 is 255, the rest 0) and save that as PNG"
            )
        require_opaque(image, path)
        if image.mode == "P" and not is_grey(palette(image), noise=0):
            return np.array(upright(image))
        ids = image.mode in WHOLE_MODES and not is_deep_negative(image)
        pixels = whole_numbers(image) if ids else seen(image, str(path))
    if pixels.ndim == 3:
        if not is_grey(pixels, noise=COLOUR_NOISE if lossy else 0):  # ids may lie in one channel, as small numbers
            raise VptError(
                f"{path}: a colour picture, expected one label id per pixel; "
                "save it as grey, with a value of its own for every colour"
            )
        pixels = np.rint(pixels.mean(-1)).astype(np.uint8)
    if lossy:
        return _black_and_white(pixels, path)
    if image.format == "PPM" and (pnm := Pnm.of(path)) and pnm.is_scaled:
        return np.rint(pixels.astype(np.float64) * (pnm.white / pnm.scaled_to)).astype(pixels.dtype)
    return _whole(pixels, path) if pixels.dtype.kind == "f" else pixels


def require_opaque(image: Image, path: Path) -> None:
    """Refuse a mask whose transparent pixels hold values that opaque ones hold too, or another one than 0.

    Without its transparency it would say something else than it shows. What is transparent throughout tells nothing
    apart, so its values count.
    """
    alpha = alpha_of(image)
    if alpha is None or not (clear := alpha < HALF_CLEAR).any() or clear.all():
        return
    values = np.array(image) if image.mode == "P" else np.array(image.convert("RGB")).astype(np.int64) @ RGB_CODE
    below = {*np.unique(values[clear]).tolist()}
    if below & {*np.unique(values[~clear]).tolist()} or below - {0}:
        raise VptError(
            f"{path}: a mask that is drawn with transparency ({clear.mean():.0%} of its pixels), which its values "
            "do not say; save it opaque, the background as 0 (mogrify -background black -alpha remove), or, if it is "
            "in the transparency alone, take that for the mask (mogrify -alpha extract)"
        )


def _whole(pixels: np.ndarray, path: Path) -> np.ndarray:
    """Floats that are label ids, as some programs store every TIFF; others are refused."""
    ids = np.unique(pixels)
    if not np.isfinite(ids).all() or (ids != np.rint(ids)).any() or ids[0] < 0 or ids[-1] > EXACT:
        odd = next(id for id in ids if not (np.isfinite(id) and id == np.rint(id) and 0 <= id <= EXACT))
        raise VptError(
            f"{path}: holds {pixels.dtype} values such as {odd:.4g}, expected label ids, whole numbers from 0 on; "
            "threshold a soft mask, and save it as 8-bit grey"
        )
    return pixels.astype(np.int32)


def _black_and_white(pixels: np.ndarray, path: Path) -> np.ndarray:
    """A JPEG's pixels (rows, columns) as 0 and 255; what is dark throughout, and even areas of grey, are refused."""
    low, high = lowest_and_highest(pixels)
    brightest = int(pixels.max())
    dark = brightest > MIDDLE[0] or _has_steps(low, high)  # else it is black that was saved again
    if dark and brightest <= JPEG_THRESHOLD:
        raise VptError(
            f"{path}: a JPEG whose brightest pixel is {brightest}, expected black and white, 0 and 255, since its "
            "values are not exact; export the mask as PNG, with a value of its own for every label"
        )
    even = (high - low <= FLAT) & (low > MIDDLE[0]) & (high < MIDDLE[1])
    if (share := float(even.mean())) > MANY:
        raise VptError(
            f"{path}: a JPEG with areas of grey ({share:.1%} of the pixels), expected black and white, "
            "since its values are not exact; export the mask as PNG, with a value of its own for every label"
        )
    return np.where(pixels > JPEG_THRESHOLD, 255, 0).astype(np.uint8)


def _has_steps(low: np.ndarray, high: np.ndarray) -> bool:
    """Whether even areas of 0 lie beside even areas of another value, as labels of 0 and 1 do."""
    even = low == high
    return bool((even & (low == 0)).mean() > MANY and (even & (low > 0)).mean() > MANY)


def lowest_and_highest(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of every pixel's neighbourhood of 3 x 3 in (rows, columns), as far as it lies inside."""
    low, high = pixels, pixels
    for axis in (0, 1):
        pads = [(1, 1) if k == axis else (0, 0) for k in (0, 1)]
        low, high = (np.pad(each, pads, mode="edge") for each in (low, high))
        parts = [
            tuple(slice(s, s + pixels.shape[axis]) if k == axis else slice(None) for k in (0, 1)) for s in (0, 1, 2)
        ]
        low = np.minimum(np.minimum(low[parts[0]], low[parts[1]]), low[parts[2]])
        high = np.maximum(np.maximum(high[parts[0]], high[parts[1]]), high[parts[2]])
    return low, high


def is_jpeg(path: Path) -> bool:
    return path.name.lower().endswith(JPEG_ENDINGS)


def lossy_format(image: Image, path: Path) -> str:
    """The format of an opened file that keeps no exact values, whatever the file is called; "" else."""
    if image.format in ("JPEG", "MPO"):
        return "JPEG"
    if image.format == "JPEG2000":
        return "JPEG 2000"
    if image.format == "TIFF" and image.info.get("compression") in ("jpeg", "tiff_jpeg", "webp"):
        return "TIFF with JPEG or WebP compression"
    return "lossy WebP" if image.format == "WEBP" and not _is_lossless_webp(path) else ""


def _is_lossless_webp(path: Path) -> bool:
    """By the chunk that holds the pixels; a WebP file is RIFF: chunks of a name (4 bytes), a length and a content."""
    with open(path, "rb") as file:
        file.seek(12)
        while len(head := file.read(8)) == 8:
            name, length = head[:4], int.from_bytes(head[4:], "little")
            if name in (b"VP8 ", b"VP8L"):
                return name == b"VP8L"
            file.seek(length + length % 2, 1)
    return False
