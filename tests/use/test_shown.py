"""A mask from `segment` is a nibabel image that a notebook can show."""

from __future__ import annotations

import html.parser
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_run import ONE_STEP

import vpt
from vpt.artifact import find_artifact
from vpt.readers.shown import shown
from vpt.use.segmenter import Segmenter


@pytest.fixture(scope="module")
def segmenter(tiny_run: Path) -> Segmenter:
    loaded = vpt.load(find_artifact(tiny_run), device="cpu")
    assert isinstance(loaded, Segmenter)
    return loaded


@pytest.fixture(scope="module")
def of_images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Segmenter, np.ndarray]:
    """A model of images, and one that it is given."""
    root = tmp_path_factory.mktemp("flat")
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (root / "set" / name).mkdir(parents=True)
    for k in range(6):
        mask = np.zeros((40, 48), np.uint8)
        mask[8 : 24 + k, 10:30] = 255
        picture = rng.integers(0, 60, mask.shape, np.uint8) + mask // 2
        Image.fromarray(picture).save(root / f"set/images/{k}.png")
        Image.fromarray(mask).save(root / f"set/masks/{k}.png")
    run = vpt.train(root / "set", root / "run", overrides=ONE_STEP)
    loaded = vpt.load(run, device="cpu")
    assert isinstance(loaded, Segmenter)
    return loaded, picture


@pytest.fixture
def scan(tiny_data: Path) -> Path:
    return sorted((tiny_data / "imagesTr").iterdir())[0]


class Tags(html.parser.HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.slow
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_it_is_the_nibabel_image_that_it_was(segmenter: Segmenter, scan: Path, tmp_path: Path, kind: type) -> None:
    source = nib.load(scan)
    mask = segmenter.segment(kind(source.dataobj, source.affine, None))

    nib.save(mask, tmp_path / "mask.nii.gz")
    read = nib.load(tmp_path / "mask.nii.gz")

    assert isinstance(mask, vpt.Segmentation)
    assert isinstance(mask, kind)
    assert type(read) is kind
    assert read.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asanyarray(read.dataobj), np.asanyarray(mask.dataobj))
    np.testing.assert_array_equal(read.affine, source.affine)


@pytest.mark.slow
def test_its_volumes_are_those_of_its_voxels_in_ml(segmenter: Segmenter, scan: Path) -> None:
    mask = segmenter.segment(scan)
    voxels = np.asanyarray(mask.dataobj)
    ml = np.prod(nib.affines.voxel_sizes(mask.affine)) / 1000

    assert mask.volumes == {name: pytest.approx((voxels == k).sum() * ml) for k, name in segmenter.labels.items() if k}


def test_a_part_that_lost_the_names_has_its_volumes_by_id() -> None:
    ids = np.zeros((4, 5, 6), np.uint8)
    ids[1:3, 1:3, 2], ids[1, 1, 5] = 3, 1
    mask = shown(nib.Nifti1Image(ids, np.diag([1.0, 2.0, 5.0, 1.0])), {0: "background", 1: "a", 3: "b"}, lambda _: "")

    assert mask.volumes == pytest.approx({"a": 0.01, "b": 0.04})
    assert mask.slicer[:, :, :4].volumes == pytest.approx({"label 3": 0.04})


@pytest.mark.slow
def test_it_shows_three_planes_its_labels_and_their_volumes(segmenter: Segmenter, scan: Path) -> None:
    shown = segmenter.segment(scan)._repr_html_()
    tags = Tags(shown)

    assert tags.open == []
    assert tags.seen.count("figure") == 3
    assert "script" not in tags.seen
    assert all(name in shown for label, name in segmenter.labels.items() if label)


@pytest.mark.slow
def test_without_its_scan_it_shows_the_outlines_alone(segmenter: Segmenter, scan: Path, tmp_path: Path) -> None:
    copy = tmp_path / scan.name
    copy.write_bytes(scan.read_bytes())
    mask = segmenter.segment(copy)
    with_scan = mask._repr_html_()
    copy.unlink()

    assert 0 < len(mask._repr_html_()) < len(with_scan)
    assert mask.slicer[:1]._repr_html_() is None


# --- of images --------------------------------------------------------------------------------------------------------


def test_of_an_image_it_is_the_array_that_it_was() -> None:
    ids = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3
    mask = shown(ids, {0: "background", 1: "cup", 2: "disc"}, lambda _: "drawn")

    assert isinstance(mask, vpt.SegmentedImage)
    assert isinstance(mask, np.ndarray)
    assert (mask.dtype, mask.shape) == (np.uint8, (3, 4))
    assert type(np.asarray(mask)) is np.ndarray
    assert np.shares_memory(mask, ids)
    np.testing.assert_array_equal(torch.from_numpy(mask).numpy(), ids)
    np.testing.assert_array_equal(np.asarray(Image.fromarray(mask)), ids)
    assert mask.pixels == {"cup": 4, "disc": 4}
    assert mask._repr_html_() == "drawn"
    assert mask[1:]._repr_html_() is None
    assert (mask == 1)._repr_html_() is None


@pytest.mark.slow
def test_of_an_image_it_shows_the_picture_its_labels_and_their_pixels(of_images) -> None:
    segmenter, picture = of_images
    mask = segmenter.segment(picture)
    assert isinstance(mask, vpt.SegmentedImage)
    assert mask.shape == picture.shape
    (label,) = mask.pixels
    assert mask.pixels[label] == np.count_nonzero(np.asarray(mask))

    mask[...] = 0  # a mask that is changed is shown as it is now
    mask[5:15, 5:25] = next(id for id, name in segmenter.labels.items() if name == label)
    found = mask._repr_html_()
    tags = Tags(found)
    assert tags.open == []
    assert tags.seen.count("figure") == 1
    assert f"{label} 200 px" in found
    assert 'class="edge found"' in found
    assert "NaN" not in found


@pytest.mark.parametrize(("unit", "factor"), [("micron", 1000.0), ("mm", 1.0), ("meter", 0.001)])
def test_volumes_are_in_ml_whatever_unit_the_header_has(unit: str, factor: float) -> None:
    ids = np.zeros((4, 5, 6), np.uint8)
    ids[1:3, 1:3, 2] = 1
    image = nib.Nifti1Image(ids, np.diag([factor, 2 * factor, 5 * factor, 1.0]))
    image.header.set_xyzt_units(unit)

    assert shown(image, {0: "background", 1: "a"}, lambda _: "").volumes == pytest.approx({"a": 0.04})
