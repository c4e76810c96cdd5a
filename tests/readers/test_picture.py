"""An image file is what a viewer shows, a mask is its label ids; what is neither is said in one sentence."""

from __future__ import annotations

import io
import re
import struct
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vpt.errors import VptError
from vpt.readers import reader_of
from vpt.readers.picture import is_colour, is_deep, picture_size, read_mask, read_picture

GREY = np.arange(6 * 5, dtype=np.uint8).reshape(6, 5) * 8
RGB = np.stack([GREY, 255 - GREY, GREY // 2], axis=-1)


def saved(path: Path, pixels: np.ndarray | Image.Image, **options) -> Path:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def encoded(pixels: np.ndarray, form: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format=form)
    return out.getvalue()


# --- images -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "tiff", "PNG", "TIF"])
def test_pixels_of_lossless_files_are_exact_in_grey_and_colour(tmp_path, ending):
    grey, colour = saved(tmp_path / f"grey.{ending}", GREY), saved(tmp_path / f"colour.{ending}", RGB)
    assert np.array_equal(read_picture(grey), GREY[None])
    assert np.array_equal(read_picture(colour), RGB.transpose(2, 0, 1))
    assert (picture_size(grey), is_colour(grey), is_colour(colour)) == ((6, 5), False, True)


@pytest.mark.parametrize("ending", ["jpg", "jpeg", "webp"])
def test_lossy_files_are_near_and_grey_ones_stay_grey(tmp_path, ending):
    smooth = np.linspace(0, 255, 64, dtype=np.uint8)[None].repeat(48, 0)
    path = saved(tmp_path / f"a.{ending}", np.stack([smooth] * 3, -1), quality=90)
    picture = read_picture(path)
    assert picture.shape == (1, 48, 64)
    assert np.abs(picture[0].astype(int) - smooth).mean() < 4
    assert not is_colour(path)


def test_whatever_the_mode_it_is_grey_or_colour(tmp_path):
    alpha = np.full((6, 5), 40, np.uint8)
    cases = {
        "1": (Image.fromarray(GREY > 99), np.where(GREY > 99, 255, 0)[None]),
        "la": (Image.fromarray(np.stack([GREY, alpha], -1)), GREY[None]),
        "rgba": (Image.fromarray(np.dstack([RGB, alpha])), RGB.transpose(2, 0, 1)),
        "grey_rgb": (Image.fromarray(np.stack([GREY] * 3, -1)), GREY[None]),
        "grey_rgba": (Image.fromarray(np.dstack([GREY, GREY, GREY, alpha])), GREY[None]),
        "palette": (Image.fromarray(RGB).quantize(256), RGB.transpose(2, 0, 1)),
        "grey_palette": (Image.fromarray(GREY).convert("P"), GREY[None]),
    }
    for name, (image, expected) in cases.items():
        found = read_picture(saved(tmp_path / f"{name}.png", image))
        assert found.dtype == np.uint8, name
        assert np.array_equal(found, expected), name


def test_cmyk_becomes_the_colours_that_are_seen(tmp_path):
    ink = np.zeros((4, 4, 4), np.uint8)
    ink[..., 1:3] = 255  # magenta and yellow are red
    found = read_picture(saved(tmp_path / "a.tif", Image.fromarray(ink, mode="CMYK")))
    assert found.shape == (3, 4, 4)
    assert found[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_are_kept(tmp_path, ending):
    deep = np.arange(30, dtype=np.uint16).reshape(6, 5) * 2000
    path = saved(tmp_path / f"deep.{ending}", deep)
    assert read_picture(path).dtype == np.uint16
    assert np.array_equal(read_picture(path), deep[None])
    assert is_deep(path)
    assert not is_deep(saved(tmp_path / "shallow.png", GREY))
    assert not is_colour(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_image_mask_and_size(tmp_path, orientation):
    turns = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"}
    turns |= {6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90"}
    seen = Image.fromarray(GREY)
    if orientation > 1:
        seen = seen.transpose(Image.Transpose[turns[orientation]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "a.png", GREY, exif=exif)
    assert np.array_equal(read_picture(path)[0], np.array(seen))
    assert np.array_equal(read_mask(path), np.array(seen))
    assert picture_size(path) == np.array(seen).shape


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_a_turned_tiff_is_turned_once_whether_it_is_packed_or_not(tmp_path, orientation, compression):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "a.tif", GREY, exif=exif, compression=compression)
    turned = read_picture(saved(tmp_path / "a.png", GREY, exif=exif))
    assert np.array_equal(read_picture(path), turned)
    assert picture_size(path) == turned.shape[1:]
    assert reader_of(path).orientation() == orientation


@pytest.mark.parametrize("name", ["rgb.png", "rgba.png", "rgb.tif"])
def test_several_channels_of_sixteen_bits_are_refused_not_cut(tmp_path, name):
    channels = 4 if "rgba" in name else 3
    pixels = np.random.default_rng(0).integers(0, 65535, (6, 5, channels)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / name), pixels)
    for read in (read_picture, read_mask):
        with pytest.raises(
            VptError, match=r"several channels of more than 8 bits .*save it as 8-bit colour, or as 16-bit"
        ):
            read(tmp_path / name)


# --- damaged files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [read_picture, read_mask, picture_size, is_colour])
def test_files_that_are_no_images_are_refused_by_name(tmp_path, read):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no image at all")
    (tmp_path / "folder.png").mkdir()
    for name, sentence in {
        "empty.png": "an empty file, expected an image; copy or export it again",
        "text.png": "not an image, or damaged in its header; export it again as PNG",
        "folder.png": "a folder, expected an image file",
        "gone.png": "no such file, expected an image file",
    }.items():
        with pytest.raises(VptError, match=f"{name}: {sentence}"):
            read(tmp_path / name)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
@given(share=st.floats(0.01, 0.95))
@settings(max_examples=40, deadline=None)
def test_a_file_cut_short_is_refused_never_half_read(tmp_path_factory, form, share):
    noise = np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)
    content = encoded(noise, form)
    path = tmp_path_factory.mktemp("cut") / f"a.{form.lower()}"
    path.write_bytes(content[: max(1, int(share * len(content)))])
    with pytest.raises(VptError, match=rf"a\.{form.lower()}: (truncated|not an image)"):
        read_picture(path)


@given(place=st.floats(0, 1), value=st.integers(0, 255))
@settings(max_examples=150, deadline=None)
def test_a_flipped_byte_gives_a_picture_or_one_sentence(tmp_path_factory, place, value):
    content = bytearray(encoded(RGB, "PNG"))
    content[int(place * (len(content) - 1))] = value
    path = tmp_path_factory.mktemp("bad") / "a.png"
    path.write_bytes(bytes(content))
    try:
        said = read_picture(path).ndim * "."
    except VptError as error:
        said = str(error)
    assert said == "..." or (said.startswith(f"{path}: ") and "\n" not in said)


def test_pages_and_huge_images_are_refused(tmp_path, monkeypatch):
    page = Image.fromarray(GREY)
    path = saved(tmp_path / "pages.tif", page, save_all=True, append_images=[page, page])
    with pytest.raises(VptError, match=r"pages\.tif: holds 3 pages, expected one image"):
        read_picture(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(VptError, match=r"a\.png: too large an image"):
        read_picture(saved(tmp_path / "a.png", GREY))


# --- masks ------------------------------------------------------------------------------------------------------------


def test_a_masks_ids_are_its_pixel_values(tmp_path):
    ids = np.array([[0, 1, 2], [7, 254, 255]], np.uint8)
    for pixels in (ids, np.stack([ids] * 3, -1), np.dstack([ids, ids, ids, ids // 2])):
        assert np.array_equal(read_mask(saved(tmp_path / "a.png", pixels)), ids)
    assert read_mask(saved(tmp_path / "one_bit.png", Image.fromarray(ids > 1))).tolist() == [[0, 0, 255], [255] * 3]


def test_a_palette_with_colours_gives_indices_and_a_grey_one_its_values(tmp_path):
    image = Image.fromarray(np.array([[0, 1, 2], [2, 1, 0]], np.uint8), mode="P")
    image.putpalette([0, 0, 0, 128, 0, 0, 128, 128, 128])  # as VOC: black, dark red, grey
    assert read_mask(saved(tmp_path / "voc.png", image)).tolist() == [[0, 1, 2], [2, 1, 0]]
    only_grey = image.point([0, 2, 2] + [0] * 253)
    only_grey.putpalette([0, 0, 0, 128, 0, 0, 128, 128, 128])
    assert read_mask(saved(tmp_path / "part.png", only_grey)).max() == 2  # read as the others of its data set
    image.putpalette([0, 0, 0, 100, 100, 100, 255, 255, 255])
    assert read_mask(saved(tmp_path / "grey.png", image)).tolist() == [[0, 100, 255], [255, 100, 0]]


def test_jpeg_masks_are_thresholded(tmp_path):
    mask = np.zeros((32, 32), np.uint8)
    mask[8:20, 10:25] = 255
    for name, pixels in (("grey.jpg", mask), ("colour.jpeg", np.stack([mask] * 3, -1))):
        path = saved(tmp_path / name, pixels, quality=40)
        assert len(np.unique(np.array(Image.open(path)))) > 2  # it does hold values between
        found = read_mask(path)
        assert set(np.unique(found)) == {0, 255}
        assert (found == mask).mean() > 0.97


def test_masks_that_hold_no_ids_are_refused(tmp_path):
    with pytest.raises(VptError, match=r"a\.png: a colour picture, expected one label id per pixel; save it as grey"):
        read_mask(saved(tmp_path / "a.png", RGB))
    with pytest.raises(VptError, match=r"a\.tif: holds float32 values such as .*, expected label ids"):
        read_mask(saved(tmp_path / "a.tif", GREY.astype(np.float32) + 0.5))


def test_importing_loads_neither_torch_nor_pillow():
    heavy = {"torch", "monai", "PIL", "nibabel"}
    program = f"import sys, vpt.readers, vpt.data.layouts.image_folders; print(sorted({heavy} & {{*sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_colour_depth_and_loss_are_told_by_the_reader(tmp_path):
    grey_rgb = saved(tmp_path / "grey.png", np.stack([GREY] * 3, -1))
    colour, deep = saved(tmp_path / "colour.png", RGB), saved(tmp_path / "deep.png", GREY.astype(np.uint16))
    assert [reader_of(path).count_channels() for path in (grey_rgb, colour, deep)] == [1, 3, 1]
    assert [reader_of(path).count_channels(exact=False) for path in (grey_rgb, colour, deep)] == [3, 3, 1]
    assert [reader_of(path).is_deep() for path in (grey_rgb, colour, deep)] == [False, False, True]
    assert reader_of(saved(tmp_path / "a.JPG", GREY, format="JPEG")).is_lossy
    assert not reader_of(colour).is_lossy


# --- transparency, and white that is 0 --------------------------------------------------------------------------------

INSIDE = np.zeros((6, 5), bool)
INSIDE[1:4, 1:3] = True


def clear_outside(inside: object, outside: object) -> Image.Image:
    """Colours of the object and of what is transparent around it."""
    pixels = np.where(INSIDE[..., None], np.array(inside, np.uint8), np.array(outside, np.uint8))
    return Image.fromarray(np.dstack([pixels, np.where(INSIDE, 255, 0).astype(np.uint8)]))


@pytest.mark.parametrize(
    "image",
    [
        clear_outside((0, 0, 0), (0, 0, 0)),  # the mask is in the transparency alone
        clear_outside((255, 255, 255), (255, 255, 255)),
        clear_outside((9, 9, 9), (9, 9, 9)),
        clear_outside((0, 0, 0), (255, 255, 255)),
        clear_outside((255, 255, 255), (255, 255, 255)).convert("LA"),
        clear_outside((128, 128, 128), (255, 255, 255)).convert("LA"),
    ],
)
def test_a_mask_that_only_its_transparency_shows_is_refused(tmp_path, image):
    with pytest.raises(VptError, match=r"a\.png: a mask that is drawn with transparency .*-alpha extract"):
        read_mask(saved(tmp_path / "a.png", image))


def test_a_transparent_number_of_a_palette_other_than_0_is_refused(tmp_path):
    image = Image.fromarray(INSIDE.astype(np.uint8), mode="P")
    image.putpalette([0, 0, 0, 255, 0, 0])
    assert np.array_equal(read_mask(saved(tmp_path / "a.png", image, transparency=0)), INSIDE)
    with pytest.raises(VptError, match="drawn with transparency"):
        read_mask(saved(tmp_path / "b.png", image, transparency=1))


@pytest.mark.parametrize("alpha", [0, 40, 200, 255])
def test_transparency_that_says_what_the_values_say_changes_nothing(tmp_path, alpha):
    opaque = np.dstack([INSIDE * np.uint8(9)] * 3 + [np.full(INSIDE.shape, alpha, np.uint8)])
    assert np.array_equal(read_mask(saved(tmp_path / "a.png", opaque)), INSIDE * 9)
    assert np.array_equal(read_mask(saved(tmp_path / "b.png", clear_outside((9, 9, 9), (0, 0, 0)))), INSIDE * 9)


DRAWN = np.random.default_rng(3).integers(1, 255, (6, 5, 3), np.uint8)
HOLES = np.where(np.arange(5) < 2, 0, 255).astype(np.uint8) * np.ones((6, 1), np.uint8)


def with_alpha(pixels: np.ndarray, alpha: np.ndarray = HOLES) -> Image.Image:
    return Image.fromarray(np.dstack([pixels, alpha]))


@pytest.mark.parametrize(
    ("name", "image", "hides"),
    [
        ("a.png", with_alpha(DRAWN), True),
        ("a.webp", with_alpha(DRAWN), True),
        ("a.tif", with_alpha(DRAWN), True),
        ("grey.png", with_alpha(DRAWN[..., :1].repeat(3, 2)).convert("LA"), True),
        ("black.png", with_alpha(DRAWN * (HOLES > 0)[..., None]), False),
        ("white.png", with_alpha(np.where(HOLES[..., None] > 0, DRAWN, 255).astype(np.uint8)), False),
        ("opaque.png", with_alpha(DRAWN, np.full_like(HOLES, 255)), False),
        ("all.png", with_alpha(DRAWN, np.zeros_like(HOLES)), False),
        ("faint.png", with_alpha(DRAWN, np.full_like(HOLES, 40)), False),
        ("plain.png", Image.fromarray(DRAWN), False),
    ],
)
def test_what_transparency_hides_is_told(tmp_path, name, image, hides):
    saved(tmp_path / name, image, **({"lossless": True, "exact": True} if name.endswith("webp") else {}))
    for source in (tmp_path / name, image):
        told = [text for text in reader_of(source).doubts() if "mogrify -background black -alpha remove" in text]
        assert len(told) == hides


def tiff(path: Path, pixels: np.ndarray, photometric: int, bits: int) -> Path:
    """A grey TIFF of one strip; photometric: 0 where 0 is white, 1 where it is black."""
    content = pixels.astype("<u2" if bits == 16 else "u1").tobytes()
    fields = {256: pixels.shape[1], 257: pixels.shape[0], 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1}
    fields |= {278: pixels.shape[0], 279: len(content)}
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in fields.items())
    head = b"II*\0" + struct.pack("<I", 8 + len(content))
    path.write_bytes(head + content + struct.pack("<H", len(fields)) + entries + struct.pack("<I", 0))
    return path


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_whose_white_is_0_is_read_as_it_is_seen(tmp_path, bits):
    deep = GREY.astype(np.uint16) * (257 if bits == 16 else 1)
    as_seen = read_picture(tiff(tmp_path / "black.tif", deep, 1, bits))
    negative = tiff(tmp_path / "white.tif", 2**bits - 1 - deep, 0, bits)
    assert np.array_equal(as_seen[0], deep)
    assert np.array_equal(read_picture(negative), as_seen)
    assert np.array_equal(reader_of(Image.open(negative)).voxels(1).values(), as_seen.transpose(0, 2, 1)[..., None])


def jpeg_mask(path: Path, levels: dict[int, tuple[slice, slice]], quality: int = 90) -> Path:
    mask = np.zeros((128, 128), np.uint8)
    for level, place in levels.items():
        mask[place] = level
    return saved(path, Image.fromarray(mask), quality=quality)


def of_32_bits(path: Path, value: int, kind: str) -> Path:
    """A TIFF of 4 x 4 pixels with one of that value; kind: as numpy says it."""
    array = np.zeros((4, 4), kind)
    array[1, 2] = value
    bits, sign = 8 * array.itemsize, 2 if array.dtype.kind == "i" else 1
    size = [(256, 4), (257, 4), (258, bits), (259, 1), (262, 1), (273, 8), (277, 1), (278, 4), (279, array.nbytes)]
    tags = [*size, (339, sign)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, its) for tag, its in tags)
    start, count = struct.pack("<I", 8 + array.nbytes), struct.pack("<H", len(tags))
    path.write_bytes(b"II*\0" + start + array.tobytes() + count + entries + bytes(4))
    return path


def test_signed_tiffs_of_8_bits_are_refused_where_the_sign_counts(tmp_path):
    of_32_bits(tmp_path / "a.tif", -1, "i1")
    for read in (read_picture, read_mask):
        with pytest.raises(VptError, match=r"a\.tif: a TIFF of signed numbers of 8 bits, some below 0, .*; save it"):
            read(tmp_path / "a.tif")
    with Image.open(tmp_path / "a.tif") as image, pytest.raises(VptError, match="signed numbers of 8 bits"):
        reader_of(image).voxels(1)
    assert read_mask(of_32_bits(tmp_path / "c.tif", 1, "i1")).sum() == 1  # as NumPy's int8 masks are written
    assert read_picture(of_32_bits(tmp_path / "d.tif", 127, "i1")).max() == 127
    assert read_picture(of_32_bits(tmp_path / "b.tif", 200, "u1")).max() == 200


@pytest.mark.parametrize(
    ("value", "kind"), [(7, "<u4"), (70_000, "<u4"), (3_000_000_000, "<u4"), (70_000, "<i4"), (-1, "<i4"), (-1, "<i2")]
)
def test_ids_of_a_deep_tiff_are_those_that_were_written(tmp_path, value, kind):
    found = read_mask(of_32_bits(tmp_path / "a.tif", value, kind))
    assert (found[1, 2], np.count_nonzero(found)) == (value, 1)


@pytest.mark.parametrize(
    ("exif", "doubted"),
    [
        (b"Exif\0\0II*\0\xff\xff\xff\x7f", True),
        (b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01", True),
        (b"Exif\0\0nothing of the kind", True),
        (b"Exif\0\0", False),
        (b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0", False),
    ],
)
def test_damaged_exif_is_told_by_name_and_not_by_pillow(tmp_path, exif, doubted, recwarn):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    found = reader_of(tmp_path / "a.jpg").doubts()
    assert [text.startswith("its EXIF is damaged, so whether it is to be turned") for text in found] == [True] * doubted


def test_what_lies_in_the_place_of_an_image_is_told(tmp_path):
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "text.png").write_text("../elsewhere/text.png\n")
    (tmp_path / "page.png").write_text("https://x.org/page.png")
    for name, said in (
        ("gone.png", f"a link to {tmp_path / 'nowhere.png'}, which is not there, expected an image file"),
        ("text.png", "a link to ../elsewhere/text.png that a copy left as a text file; make it a link again"),
        ("page.png", "not an image, or damaged"),
    ):
        with pytest.raises(VptError, match=re.escape(f"{tmp_path / name}: {said}")):
            read_picture(tmp_path / name)


ONE, OTHER = (slice(20, 44), slice(20, 44)), (slice(70, 100), slice(70, 100))


@pytest.mark.parametrize(
    "levels", [(40, 255), (127, 255), (215, 255), (30, 255), (60, 120), (10, 30), (1,), (3,), (20,), (1, 2)]
)
def test_a_jpeg_with_more_than_black_and_white_is_refused(tmp_path, levels):
    with pytest.raises(
        VptError, match=r"a\.jpg: a JPEG (with areas of grey|whose brightest pixel is).*, expected black"
    ):
        read_mask(jpeg_mask(tmp_path / "a.jpg", dict(zip(levels, (ONE, OTHER), strict=False))))


@pytest.mark.parametrize("quality", [10, 30, 60, 95])
def test_a_jpeg_of_black_and_white_is_read_whatever_its_quality(tmp_path, quality):
    rows, columns = np.mgrid[:128, :128]
    for name, inside in (("disc", (rows - 50) ** 2 + (columns - 60) ** 2 < 900), ("lines", (rows + columns) % 37 < 3)):
        path = saved(
            tmp_path / f"{name}.jpg", Image.fromarray(np.where(inside, 255, 0).astype(np.uint8)), quality=quality
        )
        assert (read_mask(path) > 0).mean() == pytest.approx(inside.mean(), rel=0.15)
    assert not read_mask(jpeg_mask(tmp_path / "empty.jpg", {}, quality)).any()
