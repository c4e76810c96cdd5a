"""The numbers of a stack: decoded, in one order, with what makes values of them; leaning stacks resampled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from vpt.errors import VptError
from vpt.readers.damage import require_memory
from vpt.readers.dicom.codestreams import JPEG2000, require_frames, require_runs, require_sign, require_sizes
from vpt.readers.dicom.files import INSTALL, DicomFile, Header, guarded
from vpt.readers.dicom.stack import Frame, Stack
from vpt.readers.voxels import Channel

if TYPE_CHECKING:
    from pydicom import Dataset

MEASURED = ("CT", "PT")  # their values have units (HU, Bq/ml), however they are meant to be shown
INVERTED, COLOURS = "MONOCHROME1", "PALETTE COLOR"
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
RUNS = "1.2.840.10008.1.2.5"  # RLE, whose packed bytes become 64 times as many at the most, and name no size
HALVED = "YBR_FULL_422"  # two pixels share their colour, so three bytes are two unless they are packed
DENSEST = 2**14  # times: no JPEG or RLE of a scan is packed more tightly


def channel_of(stack: Stack, name: str) -> Channel:
    """The voxels (X, Y, Z) on the stack's grid: as stored with one slope and intercept, or as values if these differ.

    Raises VptError for colour, CT that is not in HU, slices that are not in one unit, pixels that are cut off or packed
    in a way nobody here knows.
    """
    frames = stack.frames
    _require_values(frames, name)
    _require_one_unit(frames, name)
    scales = {_scale(frame) for frame in frames}
    slope, inter = (1.0, 0.0) if len(scales) > 1 else _scale(frames[0])
    volume = _volume(frames, name, as_values=len(scales) > 1)
    if stack.shifts is not None:
        columns, rows, _ = stack.grid.shape
        require_memory(name, stack.grid.shape, volume.itemsize * prod(stack.grid.shape))
        volume = straightened(volume, stack.shifts, (rows, columns), name)
    return Channel(volume.transpose(2, 1, 0), slope, inter)


def is_inverted(header: Header) -> bool:
    """Whether the least number means white, and is turned here."""
    return header.get("PhotometricInterpretation") == INVERTED and header.get("Modality") not in MEASURED


def is_packed_with_losses(header: Header) -> bool:
    return str(header.get("LossyImageCompression") or "") == "01"


def _scale(frame: Frame) -> tuple[float, float]:
    """What makes values of stored numbers; of those that a table makes nothing."""
    if _table(frame.header) is not None:
        return 1.0, 0.0
    return (1.0 if frame.slope is None else frame.slope), (0.0 if frame.inter is None else frame.inter)


def _require_values(frames: Sequence[Frame], name: str) -> None:
    first = frames[0]
    for frame in frames:
        header = frame.header
        if is_inverted(header) != is_inverted(first.header):
            white, black = (frame, first) if is_inverted(header) else (first, frame)
            raise VptError(
                f"{name}: the least number means white in {white.name} (MONOCHROME1) and black in {black.name}, so "
                "they are not one scan's; export the original series"
            )
        if int(header.get("SamplesPerPixel") or 1) != 1 or header.get("PhotometricInterpretation") == COLOURS:
            raise VptError(f"{name}: {frame.name} is in colour, expected grey; export the original series")
        table = _table(header)
        in_units = frame.inter is not None if table is None else table.get("ModalityLUTType") == "HU"
        if header.get("Modality") == "CT" and not in_units:
            raise VptError(
                f"{name}: {frame.name} is a CT without RescaleIntercept, so its numbers are not known to be HU; export "
                "the original series"
            )


def _require_one_unit(frames: Sequence[Frame], name: str) -> None:
    """Refuse slices without a table, slope or intercept, where that of others makes other values of numbers."""
    scaled = [frame for frame in frames if _table(frame.header) is None]
    bare = next((frame for frame in scaled if frame.slope is None and frame.inter is None), None)
    if bare is not None and len(scaled) < len(frames):
        tabled = next(frame for frame in frames if _table(frame.header) is not None)
        raise VptError(
            f"{name}: {tabled.name} has a table of values (Modality LUT) and {bare.name} has none and no RescaleSlope, "
            "expected one or the other in all slices, so they are not in one unit; export the original series"
        )
    slopes, inters = [frame.slope for frame in scaled], [frame.inter for frame in scaled]
    for keyword, values, plain in (("RescaleSlope", slopes, 1.0), ("RescaleIntercept", inters, 0.0)):
        said = next((k for k, value in enumerate(values) if value not in (None, plain)), None)
        if None in values and said is not None:
            raise VptError(
                f"{name}: {scaled[said].name} has the {keyword} {values[said]:g} and "
                f"{scaled[values.index(None)].name} has none, expected it in all slices or in none, so they are not in "
                "one unit; export the original series"
            )


def _volume(frames: Sequence[Frame], name: str, as_values: bool) -> np.ndarray:
    """(frames, rows, columns) as stored, or as values in float32; no frame is kept beside it."""
    volume: np.ndarray | None = None
    for k, stored in _numbers(frames, name):
        slope, inter = _scale(frames[k])
        pixels = (stored * slope + inter).astype(np.float32) if as_values else stored
        if volume is None:
            shape = (len(frames), *pixels.shape)
            require_memory(name, shape, pixels.itemsize * prod(shape))
            volume = np.empty(shape, pixels.dtype)
        if pixels.dtype != volume.dtype:
            volume = volume.astype(np.result_type(volume, pixels), copy=False)
        volume[k] = pixels
    assert volume is not None  # a stack has frames
    return volume


def _numbers(frames: Sequence[Frame], name: str) -> Iterator[tuple[int, np.ndarray]]:
    """The number of each frame and what is stored of it (rows, columns), inverted where the least number means white.

    In the order of their files, each of which is decoded once.
    """
    order = sorted(range(len(frames)), key=lambda k: (str(frames[k].header.file), frames[k].index))
    for header, group in groupby(order, key=lambda k: frames[k].header):
        pixels = decoded(header.file, name)
        for k in group:
            frame = frames[k]
            stored = pixels if pixels.ndim == 2 else pixels[frame.index]
            yield k, upright(tabled(stored, header, frame.slope, frame.inter), header)


def tabled(pixels: np.ndarray, header: Header, slope: float | None, inter: float | None) -> np.ndarray:
    """What the table of a Modality LUT makes of stored numbers; they themselves where there is none.

    Numbers before its first and behind its last have the value of that (DICOM PS3.3 C.11.1.1).
    """
    if (table := _table(header)) is None:
        return pixels
    if slope not in (None, 1) or inter not in (None, 0):
        raise VptError(
            f"{header.file}: has a table of values (Modality LUT) and a RescaleSlope or RescaleIntercept, expected one "
            "of them, so its values are not known; export the original series"
        )
    count, first, bits = (int(part) for part in table.LUTDescriptor)
    count = count or 2**16
    data = table.LUTData
    if isinstance(data, bytes):
        data = np.frombuffer(data, np.uint8 if bits == 8 and len(data) <= count + 1 else np.dtype("<u2"))
    values = np.array(data, np.uint16)[:count]
    return values[np.clip(pixels.astype(np.int64) - first, 0, len(values) - 1)]


def coloured(pixels: np.ndarray, header: Header) -> np.ndarray:
    """The numbers of colours (rows, columns) -> what the file's palette has for them (rows, columns, 3), 8 bits."""
    from pydicom.pixels import apply_color_lut

    if "RedPaletteColorLookupTableDescriptor" not in header.data:
        raise VptError(
            f"{header.file}: its pixels are numbers of colours, and the colours are missing; export it again"
        )
    count, first, _ = header.data.RedPaletteColorLookupTableDescriptor
    palette = apply_color_lut(np.arange(first, first + (count or 2**16)), header.data)[:, :3]
    if palette.max() > 255:  # some write 8 bits into the lower half of 16
        palette = palette >> 8
    return palette.astype(np.uint8)[np.clip(pixels.astype(np.int64) - first, 0, len(palette) - 1)]


def _table(header: Header) -> Dataset | None:
    found = header.get("ModalityLUTSequence")
    return found[0] if found else None


def upright(pixels: np.ndarray, header: Header) -> np.ndarray:
    """Numbers, of which the least means black: inverted where it means white."""
    if not is_inverted(header):
        return pixels
    if pixels.dtype.kind == "f":
        return pixels.max() + pixels.min() - pixels
    table = _table(header)
    bits = int(header.get("BitsStored") if table is None else table.LUTDescriptor[2])
    signed = table is None and bool(header.get("PixelRepresentation"))
    return ((-1 if signed else 2**bits - 1) - pixels.astype(np.int64)).astype(pixels.dtype)


def decoded(file: DicomFile, name: str) -> np.ndarray:
    """The pixels of a file as they are stored: (rows, columns), of several frames (frames, rows, columns)."""
    called = name if name.endswith(file.name) else f"{name}: {file.name}"
    with guarded(called, "its pixels are damaged or cut off"):
        data = file.read(pixels=True)
        syntax = data.file_meta.get("TransferSyntaxUID")
        if not any(key in data for key in PIXELS):
            raise VptError(f"{called}: has no pixels; copy or export it again")
        if syntax is not None and syntax.is_compressed and syntax.is_encapsulated:
            _require_decoder(syntax, called)
        _require_there(data, called)
        _require_low_bits(data, called)
        pixels: np.ndarray = data.pixel_array
        if syntax in JPEG2000:
            require_sign(data, pixels, int(data.get("NumberOfFrames") or 1), called)
    return pixels


def _require_there(data: Any, called: str) -> None:
    """Refuse more pixels than the file can hold, or less (VptError), or than fit into memory (MemoryError).

    Zeros behind them are padding, which is cut off where it is long.
    """
    frames, rows, columns = (int(data.get(key) or 1) for key in ("NumberOfFrames", "Rows", "Columns"))
    samples = int(data.get("SamplesPerPixel") or 1)
    bits = int(data.get("BitsAllocated") or 8) * samples
    key = next(key for key in PIXELS if key in data)
    stored = data[key].value or b""
    claimed, held = frames * rows * columns * bits // 8, len(stored)
    syntax = data.file_meta.get("TransferSyntaxUID")
    packed = syntax in (None, "") or syntax.is_compressed
    halved = not packed and data.get("PhotometricInterpretation") == HALVED
    if halved and held >= claimed:
        raise VptError(
            f"{called}: its header says that two pixels share their colour ({HALVED}, {claimed * 2 // 3:,} bytes), but "
            f"its {held:,} bytes hold {samples} numbers for each, so which colours these are is not known; export it "
            "as RGB"
        )
    claimed = claimed * 2 // 3 if halved else claimed
    if min(frames, rows, columns) < 1 or claimed > held * (DENSEST if packed else 1):
        raise VptError(
            f"{called}: its header claims {frames} frames of {rows}x{columns} pixels, {claimed:,} bytes, which the "
            f"{held:,} bytes of its pixels cannot hold; copy or export it again"
        )
    if not packed and any(stored[claimed + columns * bits // 8 :]):  # less is padding
        raise VptError(
            f"{called}: its header claims {frames} frames of {rows}x{columns} pixels, {claimed:,} bytes, but its "
            f"pixels go on to {held:,}, so they are of another size or type; copy or export it again"
        )
    if not packed and held >= claimed + claimed // frames:  # pydicom would make frames of the zeros
        data[key].value = stored[:claimed]
    require_memory(called, (frames, rows, columns), claimed)
    if packed and syntax and syntax.is_encapsulated:
        require_frames(data, frames, called)
        if syntax == RUNS:
            require_runs(data, rows, columns, frames, called)
        else:
            require_sizes(data, rows, columns, samples, frames, called)


def _require_low_bits(data: Any, called: str) -> None:
    """Refuse numbers that lie in the upper bits by their header: what is read are the lower ones.

    A header that says so of numbers that fill the lowest bits and need no others is a slip, and nothing is lost.
    """
    stored, high, allocated = (int(data.get(key) or 0) for key in ("BitsStored", "HighBit", "BitsAllocated"))
    syntax = data.file_meta.get("TransferSyntaxUID")
    if high + 1 <= stored or stored >= allocated or allocated not in (8, 16, 32) or "PixelData" not in data:
        return
    if syntax is not None and syntax.is_encapsulated:  # a codec knows its own bits
        return
    order = ">" if syntax is not None and not syntax.is_little_endian else "<"
    numbers = np.frombuffer(data.PixelData, np.dtype(f"{order}u{allocated // 8}"))
    if int(numbers.max(initial=0)) >> stored or (numbers.any() and not (numbers % 2 ** (high + 1 - stored)).any()):
        raise VptError(
            f"{called}: its numbers of {stored} bits end at bit {high} (HighBit), expected {stored - 1}, so they would "
            "be read cut off; export the original series"
        )


def _require_decoder(syntax: Any, called: str) -> None:
    from pydicom.pixels import get_decoder

    try:
        known = get_decoder(syntax).is_available
    except NotImplementedError:
        raise VptError(
            f"{called}: its pixels are packed in a way that is not read ({syntax.name}); export it uncompressed"
        ) from None
    if not known:
        raise VptError(
            f"{called}: its pixels are packed ({syntax.name}), which takes pylibjpeg to read; {INSTALL}, or export it "
            "uncompressed"
        )


# --- stacks that lean -------------------------------------------------------------------------------------------------


def straightened(volume: np.ndarray, shifts: np.ndarray, size: tuple[int, int], name: str) -> np.ndarray:
    """(slices, rows, columns), each slice shifted by (columns, rows) pixels -> (slices, *size), linear between pixels.

    What no slice covers gets the least number of the volume (air).
    """
    least = float(volume.min())
    return np.stack(
        [
            _moved(part, -shift, size, name, nearest=False, fill=least)
            for part, shift in zip(volume, shifts, strict=True)
        ]
    )


def leaned(labels: np.ndarray, shifts: np.ndarray, size: tuple[int, int], name: str) -> np.ndarray:
    """The way back of `straightened`, for label ids: the nearest of each pixel."""
    return np.stack(
        [_moved(part, shift, size, name, nearest=True, fill=0) for part, shift in zip(labels, shifts, strict=True)]
    )


def _moved(
    pixels: np.ndarray, shift: np.ndarray, size: tuple[int, int], name: str, *, nearest: bool, fill: float
) -> np.ndarray:
    """(rows, columns) -> `size`; the value at (row, column) comes from there plus `shift` (along columns, rows)."""
    try:
        import SimpleITK
    except ImportError as error:
        raise VptError(
            f"{name}: a stack that leans (gantry tilt), which takes SimpleITK to resample; {INSTALL}"
        ) from error
    how = SimpleITK.sitkNearestNeighbor if nearest else SimpleITK.sitkLinear
    moved = SimpleITK.Resample(
        SimpleITK.GetImageFromArray(np.ascontiguousarray(pixels)),
        (size[1], size[0]),
        SimpleITK.TranslationTransform(2, [float(part) for part in shift]),
        how,
        (0.0, 0.0),
        (1.0, 1.0),
        (1.0, 0.0, 0.0, 1.0),
        fill,
    )
    return SimpleITK.GetArrayFromImage(moved)
