"""Hints: drawn from a label within its bounds, read without guessing, and at the same place on every grid."""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import plan_with
from scans import label_map_of, voxels_of

from vpt.data.hints import (
    BACKGROUND,
    FIRST_CORNER,
    FOREGROUND,
    LAST_CORNER,
    NOTHING,
    Hints,
    draw_hints,
    in_window,
    make_hints,
)
from vpt.data.slices.cached_slices import PreparedCase, prepare_image, prepare_label
from vpt.data.slices.drawing import SliceDataset, SliceDraw
from vpt.data.transforms import make_augment
from vpt.errors import VptError
from vpt.readers import Grid, LabelMap
from vpt.readers.grid import picture_grid

# --- drawn in training ------------------------------------------------------------------------------------------------


def with_foreground(top: int, left: int, rows: int, columns: int, size: int = 64) -> np.ndarray:
    """Two labels that fill a rectangle of the square."""
    classes = np.zeros((size, size), np.uint8)
    classes[top : top + rows, left : left + columns] = 1
    classes[top, left] = 2
    return classes


def draws(classes: np.ndarray, count: int) -> list[np.ndarray]:
    return [draw_hints(classes, np.random.default_rng(seed)) for seed in range(count)]


def is_box(hints: np.ndarray) -> bool:
    return FIRST_CORNER in hints[:, 2]


@st.composite
def rectangles(draw: st.DrawFn) -> np.ndarray:
    size = draw(st.integers(1, 70))
    top, left = draw(st.integers(0, size - 1)), draw(st.integers(0, size - 1))
    return with_foreground(top, left, draw(st.integers(1, size - top)), draw(st.integers(1, size - left)), size)


@given(rectangles(), st.integers(0, 2**31))
@settings(max_examples=300, deadline=None)
def test_drawn_hints_lie_in_the_image_and_on_what_they_name(classes, seed):
    hints = draw_hints(classes, np.random.default_rng(seed))
    assert (hints.shape, hints.dtype) == ((3, 3), np.float32)
    assert (hints[:, :2] >= 0).all()
    assert (hints[:, :2] <= len(classes) - 1).all()
    kinds = hints[:, 2].tolist()
    if FIRST_CORNER in kinds:
        assert kinds == [FIRST_CORNER, LAST_CORNER, NOTHING]
        assert (hints[0, :2] <= hints[1, :2]).all()
        return
    known = [kind for kind in kinds if kind != NOTHING]
    assert kinds == known + [NOTHING] * (3 - len(known))  # what is known comes first
    assert known[:1] in ([], [FOREGROUND])
    for x, y, kind in hints[: len(known)]:
        assert (x, y) == (round(x), round(y))
        assert (classes[int(y), int(x)] > 0) == (kind == FOREGROUND)


def test_the_same_seed_draws_the_same_and_another_seed_something_else():
    classes = with_foreground(10, 20, 30, 12)
    assert all(np.array_equal(a, b) for a, b in zip(draws(classes, 20), draws(classes, 20), strict=True))
    assert len({hints.tobytes() for hints in draws(classes, 60)}) > 30


def test_a_third_of_the_samples_each_have_nothing_a_box_and_points():
    drawn = draws(with_foreground(10, 20, 30, 12), 3000)
    nothing = np.mean([(hints[:, 2] == NOTHING).all() for hints in drawn])
    box = np.mean([is_box(hints) for hints in drawn])
    assert (nothing, box, 1 - nothing - box) == pytest.approx((1 / 3,) * 3, abs=0.03)


def test_one_two_or_three_points_are_drawn_and_a_further_one_is_foreground_in_three_of_four():
    points = [hints for hints in draws(with_foreground(10, 20, 30, 12), 3000) if hints[0, 2] == FOREGROUND]
    counts = np.bincount([(hints[:, 2] != NOTHING).sum() for hints in points], minlength=4)
    assert counts[1:] / len(points) == pytest.approx([1 / 3] * 3, abs=0.05)
    further = np.concatenate([hints[1:, 2] for hints in points])
    assert (further[further != NOTHING] == FOREGROUND).mean() == pytest.approx(0.75, abs=0.05)


def test_points_are_spread_over_all_of_the_foreground():
    classes = with_foreground(10, 20, 6, 4)
    first = {tuple(hints[0, :2]) for hints in draws(classes, 1500) if hints[0, 2] == FOREGROUND}
    assert first == {(x, y) for y in range(10, 16) for x in range(20, 24)}


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "columns"), [(30, 20), (100, 60)])
def test_a_drawn_box_is_the_foregrounds_within_a_tenth_of_its_side(rows, columns):
    classes = with_foreground(60, 80, rows, columns, size=256)
    boxes = np.array([hints[:2, :2] for hints in draws(classes, 1500) if is_box(hints)])
    apart = boxes - [[80, 60], [80 + columns - 1, 60 + rows - 1]]  # corner, (x, y)
    assert np.abs(apart.mean(0)).max() < 0.02 * max(rows, columns)  # neither larger nor smaller on average
    assert apart.std(0) == pytest.approx(np.array([[0.1 * columns, 0.1 * rows]] * 2), rel=0.15)


def test_a_drawn_box_never_moves_by_more_than_twenty_pixels():
    classes = with_foreground(40, 30, 300, 310, size=384)
    boxes = np.array([hints[:2, :2] for hints in draws(classes, 150) if is_box(hints)])
    apart = np.abs(boxes - [[30, 40], [339, 339]])
    assert apart.max() <= 20
    assert apart.mean() > 5


def test_a_foreground_without_a_background_has_only_foreground_points():
    drawn = draws(np.ones((8, 8), np.uint8), 100)
    assert not any((hints[:, 2] == BACKGROUND).any() for hints in drawn)
    assert any((hints[:, 2] == FOREGROUND).sum() == 3 for hints in drawn)


def test_an_empty_slice_has_no_hints():
    for hints in draws(np.zeros((16, 16), np.int64), 30):
        assert hints.tolist() == [[0, 0, NOTHING]] * 3


@pytest.mark.parametrize(("shape", "padding"), [((40, 30), "centre"), ((40, 30), "corner"), ((90, 50), "centre")])
def test_a_training_samples_hints_belong_to_its_augmented_label(tmp_path, shape, padding):
    labels = np.zeros((2, *shape), np.uint8)
    labels[:, 12:20, 10:25] = 1
    np.save(tmp_path / "images.npy", labels[:, None].astype(np.float16))
    np.save(tmp_path / "labels.npy", labels)
    case = PreparedCase("a", tmp_path / "images.npy", tmp_path / "labels.npy", None, (0, 1), 2, shape)
    plan = plan_with(image_size=64, padding=padding)
    told, quiet = (SliceDataset([case], plan, make_augment("strong"), hints=hints) for hints in (True, False))
    seen = set()
    for seed in range(40):
        image, label, hints = told[SliceDraw(0, 1, seed)]
        assert all(torch.equal(a, b) for a, b in zip((image, label), quiet[SliceDraw(0, 1, seed)], strict=True))
        assert torch.equal(hints, told[SliceDraw(0, 1, seed)][2])
        assert (hints.shape, hints.dtype) == ((3, 3), torch.float32)
        for x, y, kind in hints.tolist():
            seen.add(kind)
            if kind in (FOREGROUND, BACKGROUND):
                assert (label[int(y), int(x)] > 0) == (kind == FOREGROUND)
            elif kind == FIRST_CORNER:
                first = label.nonzero().amin(0).flip(0)
                assert (first - torch.tensor([x, y])).abs().max() <= 20
    assert seen == {NOTHING, BACKGROUND, FOREGROUND, FIRST_CORNER, LAST_CORNER}


# --- given by a user --------------------------------------------------------------------------------------------------

CODES = ["".join(flips) for order in permutations(("RL", "AP", "SI")) for flips in product(*order)]  # all 48
PLANES = ("axial", "coronal", "sagittal")


def affine_of(codes: str, spacing=(1.0, 1.0, 1.0), degrees=(0.0, 0.0, 0.0), origin=(5.0, -7.0, 11.0)) -> np.ndarray:
    """Voxel index -> RAS mm of a scan whose axes run as `codes` say, turned in the world."""
    axes = np.zeros((3, 3))
    for k, code in enumerate(codes):
        axes[("RAS" + "LPI").index(code) % 3, k] = spacing[k] * (1 if code in "RAS" else -1)
    return nib.affines.from_matvec(nib.eulerangles.euler2mat(*np.radians(degrees)) @ axes, origin)


def world(affine: np.ndarray, places: Any) -> np.ndarray:
    return nib.affines.apply_affine(affine, np.asarray(places, float))


SHAPE = (12, 10, 6)
VOLUME = Grid(SHAPE, affine_of("RAS", (1.0, 1.2, 3.0)))
IMAGE = picture_grid(rows=20, columns=30)

codes = st.sampled_from(CODES)
spacings = st.tuples(*[st.floats(0.3, 5.0)] * 3)
angles = st.tuples(*[st.floats(-40, 40)] * 3)
origins = st.tuples(*[st.floats(-200, 200)] * 3)
inside = st.tuples(*[st.floats(0, n - 1) for n in SHAPE])


@pytest.mark.slow
@given(codes, spacings, angles, origins, st.lists(inside, min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_points_in_voxels_and_in_millimetres_are_the_same(codes, spacing, degrees, origin, places):
    grid = Grid(SHAPE, affine_of(codes, spacing, degrees, origin))
    kinds = [k % 2 for k in range(len(places))]
    found = make_hints(None, world(grid.affine, places), kinds, "ras", grid)
    expected = make_hints(None, places, kinds, "voxel", grid)
    assert found.box is expected.box is None
    assert np.allclose(found.points, expected.points, atol=1e-6)
    assert np.array_equal(expected.points, places)
    assert found.kinds.tolist() == expected.kinds.tolist() == kinds


@given(codes, spacings, origins, inside, inside)
@settings(max_examples=150, deadline=None)
def test_a_box_in_voxels_and_in_millimetres_is_the_same_however_the_axes_run(codes, spacing, origin, first, last):
    grid = Grid(SHAPE, affine_of(codes, spacing, origin=origin))
    found = make_hints(world(grid.affine, [first, last]), None, None, "ras", grid)
    expected = make_hints([first, last], None, None, "voxel", grid)
    assert np.allclose(found.box, expected.box, atol=1e-6)
    assert np.array_equal(expected.box, [np.minimum(first, last), np.maximum(first, last)])
    assert found.points.shape == expected.points.shape == (0, 3)


@given(codes, spacings, angles, inside, inside)
@settings(max_examples=150, deadline=None)
def test_a_box_in_millimetres_of_an_oblique_scan_becomes_the_smallest_that_holds_its_corners(
    codes, spacing, degrees, first, last
):
    grid = Grid(SHAPE, affine_of(codes, spacing, degrees))
    first, last = world(grid.affine, [first, last])
    found = make_hints([first, last], None, None, "ras", grid).box
    corners = np.array(list(product(*zip(first, last, strict=True))))
    voxels = world(np.linalg.inv(grid.affine), corners)
    assert np.allclose(found, [voxels.min(0), voxels.max(0)], atol=1e-6)


@given(st.permutations(range(8)), codes)
def test_any_two_opposite_corners_in_any_order_are_the_same_box(order, codes):
    first, last = np.array([2, 1, 0]), np.array([7, 8, 4])
    choice = np.array(list(product((False, True), repeat=3)))[order[0]]
    corners = [np.where(choice, first, last), np.where(choice, last, first)]
    grid = Grid(SHAPE, affine_of(codes))
    assert make_hints(corners, None, None, "voxel", grid).box.tolist() == [[2, 1, 0], [7, 8, 4]]
    found = make_hints(world(grid.affine, corners), None, None, "ras", grid).box
    assert np.allclose(found, [first, last], atol=1e-9)


@pytest.mark.parametrize("kind", [tuple, list, np.array])
def test_a_flat_box_is_its_two_corners(kind):
    assert make_hints(kind([2, 1, 0, 7, 8, 4]), None, None, "voxel", VOLUME).box.tolist() == [[2, 1, 0], [7, 8, 4]]
    assert make_hints(kind([7, 1, 4, 2, 8, 0]), None, None, "voxel", VOLUME).box.tolist() == [[2, 1, 0], [7, 8, 4]]
    assert make_hints(kind([2, 1, 25, 18]), None, None, "voxel", IMAGE).box.tolist() == [[2, 1, 0], [25, 18, 0]]


@pytest.mark.parametrize("grid", [IMAGE, Grid((30, 20, 1), affine_of("LPS"))], ids=["image", "scan of one slice"])
def test_columns_and_rows_are_enough_where_there_is_one_slice(grid):
    flat = make_hints([(2, 1), (25, 18)], [(3, 4), (29, 19)], [1, 0], "voxel", grid)
    deep = make_hints([(2, 1, 0), (25, 18, 0)], [(3, 4, 0), (29, 19, 0)], [1, 0], "voxel", grid)
    assert flat.box.tolist() == deep.box.tolist() == [[2, 1, 0], [25, 18, 0]]
    assert flat.points.tolist() == deep.points.tolist() == [[3, 4, 0], [29, 19, 0]]
    assert flat.kinds.tolist() == [1, 0]


def test_points_are_foreground_unless_said_otherwise():
    assert make_hints(None, [(1, 2, 3), (4, 5, 0)], None, "voxel", VOLUME).kinds.tolist() == [1, 1]


@pytest.mark.parametrize("frame", ["voxel", "ras"])
def test_nothing_given_is_no_hints(frame):
    assert make_hints(None, None, None, frame, VOLUME) is None


def test_a_box_may_reach_over_the_scans_border_and_a_point_to_its_last_voxels_edge():
    assert make_hints([(-4, -2, 1), (30, 5, 9)], None, None, "voxel", VOLUME) is not None
    assert make_hints(None, [(-0.5, -0.5, -0.5), (11.5, 9.5, 5.5)], None, "voxel", VOLUME) is not None


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "point outside": (
        {"points": [(1, 2, 3), (12, 2, 3)]},
        r"points: \(12, 2, 3\) lies outside the scan.*\(12, 10, 6\)",
    ),
    "negative point": ({"points": [(1, -1, 3)]}, r"points: \(1, -1, 3\) lies outside the scan"),
    "millimetres as voxels": ({"points": [(40, 20.5, -3)]}, r"points: \(40, 20\.5, -3\) lies outside.*mind `frame`"),
    "box outside": ({"box": [(20, 2, 3), (30, 4, 4)]}, r"box: \(20, 2, 3\) to \(30, 4, 4\) lies outside the scan"),
    "box before": ({"box": [(-9, 2, 3), (-2, 4, 4)]}, r"box: \(-9, 2, 3\) to \(-2, 4, 4\) lies outside the scan"),
    "outside in mm": ({"points": [(900, 0, 0)], "frame": "ras"}, r"points: \(895, .*lies outside the scan"),
    "two numbers of a volume": ({"points": [(1, 2)]}, r"points \[\(1, 2\)\]: expected finite coordinates \(x, y, z\)"),
    "four numbers": ({"points": [(1, 2, 3, 4)]}, r"points .*: expected finite coordinates \(x, y, z\)"),
    "a point not in a list": ({"points": (1, 2, 3)}, r"points \(1, 2, 3\): expected finite coordinates"),
    "no points": ({"points": []}, r"points \[\]: expected finite coordinates"),
    "points of unequal length": ({"points": [(1, 2, 3), (1, 2)]}, r"points .*: expected finite coordinates"),
    "NaN": ({"points": [(1, float("nan"), 3)]}, r"points .*nan.*: expected finite coordinates"),
    "words": ({"points": "middle"}, r"points 'middle': expected finite coordinates"),
    "a word as a box": ({"box": "left"}, r"box 'left': expected finite coordinates"),
    "a dictionary": ({"box": {"x": 1}}, r"box \{'x': 1\}: expected finite coordinates"),
    "one corner": ({"box": [(1, 2, 3)]}, r"box: 1 corners, expected 2"),
    "three corners": ({"box": [(1, 2, 3)] * 3}, r"box: 3 corners, expected 2"),
    "flat box of five": ({"box": (1, 2, 3, 4, 5)}, r"box \(1, 2, 3, 4, 5\): expected finite coordinates"),
    "unknown frame": ({"box": (1, 2, 3, 4, 5, 5), "frame": "mm"}, r"frame 'mm': expected 'voxel' .* or 'ras'"),
    "no frame": ({"points": [(1, 2, 3)], "frame": None}, r"frame None: expected 'voxel'"),
    "too few labels": ({"points": [(1, 2, 3)] * 2, "kinds": [1]}, r"point_labels \[1\]: expected 2 of them, each 1"),
    "too many labels": ({"points": [(1, 2, 3)], "kinds": [1, 0]}, r"point_labels \[1, 0\]: expected 1 of them"),
    "labels of a box": ({"box": (1, 2, 3, 4, 5, 5), "kinds": [1]}, r"point_labels \[1\]: given without points"),
    "another label": (
        {"points": [(1, 2, 3)], "kinds": [2]},
        r"point_labels \[2\]: .*1 \(foreground\) or 0 \(background\)",
    ),
    "half a label": ({"points": [(1, 2, 3)], "kinds": [0.5]}, r"point_labels \[0\.5\]: expected 1 of them"),
    "NaN as a label": ({"points": [(1, 2, 3)], "kinds": [float("nan")]}, r"point_labels \[nan\]: expected 1 of them"),
    "a single number as labels": ({"points": [(1, 2, 3)], "kinds": 1}, r"point_labels 1: expected 1 of them"),
    "words as labels": ({"points": [(1, 2, 3)], "kinds": ["foreground"]}, r"point_labels \['foreground'\]: expected 1"),
    "corners of unequal length": (
        {"box": [(1, 2, 3), (4, 5)]},
        r"box .*: expected finite coordinates",
    ),
    "labels of unequal length": (
        {"points": [(1, 2, 3)] * 2, "kinds": [1, [0]]},
        r"point_labels .*: expected 2",
    ),
    "three corners of two numbers": (
        {"box": [(1, 2), (3, 4), (5, 5)]},
        r"box .*: expected",
    ),
    "numbers as text": (
        {"points": [("1", "2", "3")]},
        r"points .*: expected finite coordinates",
    ),
    "NaN in a flat box": (
        {"box": (1, 2, 3, 4, 5, float("nan"))},
        r"box .*nan.*: expected finite coordinates",
    ),
    "infinite in a box": (
        {"box": [(0, 0, 0), (1, 1, float("inf"))]},
        r"box .*inf.*: expected finite coordinates",
    ),
    "flat box of four in a volume": (
        {"box": (1, 2, 3, 4)},
        r"box \(1, 2, 3, 4\): expected finite coordinates \(x, y, z\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_a_hint_is_refused_in_one_sentence(name):
    given, told = REFUSED[name]
    with pytest.raises(VptError, match=told) as refusal:
        make_hints(**{"box": None, "points": None, "kinds": None, "frame": "voxel", "grid": VOLUME, **given})
    assert "\n" not in str(refusal.value)


# --- onto the slices of a scan ----------------------------------------------------------------------------------------


def prepared(array: np.ndarray, affine: np.ndarray, plan, ids) -> tuple[LabelMap, LabelMap, np.ndarray]:
    """A label volume (X, Y, Z) as it was given, oriented, and as the slices (slices, h, w) that training sees."""
    volume = label_map_of(array, affine)
    oriented = volume.oriented(plan.orientation)
    return volume, oriented, prepare_label(oriented, ids, plan)


def on_slices(hints: Hints, volume: LabelMap, oriented: LabelMap, size: tuple[int, int]) -> np.ndarray:
    return hints.moved(volume.grid, oriented.grid).on_slices(oriented.grid.shape, size)


few_degrees = st.tuples(*[st.floats(-12, 12)] * 3)
near_ones = st.tuples(*[st.floats(0.6, 1.8)] * 3)


@pytest.mark.slow
@given(codes, near_ones, few_degrees, st.floats(0.5, 1.0), st.sampled_from(PLANES), st.data())
@settings(max_examples=120, deadline=None)
def test_a_box_around_a_blob_is_around_its_pixels_on_its_slices_and_nowhere_else(
    codes, spacing, degrees, pixel, plane, data
):
    shape = (13, 11, 9)
    first = np.array([data.draw(st.integers(0, n - 2)) for n in shape])
    last = np.array([data.draw(st.integers(low + 1, n - 1)) for low, n in zip(first, shape, strict=True)])
    array = np.zeros(shape, np.uint8)
    array[tuple(slice(a, b + 1) for a, b in zip(first, last, strict=True))] = 1
    plan = plan_with(pixel_mm=pixel, plane=plane)
    volume, oriented, slices = prepared(array, affine_of(codes, spacing, degrees), plan, (0, 1))
    assert prepare_image(voxels_of(oriented.array[None], oriented.grid.affine), plan).shape[2:] == slices.shape[1:]
    hints = Hints(np.stack([first, last]).astype(float), np.empty((0, 3)), np.empty(0, int))
    found = on_slices(hints, volume, oriented, slices.shape[1:])
    filled = slices.any((1, 2))
    assert (found.shape, found.dtype) == ((len(slices), 2, 3), np.float32)
    assert np.array_equal(hints.moved(volume.grid, oriented.grid).crossed(len(slices)), filled)
    assert (found[~filled] == (0, 0, NOTHING)).all()
    assert (found[filled, :, 2] == (FIRST_CORNER, LAST_CORNER)).all()
    y, x = np.nonzero(slices.any(0))
    scale = np.array(slices.shape[:0:-1]) / oriented.grid.shape[:0:-1]  # pixels of a voxel along x, y
    apart = np.abs(found[filled][:, :, :2] - [[x.min(), y.min()], [x.max(), y.max()]])
    # A corner is the middle of the outermost voxel, whose own pixels reach half a voxel further.
    assert (apart <= np.maximum(1, scale / 2 + 1e-3)).all()


@given(codes, st.tuples(*[st.floats(1.1, 4.0)] * 3), few_degrees, st.sampled_from(PLANES), st.data())
@settings(max_examples=120, deadline=None)
def test_a_point_lands_on_the_pixel_and_the_slice_of_its_voxel(codes, spacing, degrees, plane, data):
    shape = (7, 6, 5)
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)  # every voxel has a label of its own
    volume, oriented, slices = prepared(
        array, affine_of(codes, spacing, degrees), plan_with(plane=plane), range(array.size)
    )
    places = [tuple(data.draw(st.integers(0, n - 1)) for n in shape) for _ in range(3)]
    kinds = np.array([FOREGROUND, BACKGROUND, FOREGROUND])
    found = on_slices(Hints(None, np.array(places, float), kinds), volume, oriented, slices.shape[1:])
    assert found.shape == (len(slices), 3, 3)
    for k, (place, kind) in enumerate(zip(places, kinds, strict=True)):
        (number,) = np.flatnonzero(found[:, k, 2] != NOTHING)
        x, y, told = found[number, k]
        assert told == kind
        assert slices[number, round(float(y)), round(float(x))] == array[place]


@pytest.mark.slow
@given(codes, near_ones, angles, codes, near_ones, st.lists(inside, min_size=1, max_size=3), inside, inside)
@settings(max_examples=100, deadline=None)
def test_hints_moved_to_another_grid_stay_at_their_place_in_the_world(
    codes, spacing, degrees, other_codes, other_spacing, points, first, last
):
    source = Grid(SHAPE, affine_of(codes, spacing, degrees))
    target = Grid((9, 9, 9), affine_of(other_codes, other_spacing, origin=(1, 2, 3)))
    box = np.sort([first, last], axis=0)
    hints = Hints(box, np.array(points), np.ones(len(points), int))
    moved = hints.moved(source, target)
    assert np.allclose(world(target.affine, moved.points), world(source.affine, points), atol=1e-6)
    corners = world(np.linalg.inv(target.affine) @ source.affine, list(product(*box.T)))
    assert np.allclose(moved.box, [corners.min(0), corners.max(0)], atol=1e-6)
    there_and_back = Hints(None, moved.points, moved.kinds).moved(target, source)
    assert np.allclose(there_and_back.points, points, atol=1e-6)


def test_points_come_before_the_boxs_corners_and_each_on_its_own_slices():
    box = np.array([[1, 2, 3], [2, 6, 7]], float)
    points = np.array([[0, 1, 1], [2, 4, 5]], float)
    found = Hints(box, points, np.array([BACKGROUND, FOREGROUND])).on_slices((4, 8, 10), (8, 10))
    nothing = [0, 0, NOTHING]
    corners = [[3, 2, FIRST_CORNER], [7, 6, LAST_CORNER]]
    assert found.tolist() == [
        [[1, 1, BACKGROUND], nothing, nothing, nothing],
        [nothing, nothing, *corners],
        [nothing, [5, 4, FOREGROUND], *corners],
        [nothing, nothing, nothing, nothing],
    ]


def test_points_alone_leave_every_slice_open():
    assert Hints(None, np.zeros((1, 3)), np.ones(1, int)).crossed(4).all()


def crossed_slices(depth: int, low: float, high: float) -> list[int]:
    """Of a scan whose slices are its last axis, by a box from `low` to `high` in voxels."""
    hints = make_hints([(0, 0, low), (1, 1, high)], None, None, "voxel", Grid((4, 4, depth), np.eye(4)))
    return np.flatnonzero(Hints(hints.box[:, ::-1], hints.points, hints.kinds).crossed(depth)).tolist()


@given(st.integers(1, 12), st.data())
def test_a_box_crosses_the_slices_from_its_first_to_its_last(depth, data):
    low = data.draw(st.floats(-3, depth - 0.51))
    high = data.draw(st.floats(max(low, -0.49), depth + 3))
    crossed = crossed_slices(depth, low, high)
    assert crossed
    assert crossed == [k for k in range(depth) if k + 0.5 >= low and k - 0.5 <= high]  # a slice is one voxel thick


@pytest.mark.parametrize("depth", [2, 10])
def test_a_box_on_the_last_slices_far_edge_is_in_that_slice_as_a_point_is(depth):
    assert crossed_slices(depth, depth - 0.5, depth - 0.5) == [depth - 1]


# --- into a tile ------------------------------------------------------------------------------------------------------

SIDE = 16
coordinates = st.integers(-8, 60)


@given(st.tuples(*[coordinates] * 4), st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=300, deadline=None)
def test_a_box_is_cut_to_the_tile_and_gone_where_it_misses(box, top, left):
    (x0, x1), (y0, y1) = sorted(box[:2]), sorted(box[2:])
    hints = np.array([(x0, y0, FIRST_CORNER), (x1, y1, LAST_CORNER), (0, 0, NOTHING)], np.float32)
    before = hints.copy()
    found = in_window(hints, top, left, SIDE)
    assert np.array_equal(hints, before)
    columns = sorted(set(range(x0, x1 + 1)) & set(range(left, left + SIDE)))
    rows = sorted(set(range(y0, y1 + 1)) & set(range(top, top + SIDE)))
    if columns and rows:
        assert found[:2].tolist() == [
            [columns[0] - left, rows[0] - top, FIRST_CORNER],
            [columns[-1] - left, rows[-1] - top, LAST_CORNER],
        ]
    else:
        assert (found[:2] == (0, 0, NOTHING)).all()
    assert found[2, 2] == NOTHING


@given(coordinates, coordinates, st.sampled_from([FOREGROUND, BACKGROUND]), st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=200, deadline=None)
def test_a_point_moves_by_the_tiles_corner_and_is_gone_outside(x, y, kind, top, left):
    found = in_window(np.array([(x, y, kind)], np.float32), top, left, SIDE)
    if left <= x < left + SIDE and top <= y < top + SIDE:
        assert found.tolist() == [[x - left, y - top, kind]]
    else:
        assert found.tolist() == [[0, 0, NOTHING]]


def test_a_point_of_a_border_pixel_stays_in_the_image():
    found = in_window(np.array([(-0.4, 15.4, FOREGROUND)], np.float32), 0, 0, SIDE)
    assert found.tolist() == [[0, 15, FOREGROUND]]


def test_many_images_at_once_are_each_their_own():
    rng = np.random.default_rng(0)
    corners = np.sort(rng.integers(0, 40, (5, 2, 2)), axis=1)
    hints = np.zeros((5, 3, 3), np.float32)
    hints[:, :2, :2], hints[:, 2, :2] = corners, rng.integers(0, 40, (5, 2))
    hints[:, :, 2] = (FIRST_CORNER, LAST_CORNER, FOREGROUND)
    found = in_window(hints, 10, 12, SIDE)
    assert np.array_equal(found, np.stack([in_window(one, 10, 12, SIDE) for one in hints]))
    assert found.dtype == np.float32


@given(st.integers(0, 99), st.integers(0, 99), st.sampled_from([SIDE, 20, 100]))
@settings(max_examples=100, deadline=None)
def test_a_box_in_the_image_is_lost_in_none_of_its_sizes(first, last, pixels):
    """Of 100 voxels, and an image of `pixels`: also a box that is thinner than a pixel and lies at the border."""
    low, high = sorted((first, last))
    hints = make_hints([(low, low), (high, high)], None, None, "voxel", picture_grid(100, 100))
    told = Hints(hints.box[:, ::-1], hints.points, hints.kinds).on_slices((1, 100, 100), (pixels, pixels))
    assert in_window(told[0], 0, 0, pixels)[:, 2].tolist() == [FIRST_CORNER, LAST_CORNER]
