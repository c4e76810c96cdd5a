"""The size that a packed frame has by itself."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vpt.readers.dicom.codestreams import Size, require_frames, require_runs, require_sizes, size_of

LS = b"\xff\xd8\xff\xf7\x00\x0b\x08\x00\x07\x00\x09\x01\x01\x11\x00\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00\xff\xd9"


def packed(kind: str, shape: tuple[int, ...] = (7, 9), **options: Any) -> bytes:
    made = BytesIO()
    Image.fromarray(np.zeros(shape, np.uint8)).save(made, kind, **options)
    return made.getvalue()


@pytest.mark.parametrize(
    ("frame", "size"),
    [
        (packed("JPEG"), Size(7, 9, 1)),
        (packed("JPEG", (7, 9, 3), progressive=True, comment=b"\xff\xc0 in a comment"), Size(7, 9, 3)),
        (packed("JPEG2000", no_jp2=True), Size(7, 9, 1)),
        (packed("JPEG2000", (7, 9, 3)), Size(7, 9, 3)),  # a file, where a codestream belongs
        (LS, Size(7, 9, 1)),
        (b"\xff\xd8\xff\xff" + LS[3:], Size(7, 9, 1)),  # markers may be filled up
        (packed("JPEG")[:20], None),
        (packed("JPEG2000", no_jp2=True)[:30], None),
        (packed("JPEG2000")[:60], None),
        (b"\xff\xd8\xff\xd9", None),
        (b"\xff\xd8\xff\xe0\x00\x00" + LS, None),  # a part that would begin before itself
        (b"", None),
        (b"none", None),
    ],
)
def test_size_of_a_frame(frame: bytes, size: Size | None) -> None:
    assert size_of(frame) == size


@pytest.mark.slow
def test_every_packed_file_of_pydicom_is_as_large_as_its_header_says() -> None:
    """But for one, whose frame ends after the second marker, and which no decoder reads."""
    import pydicom
    from pydicom.data import get_testdata_file

    files, odd = sorted(Path(get_testdata_file("CT_small.dcm")).parent.rglob("*.dcm")), []
    for path in files:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = pydicom.dcmread(path, force=True)
            syntax = data.file_meta.get("TransferSyntaxUID") if "PixelData" in data else None
            if syntax is None or not syntax.is_encapsulated:
                continue
            frames = int(data.get("NumberOfFrames") or 1)
            require_frames(data, frames, path.name)
            if syntax == pydicom.uid.RLELossless:
                require_runs(data, data.Rows, data.Columns, frames, path.name)
                continue
            try:
                require_sizes(data, data.Rows, data.Columns, data.SamplesPerPixel, frames, path.name)
            except Exception:
                odd.append(path.name)
    assert odd == ["JPEG2000-embedded-sequence-delimiter.dcm"]
