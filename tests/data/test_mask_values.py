"""What the values of a set's masks mean is told from all of them, and what is no label is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image, ImageFilter

from vpt.data.check import check_dataset
from vpt.data.doubts.mask_values import MaskValues, SeenMask
from vpt.data.label_maps import read_label
from vpt.data.layouts import read_dataset, survey
from vpt.data.mask_colours import require_one_numbering
from vpt.errors import VptError
from vpt.readers import ColourMask, reader_of

SIZE = (48, 64)
RED, GREEN, BLACK, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 0), (255, 255, 255)

Draw = Callable[[int], Image.Image]


def ids(number: int) -> np.ndarray:
    """(48, 64) label ids: 0, a box of 1 that moves with the number, and another one of 2."""
    found = np.zeros(SIZE, np.uint8)
    found[5 + 2 * number : 21 + 2 * number, 8:24] = 1
    found[10:24, 36 + number : 56] = 2
    return found


def binary(number: int, value: int = 255) -> np.ndarray:
    return (ids(number) == 1).astype(np.uint8) * np.uint8(value)


def in_palette(pixels: np.ndarray, *colours: tuple[int, int, int]) -> Image.Image:
    image = Image.fromarray(pixels, mode="P")
    image.putpalette([value for colour in colours for value in colour])
    return image


def in_colours(pixels: np.ndarray, *colours: tuple[int, int, int]) -> Image.Image:
    return Image.fromarray(np.array(colours, np.uint8)[pixels])


@pytest.fixture
def make_masks(tmp_path: Path) -> Callable[..., Path]:
    """make_masks(draw, cases=4, ending="png", **options): a data set whose masks are `draw(number)`, saved so."""

    def make(draw: Draw, cases: int = 4, ending: str = "png", **options: object) -> Path:
        root = tmp_path / "set"
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True)
        for number in range(cases):
            pixels = np.random.default_rng(number).integers(20, 200, SIZE).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"images/c{number}.png")
            draw(number).save(root / f"masks/c{number}.{ending}", **options)
        return root

    return make


def refusals(root: Path) -> str:
    """What `vpt check` and reading for training say alike."""
    try:
        said = [error.text for error in check_dataset(root).errors]
    except VptError as error:  # too many values for a check of the cases
        said = [str(error).partition(": ")[2]]
    with pytest.raises(VptError) as refused:
        read_dataset(root)
    assert str(refused.value).replace(f"{root}/", "").partition(": ")[2].startswith(said[0].replace(f"{root}/", ""))
    return said[0]


# --- shades -----------------------------------------------------------------------------------------------------------


def shrunk(how: Image.Resampling) -> Draw:
    big = [Image.fromarray(binary(number)).resize((150, 113), Image.Resampling.NEAREST) for number in range(4)]
    return lambda number: big[number].resize((64, 48), how)


def through_jpeg(tmp_path: Path, quality: int) -> Draw:
    def draw(number: int) -> Image.Image:
        Image.fromarray(binary(number)).save(tmp_path / "through.jpg", quality=quality)
        return Image.open(tmp_path / "through.jpg").convert("L")

    return draw


SHADED: dict[str, Callable[[Path], Draw]] = {
    "bilinear": lambda _: shrunk(Image.Resampling.BILINEAR),
    "box": lambda _: (
        lambda n: (
            Image.fromarray(binary(n)).resize((32, 24), Image.Resampling.BOX).resize((64, 48), 0)
            if n > 2
            else shrunk(Image.Resampling.BOX)(n)
        )
    ),
    "blurred": lambda _: lambda n: Image.fromarray(binary(n)).filter(ImageFilter.BoxBlur(1)),
    "turned": lambda _: (
        lambda n: Image.fromarray(binary(n)).rotate(17, Image.Resampling.BILINEAR).quantize(12).convert("L")
    ),
    "labels": lambda _: lambda n: Image.fromarray(ids(n) * np.uint8(120)).filter(ImageFilter.BoxBlur(1)),
    "jpeg 95": lambda path: through_jpeg(path, 95),
    "jpeg 90": lambda path: through_jpeg(path, 90),
    "a value here and there": lambda _: lambda n: Image.fromarray(speckled(n, 255)),
    "the same beside 16 bits": lambda _: lambda n: Image.fromarray(speckled(n, 40_000)),
}


def speckled(number: int, large: int) -> np.ndarray:
    """A label, and around it single pixels of 3."""
    found = np.where(ids(number) == 1, large, 0).astype(np.uint16 if large > 255 else np.uint8)
    found[np.random.default_rng(number).random(SIZE) > 0.98] = 3
    return found


@pytest.mark.parametrize("how", SHADED)
def test_shades_are_refused_by_their_pattern(make_masks, tmp_path, how):
    root = make_masks(SHADED[how](tmp_path))
    said = refusals(root)
    assert "which lie at the edges of other labels, as interpolation or a lossy format (JPEG, WebP) leaves" in said or (
        "shades at the edges of labels are left by interpolation and lossy formats" in said
    )
    assert "nearest neighbour" in said or "threshold soft masks" in said


LABELS: dict[str, Draw] = {
    "consecutive": lambda n: Image.fromarray(ids(n)),
    "spread": lambda n: Image.fromarray(ids(n) * np.uint8(127)),
    "thin rim": lambda n: Image.fromarray(
        np.maximum(np.array(Image.fromarray(binary(n, 2)).filter(ImageFilter.MinFilter(3))), binary(n, 1))
    ),
    "ignored border": lambda n: Image.fromarray(np.where(ids(n) == 2, 255, ids(n) * 1).astype(np.uint8)),
    "neighbours": lambda n: Image.fromarray(ids(n) + np.uint8(10) * (ids(n) > 0)),
    "a point": lambda n: Image.fromarray(np.where(np.arange(64 * 48).reshape(SIZE) == 5, 3, ids(n)).astype(np.uint8)),
    "partly": lambda n: Image.fromarray(ids(n) * (ids(n) == 1 + n % 2)),
    "small beside white": lambda n: Image.fromarray(small_ones(n, 255, 7)),
    "two small beside 16 bits": lambda n: Image.fromarray(small_ones(n, 40_000, 7, 3)),
}


def small_ones(number: int, large: int, *small: int) -> np.ndarray:
    """A large label, and squares of 4 x 4 pixels of others."""
    found = np.where(ids(number) == 2, large, 0).astype(np.uint16 if large > 255 else np.uint8)
    for k, value in enumerate(small):
        found[40:44, 4 + 8 * k : 8 + 8 * k] = value
    return found


@pytest.mark.parametrize("how", LABELS)
def test_labels_are_no_shades(make_masks, how):
    assert survey(make_masks(LABELS[how]))[1] == []


def test_labels_that_are_named_are_believed_and_shades_beside_them_are_not(make_masks):
    root = make_masks(SHADED["blurred"](Path()))
    names = {"background": 0, "object": 255}
    (root / "dataset.json").write_text(json.dumps({"labels": names}))
    assert all("they lie at the edges of other labels" in error.text for error in check_dataset(root).errors)
    assert len(check_dataset(root).errors) == 4
    values = sorted(
        {*np.unique(np.stack([np.array(Image.open(path)) for path in (root / "masks").iterdir()])).tolist()}
    )
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0} | {f"v{v}": v for v in values if v}}))
    assert check_dataset(root).ok


# --- lossy files ------------------------------------------------------------------------------------------------------

LOSSY = {
    "JPEG in a .png": ("png", {"format": "JPEG"}, "JPEG by its content"),
    "JPEG in a .bmp": ("bmp", {"format": "JPEG", "quality": 40}, "JPEG by its content"),
    "WebP": ("webp", {}, "lossy WebP by its content"),
    "WebP in a .png": ("png", {"format": "WEBP", "quality": 95}, "lossy WebP by its content"),
    "JPEG in TIFF": ("tif", {"compression": "jpeg"}, "TIFF with JPEG or WebP compression by its content"),
}


@pytest.mark.parametrize("how", LOSSY)
def test_lossy_files_are_told_by_their_content(make_masks, how):
    ending, options, said = LOSSY[how]
    root = make_masks(lambda n: Image.fromarray(binary(n)), ending=ending, **options)
    for call in (check_dataset, read_dataset):
        with pytest.raises(VptError, match=rf"masks/c0\.{ending}: {said}.* threshold it .*save that as PNG"):
            call(root)


def test_lossless_webp_is_read_and_a_jpg_only_in_black_and_white(make_masks, tmp_path):
    root = make_masks(lambda n: Image.fromarray(ids(n)).convert("RGB"), ending="webp", lossless=True)
    assert list(read_dataset(root).labels) == [0, 1, 2]
    mask = tmp_path / "m.jpg"
    Image.fromarray(ids(0) * np.uint8(120)).save(mask)
    with pytest.raises(VptError, match=r"m\.jpg: a JPEG with areas of grey \(.*%.*\), expected black and white"):
        reader_of(mask).labels()


# --- written in two ways ----------------------------------------------------------------------------------------------

TWO_WAYS: dict[str, Draw] = {
    "1 and 255": lambda n: Image.fromarray(binary(n, (1, 255)[n % 2])),
    "one of many": lambda n: Image.fromarray(binary(n, 1 if n == 3 else 255)),
    "1 bit and 0, 1": lambda n: Image.fromarray(binary(n, 1)) if n % 2 else Image.fromarray(binary(n) > 0),
    "8 and 16 bits": lambda n: Image.fromarray(binary(n, 1).astype(np.uint16) * (65535 if n % 2 else 255)),
    "1 and 65535": lambda n: Image.fromarray(binary(n, 1).astype(np.uint16) * (65535 if n % 2 else 1)),
    "two labels": lambda n: Image.fromarray(ids(n) * np.uint8(127 if n % 2 else 1)),
    "some empty": lambda n: Image.fromarray(binary(n, (0, 1, 255, 0)[n])),
}


@pytest.mark.parametrize("how", TWO_WAYS)
def test_one_label_written_in_two_ways_is_refused(make_masks, how):
    said = refusals(make_masks(TWO_WAYS[how]))
    assert "likely the same labels, written in two ways; write all masks alike" in said


def test_two_ways_that_are_named_are_two_labels(make_masks):
    root = make_masks(TWO_WAYS["1 and 255"])
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "one": 1, "other": 255}}))
    assert survey(root)[1] == []


# --- colours ----------------------------------------------------------------------------------------------------------

SWAPPED = np.array([1, 0, 2], np.uint8)
BY_COLOUR: dict[str, Draw] = {
    "palettes in another order": lambda n: (
        in_palette(ids(n), BLACK, RED, GREEN)
        if n % 2
        else in_palette(np.array([2, 0, 1], np.uint8)[ids(n)], RED, GREEN, BLACK)
    ),
    "background last in one": lambda n: (
        in_palette(SWAPPED[ids(n)], RED, BLACK, GREEN) if n == 2 else in_palette(ids(n), BLACK, RED, GREEN)
    ),
    "trimmed palettes": lambda n: (
        in_palette(ids(n), BLACK, RED, GREEN) if n % 2 else in_palette((ids(n) == 2).astype(np.uint8), BLACK, GREEN)
    ),
    "colours": lambda n: in_colours(ids(n), BLACK, RED, GREEN),
    "colours and palettes": lambda n: (
        in_colours(ids(n), BLACK, RED, GREEN) if n % 2 else in_palette(ids(n), BLACK, RED, GREEN)
    ),
    "alpha": lambda n: in_colours(ids(n), BLACK, RED, GREEN).convert("RGBA"),
}


@pytest.mark.parametrize("how", BY_COLOUR)
def test_colours_are_the_same_labels_in_every_file(make_masks, how):
    dataset = read_dataset(make_masks(BY_COLOUR[how]))
    of = {id: name for id, name in dataset.labels.items() if id}
    assert set(of.values()) == {"#ff0000", "#00ff00"}
    red, green = (next(id for id in of if of[id] == name) for name in ("#ff0000", "#00ff00"))
    for number, case in enumerate(dataset.cases):
        assert isinstance(case.label, ColourMask)
        found = read_label(case.label, dataset.labels, None, case.name).array[..., 0].T
        if not (how == "trimmed palettes" and number % 2 == 0):
            assert np.array_equal(found == red, ids(number) == 1)
        assert np.array_equal(found == green, ids(number) == 2)


def test_the_numbers_that_most_palettes_have_stay_and_the_check_says_it(make_masks):
    root = make_masks(BY_COLOUR["background last in one"])
    assert read_dataset(root).labels == {0: "background", 1: "#ff0000", 2: "#00ff00"}
    assert [warning.text for warning in check_dataset(root).warnings] == [
        "read by their colours, since their palettes' numbers differ or they have none: "
        "#000000 is 0, #ff0000 is 1, #00ff00 is 2; say so in the names under `labels`"
    ]


def test_one_palette_for_all_keeps_its_numbers(make_masks):
    dataset = read_dataset(make_masks(lambda n: in_palette(ids(n), BLACK, GREEN, RED)))
    assert dataset.labels == {0: "background", 1: "label 1", 2: "label 2"}
    assert all(isinstance(case.label, Path) for case in dataset.cases)


DIFFER: dict[str, Draw] = {
    "grey and colour": lambda n: in_palette(binary(n, 1), BLACK, RED if n % 2 else WHITE),
    "two tints": lambda n: in_palette(binary(n, 1), BLACK, RED if n % 2 else (250, 0, 0)),
    "one in another tint": lambda n: in_palette(ids(n), BLACK, RED, GREEN if n < 3 else (0, 128, 0)),
    "other backgrounds": lambda n: in_palette(binary(n, 1), BLACK if n % 2 else (9, 9, 9), RED),
    "grey values beside": lambda n: (
        Image.fromarray(ids(n))
        if n == 3
        else in_palette(ids(n), BLACK, RED, GREEN)
        if n % 2
        else in_palette(SWAPPED[ids(n)], RED, BLACK, GREEN)
    ),
}


@pytest.mark.parametrize("how", DIFFER)
def test_palettes_that_cannot_be_read_alike_are_refused(make_masks, how):
    root = make_masks(DIFFER[how])
    for call in (check_dataset, read_dataset):
        with pytest.raises(
            VptError, match=r"masks: the palettes differ between files.*save all masks with one palette"
        ):
            call(root)


def test_colours_without_black_or_with_shades_are_refused(make_masks, tmp_path):
    root = make_masks(lambda n: in_colours(ids(n), (0, 0, 90), RED, GREEN))
    with pytest.raises(
        VptError, match="the masks' colours are #00005a, #00ff00, #ff0000, without black for the backgr"
    ):
        read_dataset(root)
    for number in range(4):
        shaded = in_colours(ids(number), BLACK, RED, GREEN)
        shaded.putpixel((8, 5 + 2 * number), (128, 0, 0))
        shaded.save(root / f"masks/c{number}.png")
    with pytest.raises(
        VptError, match="colours #800000 lie at the edges of other labels only, as interpolation leaves"
    ):
        read_dataset(root)


def test_a_colour_that_is_no_label_is_told(tmp_path):
    in_colours(ids(0), BLACK, RED, GREEN).save(tmp_path / "m.png")
    with pytest.raises(VptError, match=r"m\.png: the colour #00ff00 is not in #000000, #ff0000; correct the mask"):
        reader_of(ColourMask(tmp_path / "m.png", ((BLACK, 0), (RED, 1)))).labels()


# --- a background that is not 0 ---------------------------------------------------------------------------------------

NOT_ZERO: dict[str, tuple[Draw, str]] = {
    "1 and 2 only": (
        lambda n: Image.fromarray(binary(n, 1) + np.uint8(1)),
        "no pixel is 0, which stands for the backgr",
    ),
    "2 outside": (
        lambda n: Image.fromarray(np.uint8(2) - binary(n, 1)),
        "no pixel is 0, which stands for the background",
    ),
    "255 outside": (
        lambda n: Image.fromarray(np.uint8(255) - binary(n)),
        "label 255 (object) lies along 100% of the edges",
    ),
    "1 outside": (
        lambda n: Image.fromarray(np.uint8(1) - binary(n, 1)),
        "label 1 (object) lies along 100% of the edges",
    ),
    "100 around two": (
        lambda n: Image.fromarray(np.array([100, 0, 5], np.uint8)[ids(n)]),
        "label 100 (label 100) lies",
    ),
}


@pytest.mark.parametrize("how", NOT_ZERO)
def test_a_background_that_is_not_0_is_a_doubt(make_masks, how):
    draw, said = NOT_ZERO[how]
    check = check_dataset(make_masks(draw))
    assert check.ok
    assert any(warning.text.startswith(said) for warning in check.warnings), check.warnings


def test_a_label_at_the_edge_of_some_is_no_doubt(make_masks):
    root = make_masks(lambda n: Image.fromarray(np.roll(ids(n), 8 * n, axis=1)))
    assert check_dataset(root).warnings == ()


# --- black is the background, whatever its number ---------------------------------------------------------------------


def shares(root: Path) -> dict[str, float]:
    """Name of each label -> its mean share of the pixels, in percent."""
    return {label.name: round(100 * label.mean_share, 1) for label in check_dataset(root).labels}


BOX = round(100 * 16 * 16 / (SIZE[0] * SIZE[1]), 1)


@pytest.mark.parametrize(
    ("draw", "ending"),
    [
        (lambda k: in_palette((binary(k) == 0).astype(np.uint8), RED, BLACK), "png"),
        (lambda k: in_palette((binary(k) == 0).astype(np.uint8), RED, BLACK), "bmp"),
        (lambda k: in_palette((binary(k) == 0).astype(np.uint8) * 7, RED, *[GREEN] * 6, BLACK), "tif"),
        (lambda k: in_colours(binary(k, 1), BLACK, RED), "gif"),  # which Pillow gives a palette, sorted
        (lambda k: in_colours(binary(k, 1), BLACK, RED).quantize(4), "png"),
        (lambda k: in_palette((binary(k) == 0).astype(np.uint8), WHITE, BLACK), "png"),  # grey: by its values
    ],
)
def test_black_is_the_background_also_where_it_has_another_number(make_masks, draw, ending):
    assert shares(make_masks(draw, ending=ending)) == {"object": BOX}


def test_black_that_has_two_numbers_is_the_background_in_all_files(make_masks):
    root = make_masks(lambda k: in_palette(binary(k, 2) + np.uint8(k % 2) * (binary(k, 2) == 0), BLACK, BLACK, RED))
    assert shares(root) == {"object": BOX}
    with pytest.raises(VptError, match=r"black, the background, is another number than 0 in it, and 0 in other masks"):
        require_one_numbering(sorted((root / "masks").iterdir()))


@pytest.mark.parametrize("second", [RED, BLACK])
def test_a_palette_that_lists_a_colour_twice_is_read_by_its_numbers(make_masks, second):
    root = make_masks(lambda k: in_palette(ids(k), BLACK, RED, second))
    assert read_dataset(root).labels == {0: "background", 1: "label 1", 2: "label 2"}
    assert not [each for each in check_dataset(root).warnings if "by their colours" in each.text]


def test_names_of_labels_stand_beside_the_colours_that_they_are_given_to(make_masks):
    root = make_masks(lambda k: in_colours(ids(k), BLACK, RED, GREEN))
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "tumour": 1, "organ": 2}}))
    said = next(each.text for each in check_dataset(root).warnings if "by their colours" in each.text)
    assert "#000000 is 0, #00ff00 is 1 (tumour), #ff0000 is 2 (organ)" in said


# --- one label, written in two ways -----------------------------------------------------------------------------------


def wide(number: int, value: int) -> Image.Image:
    return Image.fromarray(binary(number, 1).astype(np.uint16) * np.uint16(value))


@pytest.mark.parametrize(
    "draw",
    [
        lambda k: Image.fromarray(binary(k, 255 - k % 2)),
        lambda k: Image.fromarray(binary(k, (255, 250)[k % 2])),
        lambda k: wide(k, (255, 65535)[k % 2]),
        lambda k: wide(k, (255, 65280)[k % 2]),
        lambda k: wide(k, (4095, 65535)[k % 2]),
        lambda k: Image.fromarray(binary(k) if k % 2 else ids(k)),  # 255 in some, 1 and 2 in others
    ],
)
def test_white_of_several_depths_is_likely_one_label(make_masks, draw):
    assert any("likely the same labels, written in" in str(problem) for problem in survey(make_masks(draw))[1])


def test_the_example_of_what_to_write_is_of_the_masks_own_values(make_masks):
    said = [
        str(problem) for problem in survey(make_masks(lambda k: Image.fromarray(binary(k, 254 if k == 3 else 255))))[1]
    ]

    assert any(" holds 254, but " in one and "(for instance every 254 as 255)" in one for one in said)


@pytest.mark.parametrize("values", [(128, 255), (100, 200), (1, 2), (4, 9)])
def test_a_class_in_each_image_is_no_such_doubt(make_masks, values):
    assert survey(make_masks(lambda k: Image.fromarray(binary(k, values[k % 2]))))[1] == []


# --- inverted in part -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inverted", [{1}, {0, 2}, {0, 1, 3}])
@pytest.mark.parametrize("value", [1, 255])
def test_masks_that_are_inverted_among_others_are_named(make_masks, inverted, value):
    root = make_masks(
        lambda k: Image.fromarray(value - binary(k, value) if k in inverted else binary(k, value)), cases=6
    )
    said = [each.text for each in check_dataset(root).warnings if "inverted" in each.text]
    assert len(said) == 1
    assert said[0].startswith(
        f"{len(inverted)} of 6 masks ({', '.join(f'c{k}' for k in sorted(inverted))}) have a label"
    )


def test_an_object_that_reaches_the_edges_is_not_inverted(make_masks):
    def near(k: int) -> Image.Image:
        pixels = binary(k)
        pixels[:, :40] = 255  # along more than half of the edge
        return Image.fromarray(pixels)

    root = make_masks(lambda k: near(k) if k == 1 else Image.fromarray(binary(k)), cases=6)
    assert not [each.text for each in check_dataset(root).warnings if "inverted" in each.text]


def test_label_maps_of_volumes_may_all_be_full(make_dataset):
    """As those of tissue are."""
    root = make_dataset()
    for path in (root / "labelsTr").iterdir():
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.maximum(np.asarray(image.dataobj), 1), image.affine), path)
    assert not [each.text for each in check_dataset(root).warnings if "are they inverted" in each.text]


# --- ids below 0 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [(-1, 1), (1, -1), (-100, 1), (-1, -2), (-32768, 1)])
def test_ids_below_0_are_refused_wherever_they_are_read(make_dataset, values):
    root = make_dataset()
    for path in (root / "labelsTr").iterdir():
        image = nib.load(path)
        ids_of = np.array([0, *values], np.int16)[np.asarray(image.dataobj)]
        nib.save(nib.Nifti1Image(ids_of, image.affine), path)
    sentence = f"holds {', '.join(map(str, sorted(v for v in values if v < 0)))}, expected label ids of 0 and above"
    assert all(each.text.startswith(sentence) and "`ignore`" in each.text for each in check_dataset(root).errors)
    assert len(check_dataset(root).errors) == 4
    for number in range(4):  # and where nothing names the labels
        (root / f"imagesTr/case_{number:02d}_0000.nii.gz").rename(root / f"p{number}_T1.nii.gz")
        (root / f"labelsTr/case_{number:02d}.nii.gz").rename(root / f"p{number}_seg.nii.gz")
    (root / "dataset.json").unlink()
    with pytest.raises(VptError, match=r"p0_seg\.nii\.gz: holds -"):
        read_dataset(root)


# --- TIFF of floats ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [(0, 1, 2), (0, 255, 128), (0, 3000, 70000)])
def test_whole_numbers_that_are_stored_as_floats_are_ids(make_masks, values):
    root = make_masks(lambda n: Image.fromarray(np.array(values, np.float32)[ids(n)]), ending="tif")
    assert [*read_dataset(root).labels] == sorted(values)
    assert np.array_equal(reader_of(root / "masks/c1.tif").labels().array[..., 0].T, np.array(values)[ids(1)])


@pytest.mark.parametrize("odd", [0.5, float("nan"), float("inf"), -1.0, 2.0**25])
def test_other_floats_are_none(make_masks, odd):
    root = make_masks(lambda n: Image.fromarray(np.array([0, 1, odd], np.float32)[ids(n)]), ending="tif")
    with pytest.raises(VptError, match=r"c0\.tif: holds float32 values such as .*, whole numbers from 0 on; threshold"):
        read_dataset(root)


# --- several masks of one name, and files that name their values ------------------------------------------------------


def seen(*held: int, names: tuple[tuple[int, str], ...] = ()) -> SeenMask:
    return SeenMask(frozenset(held), dict.fromkeys(held, (100, 80, 0)), names)


def test_masks_of_one_name_all_count():
    values = MaskValues(Path("set"))
    for held in ((1,), (2,), (1, 3)):
        values.add("segmentation.nii.gz", seen(*held))
    assert values.ids == {1, 2, 3}


def test_values_that_files_call_differently_are_refused():
    values = MaskValues(Path("set"))
    values.add("a.seg.nrrd", seen(1, 2, names=((1, "liver"), (2, "tumour"))))
    values.add("b.seg.nrrd", seen(1, names=((1, "Liver"), (2, "liver"))))  # of what it does not hold nothing is said
    assert values.problems() == []
    values.add("c.seg.nrrd", seen(2, names=((2, "liver"),)))
    (problem,) = values.problems()
    assert str(problem).startswith("set: segment 2 is called tumour in a.seg.nrrd and liver in c.seg.nrrd, so")


def test_ids_in_one_channel_are_no_grey(make_masks, tmp_path):
    red = tuple((id, 0, 0) for id in range(3))
    for draw in (lambda number: in_colours(ids(number) % 3, *red), lambda number: in_palette(ids(number) % 3, *red)):
        root = make_masks(draw)
        dataset = read_dataset(root)
        found = {id for case in dataset.cases for id in reader_of(case.label).labels().ids}
        assert found == {0, 1, 2}
        assert np.array_equal(reader_of(dataset.cases[0].label).labels().array[..., 0].T, ids(0) % 3)
        shutil.rmtree(root)
    in_colours(ids(0) % 3, *red).save(tmp_path / "red.png")
    with pytest.raises(VptError, match="a colour picture, expected one label id per pixel"):
        reader_of(tmp_path / "red.png").labels()
