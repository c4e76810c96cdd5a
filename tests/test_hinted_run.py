"""Hints from a user, or from `--oracle-box`, to the mask: on the scan's own voxels, and never out of the reference."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from forwards import forward_of
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from PIL import Image
from plans import plan_with
from tiny_run import ONE_STEP, assert_same_run
from torch import Tensor

from vpt.building import build_model
from vpt.cli import main
from vpt.config import Config
from vpt.data.hints import BACKGROUND, FIRST_CORNER, FOREGROUND, LAST_CORNER, NOTHING
from vpt.data.plan import Percentiles, Plan, Window
from vpt.engine.run import train
from vpt.engine.signals import Interrupted
from vpt.errors import VptError
from vpt.model import PromptedModel
from vpt.tasks.batch import Batch, Output
from vpt.tasks.segmentation import segment_slices
from vpt.use.load import load
from vpt.use.runs import evaluate_run
from vpt.use.scored_splits import reference_box
from vpt.use.segmenter import Segmenter

CPU = torch.device("cpu")
HINTED: dict[str, Any] = ONE_STEP | {
    "backbone.name": "sam_micro",
    "head": {"kind": "sam_decoder", "hints": True},
    "plan.image_size": 64,
    "train.max_steps": 2,
    "optim.lr": 1e-5,  # so that the random start, whose masks are not empty, stays nearly as it is
    "optim.prompt_lr": 1e-5,
}


@pytest.fixture(scope="module")
def hinted_run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps whose model takes hints. Read only."""
    return train(tiny_data, tmp_path_factory.mktemp("hinted") / "run", overrides=HINTED)


@pytest.fixture(scope="module")
def segmenter(hinted_run: Path) -> Segmenter:
    return load(hinted_run, device="cpu")


@pytest.fixture
def run(hinted_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(hinted_run, tmp_path / "run")


def voxels(image: Any) -> np.ndarray:
    return np.asarray(image.dataobj)


# --- every slice is told its own --------------------------------------------------------------------------------------


def paint(images: Tensor, hints: Tensor) -> Tensor:
    """Images (B, 3, S, S), hints (B, N, 3) -> logits of two classes: the second one is the box of every image."""
    y, x = torch.meshgrid(*map(torch.arange, images.shape[-2:]), indexing="ij")
    inside = torch.zeros(len(images), *images.shape[-2:], dtype=torch.bool)
    for image, own in enumerate(hints):
        first, last = (own[own[:, 2] == kind] for kind in (FIRST_CORNER, LAST_CORNER))
        assert len(first) == len(last) <= 1
        for (x0, y0, _), (x1, y1, _) in zip(first, last, strict=True):
            inside[image] |= (x >= x0 - 0.5) & (x <= x1 + 0.5) & (y >= y0 - 0.5) & (y <= y1 + 0.5)
    signs = torch.where(inside, 1.0, -1.0)
    return torch.stack([torch.zeros_like(signs), signs], 1)


def boxes(depth: int, rows: int, columns: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hints (depth, 3, 3) with a box of its own on most slices, and the masks (depth, rows, columns) of these boxes."""
    rng = np.random.default_rng(seed)
    hints = np.full((depth, 3, 3), (0, 0, NOTHING), np.float32)
    masks = np.zeros((depth, rows, columns), np.uint8)
    for k in range(depth):
        if rng.random() < 0.2:
            continue
        x0, x1 = np.sort(rng.integers(0, columns, 2))
        y0, y1 = np.sort(rng.integers(0, rows, 2))
        hints[k, 1:] = (x0, y0, FIRST_CORNER), (x1, y1, LAST_CORNER)
        masks[k, y0 : y1 + 1, x0 : x1 + 1] = 1
    return hints, masks


@pytest.mark.parametrize("padding", ["centre", "corner"])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 32])
@pytest.mark.parametrize("shape", [(32, 32), (20, 27), (75, 60), (100, 20), (9, 50)])
def test_each_slice_has_its_own_box_whatever_the_batch_the_tiles_and_the_padding(shape, batch_size, padding):
    hints, expected = boxes(7, *shape, seed=sum(shape))
    found = segment_slices(
        forward_of(paint),
        np.zeros((7, 1, *shape), np.float32),
        plan_with(padding=padding),
        pixels=shape,
        device=CPU,
        classes=2,
        batch_size=batch_size,
        hints=hints,
    )
    assert np.array_equal(found, expected)


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 5), st.integers(0, 9999))
@settings(max_examples=40, deadline=None)
def test_boxes_come_back_from_slices_of_any_size(rows, columns, batch_size, seed):
    hints, expected = boxes(3, rows, columns, seed)
    slices, plan = np.zeros((3, 1, rows, columns), np.float32), plan_with()
    found = segment_slices(
        forward_of(paint),
        slices,
        plan,
        pixels=(rows, columns),
        device=CPU,
        classes=2,
        batch_size=batch_size,
        hints=hints,
    )
    assert np.array_equal(found, expected)


def test_the_model_is_told_points_in_the_pixels_of_what_it_sees():
    seen = []

    def spy(images: Tensor, hints: Tensor) -> Tensor:
        assert hints.dtype == torch.float32
        seen.extend(zip(images[:, 0].clone(), hints, strict=True))
        return images

    slices = (
        np.random.default_rng(0).random((5, 1, 50, 20)).astype(np.float32)
    )  # tiled along one axis, padded along one
    points = np.array([[[k, 10 * k, FOREGROUND], [19 - k, 49, BACKGROUND]] for k in range(5)], np.float32)
    plan = plan_with(neighbours=False)
    segment_slices(forward_of(spy), slices, plan, pixels=(50, 20), device=CPU, classes=2, batch_size=2, hints=points)
    found: dict[tuple[int, ...], set[float]] = {}
    for image, hints in seen:
        for x, y, kind in hints.tolist():
            if kind != NOTHING:
                (place,) = np.argwhere(slices[:, 0] == image[int(y), int(x)].item()).tolist()
                found.setdefault(tuple(place), set()).add(kind)
    expected = {(k, int(y), int(x)): {kind} for k in range(5) for x, y, kind in points[k].tolist()}
    assert found == expected


def test_without_hints_the_model_is_called_with_images_alone():
    seen = []

    def spy(batch: Batch) -> Output:
        seen.append(batch.keys())
        return Output(batch["images"])

    found = segment_slices(spy, np.ones((2, 1, 40, 9), np.float32), plan_with(), pixels=(40, 9), device=CPU, classes=2)
    assert seen
    assert all(keys == {"images"} for keys in seen)
    assert found.shape == (2, 40, 9)


# --- a box on the scan's own voxels -----------------------------------------------------------------------------------

LABELS = {0: "background", 7: "target"}


def scan_plan(**changes: Any) -> Plan:
    return plan_with(**{"image_size": 64, "intensity": (Percentiles(),), **changes})


def image_plan(**changes: Any) -> Plan:
    values = {"kind": "images", "pixel_mm": None, "neighbours": False, "channels": ("grey",), "image_size": 72}
    return plan_with(**{**values, "intensity": (Window(low=0, high=255),), **changes})


def untrained(plan: Plan, head: dict[str, Any] | None = None) -> PromptedModel:
    config = {
        "data": {"path": "."},
        "backbone": {"name": "sam_micro"},
        "prompts": {"method": "none"},
        "head": head or {"kind": "sam_decoder", "hints": True},
    }
    torch.manual_seed(0)
    return build_model(Config.model_validate(config), plan, len(LABELS))


def painter_of(plan: Plan) -> Segmenter:
    """The model replaced by one that paints the box it is told, so that the right answer is known.

    Exactly so where a voxel is an odd number of pixels: then its middle, where logits are taken, is a pixel's.
    """
    return Segmenter(untrained(plan), forward_of(paint), plan, LABELS, CPU, batch_size=32)


def turned(degrees=(0.0, 0.0, 0.0), spacing=(1.0, 3.0, 1.0)) -> np.ndarray:
    turn = nib.eulerangles.euler2mat(*np.radians(degrees))
    return nib.affines.from_matvec(turn @ np.diag(spacing), [5, -7, 11])


def scan(shape=(20, 8, 18), affine: np.ndarray | None = None, codes: str = "RAS") -> nib.Nifti1Image:
    array = np.random.default_rng(0).normal(300, 80, shape).astype(np.int16)
    image = nib.Nifti1Image(array, turned() if affine is None else affine)
    return image.as_reoriented(ornt_transform(io_orientation(image.affine), axcodes2ornt(codes)))


def filled(shape: tuple[int, ...], box: np.ndarray) -> np.ndarray:
    """7 in the voxels from the box's first to its last."""
    mask = np.zeros(shape, np.uint8)
    mask[tuple(slice(low, high + 1) for low, high in np.sort(box, axis=0).T)] = 7
    return mask


def opposite_corners(shape: tuple[int, ...], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, n, 2) for n in shape], axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("codes", ["RAS", "LPS", "PSR", "IAR", "SLA", "LIP"])
@pytest.mark.parametrize("padding", ["centre", "corner"])
def test_a_painted_box_is_exactly_the_box_in_the_scans_voxels(plane, codes, padding):
    painter = painter_of(scan_plan(plane=plane, padding=padding))
    straight, oblique = scan(codes=codes), scan(codes=codes, affine=turned((14, 9, 11)))
    for seed in range(4):
        box = opposite_corners(straight.shape, seed)
        expected = filled(straight.shape, box)
        for image in (straight, oblique):
            mask = painter.segment(image, box=box)
            assert np.array_equal(voxels(mask), expected)
            assert np.array_equal(mask.affine, image.affine)
        world = nib.affines.apply_affine(straight.affine, box)
        assert np.array_equal(voxels(painter.segment(straight, box=world, frame="ras")), expected)
        assert np.array_equal(voxels(painter.segment(straight, box=tuple(box.ravel().tolist()))), expected)


@pytest.mark.parametrize("padding", ["centre", "corner"])
@pytest.mark.parametrize("size", [(24, 10), (72, 20), (72, 72), (8, 24)])
def test_a_painted_box_of_an_image_is_in_columns_and_rows(size, padding):
    painter = painter_of(image_plan(padding=padding))
    pixels = np.random.default_rng(0).integers(0, 255, size).astype(np.uint8)
    for seed in range(4):
        (x0, y0), (x1, y1) = np.sort(opposite_corners(size[::-1], seed), axis=0).tolist()
        expected = np.zeros(size, np.uint8)
        expected[y0 : y1 + 1, x0 : x1 + 1] = 7
        assert np.array_equal(painter.segment(pixels, box=(x0, y0, x1, y1)), expected)
        assert np.array_equal(painter.segment(pixels, box=[(x1, y1), (x0, y0)]), expected)


def test_a_painted_box_of_an_image_in_tiles():
    painter = painter_of(image_plan(pixel_mm=1.0))
    pixels = np.random.default_rng(0).integers(0, 255, (150, 110)).astype(np.uint8)
    expected = np.zeros((150, 110), np.uint8)
    expected[20:131, 40:101] = 7
    assert np.array_equal(painter.segment(pixels, box=(40, 20, 100, 130)), expected)


def test_a_thin_box_at_the_border_of_a_large_image_is_not_lost():
    pixels = np.random.default_rng(0).integers(0, 255, (320, 320)).astype(np.uint8)
    mask = painter_of(image_plan()).segment(pixels, box=(0, 0, 1, 319))
    assert mask[:, :2].all()
    assert not mask[:, 10:].any()


# --- a trained model --------------------------------------------------------------------------------------------------


def case_of(data: Path, number: int) -> tuple[nib.Nifti1Image, np.ndarray]:
    """A scan, and the box around its labels."""
    image = nib.load(data / f"imagesTr/blobs_{number:03d}_0000.nii.gz")
    places = np.argwhere(voxels(nib.load(data / f"labelsTr/blobs_{number:03d}.nii.gz")))
    return image, np.stack([places.min(0), places.max(0)])


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1, 2])  # stored as RAS, LPS, PSR
def test_a_box_in_voxels_and_in_millimetres_gives_the_same_mask(segmenter, tiny_data, number):
    image, box = case_of(tiny_data, number)
    mask = segmenter.segment(image, box=box)
    world = nib.affines.apply_affine(image.affine, box)
    assert np.array_equal(voxels(segmenter.segment(image, box=world, frame="ras")), voxels(mask))
    assert np.array_equal(voxels(segmenter.segment(image, box=box[::-1].tolist())), voxels(mask))


def test_points_in_voxels_and_in_millimetres_give_the_same_mask_of_an_oblique_scan(segmenter, tiny_data):
    image, box = case_of(tiny_data, 3)
    points = [box[0] + [2, 3, 4], box[1] - [3, 2, 4], box[0]]
    options = {"point_labels": [1, 1, 0]}
    mask = segmenter.segment(image, points=points, **options)
    world = nib.affines.apply_affine(image.affine, points)
    assert np.array_equal(voxels(segmenter.segment(image, points=world, frame="ras", **options)), voxels(mask))


def test_the_mask_under_a_box_lies_on_the_scans_grid_and_in_the_slices_of_the_box(segmenter, tiny_data):
    image, _ = case_of(tiny_data, 2)
    across = nib.aff2axcodes(image.affine).index("S")  # slices are axial
    box = np.array([[2, 2, 2], np.array(image.shape) - 3])
    box[:, across] = 5, 8
    mask = segmenter.segment(image, box=box)
    assert mask.shape == image.shape
    assert np.array_equal(mask.affine, image.affine)
    assert set(np.unique(voxels(mask))) <= {0, 1, 2}
    slices = np.flatnonzero(np.moveaxis(voxels(mask), across, 0).any((1, 2)))
    assert set(slices) <= {5, 6, 7, 8}
    assert len(slices)  # else nothing would be proven
    free = np.moveaxis(voxels(segmenter.segment(image)), across, 0)
    assert np.delete(free, [5, 6, 7, 8], axis=0).any()


def test_hints_reach_the_logits_and_those_of_one_slice_leave_the_others_alone(segmenter):
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).repeat(2, 1, 1, 1)
    hints = torch.tensor([[[10.0, 12, FIRST_CORNER], [40, 50, LAST_CORNER]], [[0, 0, NOTHING], [0, 0, NOTHING]]])
    with torch.inference_mode():
        free = segmenter.forward(Batch(images=images)).logits
        points = torch.tensor([[[20.0, 20, FOREGROUND]], [[20, 20, BACKGROUND]]])
        told, (one, other) = (segmenter.forward(Batch(images=images, hints=given)).logits for given in (hints, points))
    assert torch.allclose(told[1], free[1], atol=1e-5)
    assert (told[0] - free[0]).abs().max() > 1e-3
    assert (one - other).abs().max() > 1e-3


@pytest.mark.slow
def test_a_mask_under_hints_is_another_one(segmenter, tiny_data):
    image, box = case_of(tiny_data, 0)
    across = nib.aff2axcodes(image.affine).index("S")
    box[:, across] = 0, image.shape[across] - 1  # all slices, so that only the model can make the difference
    free = voxels(segmenter.segment(image))
    for hints in ({"box": box}, {"points": [box.mean(0)]}):
        assert not np.array_equal(voxels(segmenter.segment(image, **hints)), free), hints


def test_frame_ras_and_places_outside_of_an_image_are_refused():
    pixels = np.zeros((30, 20), np.uint8)
    flat = Segmenter.from_model(untrained(image_plan()), image_plan(), LABELS, CPU)
    with pytest.raises(VptError, match="frame 'ras': an image has no millimetres; give columns and rows"):
        flat.segment(pixels, box=(1, 1, 5, 5), frame="ras")
    with pytest.raises(VptError, match=r"points: \(25, 5, 0\) lies outside the scan"):
        flat.segment(pixels, points=[(25, 5)])
    assert flat.segment(pixels, points=[(5, 25)], box=(0, 0, 19, 29)).shape == (30, 20)


@pytest.mark.slow
def test_a_model_without_hints_refuses_them_in_one_sentence():
    plan = scan_plan()
    for head in ({"kind": "sam_decoder"}, {"kind": "mask", "width": 16, "detail": 8, "levels": 2}):
        segmenter = Segmenter.from_model(untrained(plan, head), plan, LABELS, CPU)
        for hints in ({"box": (1, 1, 1, 5, 5, 5)}, {"points": [(1, 1, 1)]}):
            with pytest.raises(VptError, match="this model takes no box or points; train one with") as refusal:
                segmenter.segment(scan(), **hints)
            assert "\n" not in str(refusal.value)
        assert segmenter.segment(scan(), frame="ras").shape == (20, 8, 18)


@pytest.mark.parametrize("head", [{"kind": "sam_decoder"}, {"kind": "mask", "width": 16, "detail": 8, "levels": 2}])
def test_a_model_whose_head_takes_no_hints_raises_when_given_some(head):
    model = untrained(scan_plan(), head).eval()
    images = torch.zeros(1, 3, 64, 64)
    assert model(images).shape == (1, 2, 64, 64)
    with pytest.raises(ValueError, match="takes no boxes or points"):
        model(images, torch.zeros(1, 3, 3))


@pytest.mark.slow
def test_training_with_hints_interrupted_and_resumed_is_the_same_run(
    tiny_data: Path, hinted_run: Path, tmp_path: Path, signal_at: Callable[..., None]
) -> None:
    signal_at(1, signal.SIGINT)
    with pytest.raises(Interrupted):
        train(tiny_data, tmp_path / "run", overrides=HINTED)
    torch.manual_seed(12345)  # as a new process would start, elsewhere
    train(None, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", hinted_run)


# --- told the reference's box, or nothing of it -----------------------------------------------------------------------


def masks_in(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: voxels(nib.load(path)) for path in sorted(folder.glob("*.nii.gz"))}


def rewrite(path: Path, array: np.ndarray) -> None:
    image = nib.load(path)
    nib.save(nib.Nifti1Image(array, image.affine, image.header), path)


@pytest.mark.slow
def test_an_oracles_report_says_so_in_its_title_and_its_masks_lie_apart(run: Path) -> None:
    plain, folder = evaluate_run(run, split="val")
    told, apart = evaluate_run(run, split="val", oracle_box=True)
    assert (folder, apart) == (run / "val", run / "val_oracle_box")
    said = "told the BOX OF THE REFERENCE (oracle)"
    assert said in told.settings.title
    assert said not in plain.settings.title
    assert json.loads(told.save(apart).read_text())["settings"]["title"] == told.settings.title
    assert told.text().startswith(told.settings.title)
    assert masks_in(folder).keys() == masks_in(apart).keys() == {"blobs_004.nii.gz"}


@pytest.mark.slow
def test_the_oracle_tells_the_box_around_all_labels(run: Path, tiny_data: Path, segmenter: Segmenter) -> None:
    evaluate_run(run, split="val", oracle_box=True)
    image, box = case_of(tiny_data, 4)
    expected = voxels(segmenter.segment(image, box=box))
    assert np.array_equal(masks_in(run / "val_oracle_box")["blobs_004.nii.gz"], expected)
    across = nib.aff2axcodes(image.affine).index("S")
    slices = np.flatnonzero(np.moveaxis(expected, across, 0).any((1, 2)))
    assert slices.min() >= box[0, across]
    assert slices.max() <= box[1, across]
    assert not np.array_equal(expected, voxels(segmenter.segment(image)))


@pytest.mark.slow
def test_a_case_with_an_empty_reference_is_told_nothing(run: Path, copied_data: Path) -> None:
    label = copied_data / "labelsTr/blobs_004.nii.gz"
    rewrite(label, np.zeros_like(voxels(nib.load(label))))
    evaluate_run(run, split="val", data=copied_data, oracle_box=True)
    evaluate_run(run, split="val", data=copied_data)
    told, plain = (masks_in(run / name)["blobs_004.nii.gz"] for name in ("val_oracle_box", "val"))
    assert np.array_equal(told, plain)
    assert plain.any()


@pytest.mark.slow
def test_nothing_of_the_reference_reaches_the_model_unless_the_oracle_is_asked(run: Path, copied_data: Path) -> None:
    evaluate_run(run, split="val", out=run / "true")
    label = copied_data / "labelsTr/blobs_004.nii.gz"
    other = np.zeros_like(voxels(nib.load(label)))
    other[3:6, 4:9, 2:5] = 2
    rewrite(label, other)
    evaluate_run(run, split="val", data=copied_data, out=run / "other")
    label.write_bytes(b"nothing that can be read")
    with pytest.raises(VptError, match=r"blobs_004\.nii\.gz"):
        evaluate_run(run, split="val", data=copied_data, out=run / "unreadable")
    masks = [masks_in(run / name)["blobs_004.nii.gz"] for name in ("true", "other", "unreadable")]
    assert np.array_equal(masks[0], masks[1])
    assert np.array_equal(masks[0], masks[2])
    assert np.array_equal(masks[0], masks_in(run / "validation")["blobs_004.nii.gz"])  # nor at the end of training


def test_the_box_of_a_reference_is_in_the_images_columns_and_rows(make_images: Callable[..., Path]) -> None:
    from vpt.data.layouts import read_dataset

    data = make_images(cases=3, size=(24, 30))
    full, _, empty = read_dataset(data).cases
    y, x = np.nonzero(np.asarray(Image.open(data / "masks/case_00.png")))
    assert reference_box(full).tolist() == [[x.min(), y.min(), 0], [x.max(), y.max(), 0]]
    assert reference_box(empty) is None


@pytest.mark.slow
def test_a_run_on_images_learns_with_hints_and_is_told_their_boxes(make_images, tmp_path: Path) -> None:
    data = make_images(cases=6, size=(50, 70))
    names = [f"case_{k:02d}" for k in range(6)]
    (data / "split.json").write_text(json.dumps({"train": names[:3], "val": names[3:4], "test": names[4:]}))
    run = train(data, tmp_path / "run", overrides=HINTED | {"train.max_steps": 1})
    _, folder = evaluate_run(run, oracle_box=True)
    segmenter = load(run, device="cpu")
    y, x = np.nonzero(np.asarray(Image.open(data / "masks/case_04.png")))
    box = (x.min(), y.min(), x.max(), y.max())
    for name, hints in {"case_04": {"box": box}, "case_05": {}}.items():  # the last one is empty
        expected = segmenter.segment(data / f"images/{name}.png", **hints)
        assert np.array_equal(np.asarray(Image.open(folder / f"{name}.png")), expected)
    free = segmenter.segment(data / "images/case_04.png")
    assert not np.array_equal(np.asarray(Image.open(folder / "case_04.png")), free)


def test_an_oracle_box_for_a_run_that_takes_none_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    with pytest.raises(VptError, match=r"run: takes no boxes; leave --oracle-box out, or train with head\.hints"):
        evaluate_run(run, split="val", oracle_box=True)
    assert not (run / "val_oracle_box").exists()


def test_an_oracle_box_for_two_folders_of_masks_is_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["vpt", "evaluate", str(tmp_path), str(tmp_path), "--oracle-box"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "--oracle-box needs a run" in capsys.readouterr().err
