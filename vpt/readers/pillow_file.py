"""An image file as Pillow opens it: refused before anything is decoded that is too large, of several pages, or deeper
than Pillow can read; its pixels as they are seen.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vpt.errors import VptError
from vpt.readers.content import in_place_of, other_content
from vpt.readers.damage import spoiled
from vpt.readers.jpeg2000 import Jpeg2000, box_beyond
from vpt.readers.png import damaged_chunk
from vpt.readers.pnm import Pnm

if TYPE_CHECKING:
    from PIL.Image import Image

DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")  # one number per pixel, of more than 8 bits
GREY_MODES = ("1", "L", "LA", "La", *DEEP_MODES)  # grey by the header alone
MOST_PIXELS = 2**26  # of an image; decoding and scaling take some 25 bytes for each
WHOLE_MODES = tuple(mode for mode in DEEP_MODES if mode != "F")
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # of TIFF
SAMPLE_FORMAT, UNSIGNED, SIGNED = 339, 1, 2
ORIENTATION = 0x0112  # of EXIF
READ = ("PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP", "PPM", "JPEG2000")  # others start programs, or lose depth
FEW_HIDDEN = 0.005  # of the pixels
HIDDEN = (
    "and what is hidden there has other values than one, which are read as if they were seen: flatten such pictures "
    "(mogrify -background black -alpha remove)"
)
TARGA = ".tga"  # has no mark of its own, so that its name has to say it
DAMAGED = (  # what Pillow lets through of its decoders
    OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError,
    struct.error, zlib.error,
)  # fmt: skip

warnings.filterwarnings("ignore", "Corrupt EXIF data")  # Pillow's, which names no file: see `doubts_of_turn`


@contextmanager
def opened(path: Path, pixels: bool = False) -> Iterator[Image]:
    """The image, header read; what goes wrong in here or while it is used is told with the file's name.

    pixels: whether they are going to be decoded, so that their checksums count.
    """
    from PIL import Image, UnidentifiedImageError

    if not path.is_file():
        raise VptError(f"{path}: {in_place_of(path)}, expected an image file")
    if path.stat().st_size == 0:
        raise VptError(f"{path}: an empty file, expected an image; copy or export it again")
    try:
        # As a file and not by its path: from that Pillow maps plain TIFF into memory, and scrambles turned ones.
        formats = ["TGA"] if path.name.lower().endswith(TARGA) else READ
        if box := box_beyond(path):
            raise OSError(f"its part {box!r} is longer than the file")
        with open(path, "rb") as file, Image.open(file, formats=formats) as image:
            if pixels and image.format == "PNG" and (chunk := damaged_chunk(path)):
                raise OSError(f"the checksum of its part {chunk!r} is wrong")
            _refuse_pages(image, path)
            _refuse_huge(image, path)
            _refuse_deep_colour(image, path)
            _refuse_what_is_not_said(image, path)
            yield image
    except UnidentifiedImageError as error:
        damaged = VptError(f"{path}: not an image, or damaged in its header; export it again as PNG")
        raise other_content(path) or damaged from error
    except Image.DecompressionBombError as error:
        raise VptError(f"{path}: too large an image ({error}); cut it into tiles, or make it smaller") from error
    except DAMAGED as error:
        raise spoiled(path, error) from error


def _refuse_pages(image: Image, path: Path) -> None:
    if image.format == "MPO":  # a camera's JPEG with a preview behind the picture
        return
    if (pages := getattr(image, "n_frames", 1)) > 1:
        mend = "save every page as a file, or slices together as a volume with its spacing (.nrrd, .nii.gz)"
        raise VptError(f"{path}: holds {pages} pages, expected one image; {mend}")


def _refuse_huge(image: Image, path: Path) -> None:
    """More pixels than are decoded: a file of some kilobytes can claim hundreds of millions of them."""
    columns, rows = image.size
    if columns * rows > MOST_PIXELS:
        raise VptError(
            f"{path}: too large an image ({columns}x{rows}, {columns * rows / 1e6:.0f} million pixels, expected "
            f"{MOST_PIXELS / 1e6:.0f} million at most); cut it into tiles, or make it smaller"
        )


def _refuse_deep_colour(image: Image, path: Path) -> None:
    """Several channels of more than 8 bits, of which Pillow would keep the upper 8."""
    if image.mode in ("1", "P", *DEEP_MODES):
        return
    layouts = [
        str(part)
        for tile in getattr(image, "tile", ())
        for part in (tile[3] if isinstance(tile[3], tuple) else (tile[3],))
    ]
    bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (8,))  # a TIFF's own word
    if max(bits) > 8 or any(";16" in layout for layout in layouts):
        raise VptError(
            f"{path}: several channels of more than 8 bits ({image.mode}), which cannot be read whole; "
            "save it as 8-bit colour, or as 16-bit grey with one channel"
        )


def _refuse_what_is_not_said(image: Image, path: Path) -> None:
    """Formats whose headers Pillow does not look at closely enough to give all that they hold."""
    refusal = ""
    if image.format == "PPM" and (pnm := Pnm.of(path)):
        refusal = pnm.refusal(path)
    if image.format == "JPEG2000":
        found = Jpeg2000.of(path)
        refusal = found.refusal(image.mode) if found else "JPEG 2000 that is damaged in its header; export it again"
    if refusal:
        raise VptError(f"{path}: {refusal}")


def seen(image: Image, name: str) -> np.ndarray:
    """`pixels_of` an image as it is seen: upright, and light where its file says so."""
    tags = getattr(image, "tag_v2", {})
    negative, bits = is_deep_negative(image), max(tags.get(BITS_PER_SAMPLE, (8,)))
    pixels = pixels_of(upright(image), name)
    if bits == 8 and SIGNED in tags.get(SAMPLE_FORMAT, ()) and pixels.max(initial=0) > np.iinfo(np.int8).max:
        raise VptError(
            f"{name}: a TIFF of signed numbers of 8 bits, some below 0, which would be read without their sign; save "
            "it unsigned, or of 16 bits"
        )
    if not negative:
        return pixels
    if pixels.dtype != np.uint16 or pixels.max(initial=0) >= 2**bits:
        raise VptError(
            f"{name}: a TIFF whose white is 0 by its header, of {image.mode} pixels; save it with black as 0"
        )
    return (2**bits - 1 - pixels).astype(np.uint16)


def whole_numbers(image: Image) -> np.ndarray:
    """(rows, columns) of an image of WHOLE_MODES as it is seen: uint16 where they fit, else int64.

    32 bits of a TIFF without a sign, which Pillow takes for ones with it, are as they were written.
    """
    tags = getattr(image, "tag_v2", {})
    values = np.array(upright(image)).astype(np.int64)
    if max(tags.get(BITS_PER_SAMPLE, (0,))) == 32 and max(tags.get(SAMPLE_FORMAT, (UNSIGNED,))) == UNSIGNED:
        values &= np.iinfo(np.uint32).max
    fits = values.min() >= 0 and values.max() <= np.iinfo(np.uint16).max
    return values.astype(np.uint16) if fits else values


def is_deep_negative(image: Image) -> bool:
    """A TIFF that says that 0 is white, of more than 8 bits: of fewer Pillow turns the values itself."""
    return image.mode in DEEP_MODES and getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO


def has_alpha(image: Image) -> bool:
    return "transparency" in image.info or bool({"A", "a"} & {*image.getbands()})


def alpha_of(image: Image) -> np.ndarray | None:
    """How opaque every pixel is, (rows, columns) uint8; None where an image says nothing of it."""
    if not has_alpha(image):
        return None
    return np.array(image.convert("RGBA").getchannel("A"))


def doubts_of_transparency(image: Image) -> list[str]:
    """That wholly transparent places of an image hide what is still drawn there, as a sentence without its name."""
    alpha = alpha_of(image)
    if alpha is None:
        return []
    clear = alpha == 0
    below = np.array(image.convert("RGB"))[clear]
    hides = FEW_HIDDEN < clear.mean() < 1 and (below != below[0]).any()
    return ["transparent in places, " + HIDDEN] if hides else []


def upright(image: Image) -> Image:
    from PIL import ImageOps

    if turn_of(image) == 1:  # which Pillow would copy
        return image
    return ImageOps.exif_transpose(image) or image


def pixels_of(image: Image, name: str) -> np.ndarray:
    """(rows, columns) uint8, uint16 or float32, or (rows, columns, 3) uint8."""
    if image.mode in WHOLE_MODES:
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


def palette(image: Image) -> np.ndarray:
    """(N, 3): all colours of a palette, so that the masks of one data set are read alike whatever each holds of it."""
    return np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)


def turn_of(image: Image) -> int:
    found: Any = image.getexif().get(ORIENTATION)
    return int(found) if found in range(1, 9) else 1


def doubts_of_turn(image: Image) -> list[str]:
    """That EXIF, which says how an image is to be turned, cannot be read, as a sentence without its name."""
    exif = image.info.get("exif", b"").removeprefix(b"Exif\0\0")
    if not exif or turn_of(image) != 1 or _is_whole(exif):
        return []
    return ["its EXIF is damaged, so whether it is to be turned is not known: it is read as it is stored; look at it"]


def _is_whole(exif: bytes) -> bool:
    """Whether EXIF, written as a TIFF's header, has as many entries as it says."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return False
    (start,) = struct.unpack(f"{order}I", exif[4:8])
    count = exif[start : start + 2]
    return len(count) == 2 and len(exif) >= start + 2 + 12 * struct.unpack(f"{order}H", count)[0]
