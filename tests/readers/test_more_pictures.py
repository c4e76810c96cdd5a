"""Netpbm, JPEG 2000 and Targa: read where depth and colour are known, refused by name where they are not."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from openjpeg.utils import encode_array
from PIL import Image

from vpt.data.check import check_dataset
from vpt.errors import VptError
from vpt.readers import reader_of
from vpt.readers.picture import read_mask, read_picture

GREY = (np.arange(40 * 32).reshape(40, 32) % 251).astype(np.uint8)
RGB = np.dstack([GREY, 255 - GREY, GREY // 2])
DEEP = (np.arange(40 * 32).reshape(40, 32) * 51).astype(np.uint16)
LABELS = np.zeros((40, 32), np.uint8)
LABELS[8:20, 4:16], LABELS[20:30, 4:16] = 1, 2


def saved(pixels: np.ndarray, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form, **options)
    return out.getvalue()


def netpbm(pixels: np.ndarray, white: int, magic: str = "") -> bytes:
    """As bytes; `white` as the header says it."""
    rows, columns = pixels.shape[:2]
    head = f"{magic or ('P6' if pixels.ndim == 3 else 'P5')}\n# by a scanner\n{columns} {rows}\n{white}\n"
    return head.encode() + pixels.astype(">u2" if white > 255 else "u1").tobytes()


def text(pixels: np.ndarray, white: int) -> bytes:
    rows, columns = pixels.shape
    return f"P2 {columns} {rows} {white}\n{' '.join(map(str, pixels.ravel().tolist()))}\n".encode()


def jp2(pixels: np.ndarray, bits: int, form: int = 1) -> bytes:
    """form: 1 of a JP2 file, 0 of the codestream alone."""
    kind = 1 if pixels.ndim == 3 else 2
    return encode_array(pixels, bits_stored=bits, photometric_interpretation=kind, codec_format=form)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


EXACT = {
    "8 bits.pgm": (netpbm(GREY, 255), GREY),
    "8 bits as text.pgm": (text(GREY, 255), GREY),
    "16 bits.pgm": (netpbm(DEEP, 65535), DEEP),
    "16 bits as text.pgm": (text(DEEP, 65535), DEEP),
    "any.pnm": (netpbm(GREY, 255), GREY),
    "colour.ppm": (netpbm(RGB, 255), RGB),
    "1 bit.pbm": (saved((LABELS > 0), "PPM"), (LABELS > 0) * np.uint8(255)),
    "8 bits.jp2": (saved(GREY, "JPEG2000"), GREY),
    "16 bits.jp2": (saved(DEEP, "JPEG2000"), DEEP),
    "16 bits.j2k": (saved(DEEP, "JPEG2000", no_jp2=True), DEEP),
    "colour.jp2": (saved(RGB, "JPEG2000"), RGB),
    "12 bits.jp2": (jp2(DEEP >> 4, 12), DEEP >> 4 << 4),
    "10 bits.jp2": (jp2(DEEP >> 6, 10), DEEP >> 6 << 6),
    "colour.tga": (saved(RGB, "TGA"), RGB),
    "packed.tga": (saved(RGB, "TGA", compression="tga_rle"), RGB),
    "grey.tga": (saved(GREY, "TGA"), GREY),
}


@pytest.mark.parametrize("name", EXACT)
def test_pixels_are_exact_in_every_depth(tmp_path: Path, name: str) -> None:
    content, pixels = EXACT[name]
    reader = reader_of(path := written(tmp_path / name, content))

    assert np.array_equal(read_picture(path), np.atleast_3d(pixels).transpose(2, 0, 1))
    assert reader.grid().shape == (32, 40, 1)
    assert reader.is_deep() == (pixels.dtype == np.uint16)
    assert reader.count_channels() == (3 if pixels.ndim == 3 else 1)


WHITES = {
    "12 bits.pgm": (netpbm(DEEP >> 4, 4095), 65535),
    "10 bits.pgm": (text(DEEP >> 6, 1023), 65535),
    "16 bits.pgm": (netpbm(DEEP, 65535), None),  # a scanner's 12 bits lie in such files too
    "12 bits.jp2": (jp2(DEEP >> 4, 12), 65520),
    "10 bits.jp2": (jp2(DEEP >> 6, 10), 65472),
    "16 bits.jp2": (saved(DEEP, "JPEG2000"), None),
    "8 bits.pgm": (netpbm(GREY, 255), None),
}


@pytest.mark.parametrize("name", WHITES)
def test_white_is_known_where_the_file_states_it(tmp_path: Path, name: str) -> None:
    content, white = WHITES[name]
    assert reader_of(written(tmp_path / name, content)).white() == white


REFUSED = {
    "16 bits.ppm": (netpbm(RGB.astype(np.uint16) * 257, 65535), "several channels of more than 8 bits"),
    "12 bits.ppm": (netpbm(RGB.astype(np.uint16) * 16, 4095), "several channels of more than 8 bits"),
    "two.pgm": (netpbm(GREY, 255) * 2, "several images"),
    "above.pgm": (netpbm(GREY, 100), "holds 250, above the 100"),
    "above 12 bits.pgm": (netpbm(DEEP, 4095), "above the 4095"),
    "colour of 12 bits.jp2": (jp2(RGB.astype(np.uint16) * 16, 12), "several channels of 12 bits"),
    "9 bits.jp2": (jp2(DEEP >> 7, 9), "a channel of 9 bits"),  # which Pillow takes for 8
    "4 bits.jp2": (jp2(GREY >> 4, 4), "of 4 bits"),
    "signed.jp2": (jp2(GREY.astype(np.int16) - 100, 12), "signed"),
    "colours unknown.j2k": (saved(RGB, "JPEG2000", no_jp2=True), "which colours"),
    "huge.pgm": (b"P5 30000 30000 255\n", "too large an image"),
    "huge.tga": (bytes([0, 0, 3]) + bytes(9) + b"\x30\x75\x30\x75\x08\0", "too large an image"),
    "a phone's.jpg": (b"\0\0\0\x1cftypheic" + bytes(60), "AVIF or HEIC"),
    "a program.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not an image"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_whole_is_refused_by_name(tmp_path: Path, name: str) -> None:
    content, said = REFUSED[name]
    path = written(tmp_path / name, content)
    with pytest.raises(VptError, match=said) as error:
        read_picture(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_file_cut_short_is_never_half_read(tmp_path: Path, name: str, share: float) -> None:
    content, _ = EXACT[name]
    with pytest.raises(VptError):
        read_picture(written(tmp_path / name, content[: int(len(content) * share)]))


MASKS = {
    "0 to 255.pgm": netpbm(LABELS, 255),
    "0 to 65535.pgm": netpbm(LABELS, 65535),
    "as much as there is.pgm": netpbm(LABELS, 2),
    "100.pgm": netpbm(LABELS, 100),
    "12 bits.pgm": netpbm(LABELS, 4095),
    "as text.pgm": text(LABELS, 2),
    "grey.tga": saved(LABELS, "TGA"),
}


@pytest.mark.parametrize("name", MASKS)
def test_ids_of_a_mask_are_as_they_are_stored(tmp_path: Path, name: str) -> None:
    assert np.array_equal(read_mask(written(tmp_path / name, MASKS[name])), LABELS)


def test_a_mask_in_jpeg_2000_is_refused_since_nothing_says_that_it_is_exact(tmp_path: Path) -> None:
    with pytest.raises(VptError, match="JPEG 2000"):
        read_mask(written(tmp_path / "a.jp2", saved(LABELS, "JPEG2000")))


@pytest.mark.parametrize(("image", "mask"), [("pgm", "pgm"), ("jp2", "png"), ("tga", "tga"), ("j2k", "pgm")])
def test_a_set_of_them_is_ready_to_train(tmp_path: Path, image: str, mask: str) -> None:
    form = {"pgm": "PPM", "jp2": "JPEG2000", "j2k": "JPEG2000", "tga": "TGA", "png": "PNG"}
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for k in range(6):
        noisy = np.random.default_rng(k).integers(0, 200, LABELS.shape).astype(np.uint8) + 20 * LABELS
        Image.fromarray(noisy).save(tmp_path / f"images/{k}.{image}", form[image])
        Image.fromarray(np.roll(LABELS, k, 0)).save(tmp_path / f"masks/{k}.{mask}", form[mask])

    found = check_dataset(tmp_path)

    assert not found.problems
    assert [label.cases for label in found.labels] == [6, 6]


@pytest.mark.parametrize("length", [2**31, 2**32 - 1])
def test_a_part_that_claims_more_than_the_file_has_takes_no_memory(tmp_path: Path, length: int) -> None:
    """Pillow asks for as many bytes as a box of JP2 says that it has."""
    content = saved(RGB, "JPEG2000")
    at = content.index(b"jp2h") - 4
    path = written(tmp_path / "a.jp2", content[:at] + length.to_bytes(4, "big") + content[at + 4 :])
    with pytest.raises(VptError, match=r"a\.jp2: truncated or damaged \(its part b'jp2h' is longer than the file\)"):
        read_picture(path)
