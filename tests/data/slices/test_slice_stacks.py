"""Images and volumes as stacks of slices: where they lie, which slices, which are drawn, and what is kept."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.nifti1 import Nifti1Image
from PIL import Image
from plans import plan_with

from vpt.data.labelled import Example
from vpt.data.layouts import read_labelled
from vpt.data.plan import Window
from vpt.data.slices.slice_stacks import (
    StackDataset,
    StackDraw,
    StoredStacks,
    draw_stacks,
    draw_stacks_of_groups,
    prepare_stack,
    prepare_stacks,
    stacks_folder,
    truth_of,
)
from vpt.data.slices.stored import Store, write_rows
from vpt.data.transforms import identity, make_augment
from vpt.errors import VptError
from vpt.progress import silent
from vpt.readers import reader_of

BYTES = (Window(low=0, high=255),)


def flat_plan(**changes):
    """Images, their longer side resized to 32 px."""
    values = {"pixel_mm": None, "neighbours": False, "channels": ("grey",), "intensity": BYTES, "kind": "images"}
    return plan_with(**(values | changes))


def deep_plan(slices, **changes):
    return plan_with(**({"pixel_mm": None, "slices": slices, "intensity": BYTES} | changes))


def numbered(depth, shape=(8, 6)):
    """A volume whose k-th axial slice, counted as a radiologist does from below, has the value 2k + 1 everywhere."""
    voxels = np.broadcast_to(2 * np.arange(depth, dtype=np.float32) + 1, (*shape, depth))
    return Nifti1Image(np.ascontiguousarray(voxels), np.diag([-1.0, -1.0, 2.0, 1.0]))


# --- one image --------------------------------------------------------------------------------------------------------


def test_an_image_is_one_slice_with_its_rows_and_columns_in_place():
    image = np.zeros((32, 32), np.uint8)
    image[3, 20] = 200
    stack = prepare_stack(reader_of(image).voxels(1), flat_plan())
    assert (stack.shape, stack.dtype) == ((1, 3, 32, 32), np.uint8)
    assert all(np.array_equal(channel, image) for channel in stack[0])


def test_colours_are_the_three_channels():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    plan = flat_plan(channels=("red", "green", "blue"), intensity=BYTES * 3)
    assert np.array_equal(prepare_stack(reader_of(image).voxels(3), plan)[0], image.transpose(2, 0, 1))


@pytest.mark.parametrize(("padding", "top"), [("centre", 8), ("corner", 0)])
def test_what_is_not_square_is_padded_with_the_colour_of_the_plan(padding, top):
    image = np.full((16, 32), 90, np.uint8)
    fill = (0.2, 0.4, 1.0)
    stack = prepare_stack(reader_of(image).voxels(1), flat_plan(padding=padding, fill=fill))[0]
    assert (stack[:, top : top + 16] == 90).all()
    outside = np.delete(stack, range(top, top + 16), axis=1)
    assert outside.shape == (3, 16, 32)
    assert [np.unique(channel).tolist() for channel in outside] == [[51], [102], [255]]


def test_the_longer_side_fills_the_square_whatever_the_size():
    for shape in ((80, 40), (5, 10), (64, 64)):
        stack = prepare_stack(reader_of(np.full(shape, 255, np.uint8)).voxels(1), flat_plan())[0, 0]
        rows, columns = (int(stack.max(axis).sum() // 255) for axis in (1, 0))
        assert max(rows, columns) == 32
        assert rows / columns == pytest.approx(shape[0] / shape[1])


def test_values_are_kept_in_255_steps():
    values = np.linspace(0, 1, 1024, dtype=np.float32).reshape(32, 32, 1)
    scan = Nifti1Image(np.ascontiguousarray(values), np.eye(4))
    plan = deep_plan(1, neighbours=False, intensity=(Window(low=0, high=1),), plane="axial")
    stack = prepare_stack(reader_of(scan).voxels(1), plan)[0, 0]
    assert sorted(np.unique(stack)) == list(range(256))
    assert np.abs(np.sort(stack.ravel()) / 255 - np.sort(values.ravel())).max() <= 0.5 / 255 + 1e-6
    beyond = Nifti1Image(np.array([-5.0, 7.0] * 512, np.float32).reshape(32, 32, 1), np.eye(4))
    assert np.unique(prepare_stack(reader_of(beyond).voxels(1), plan)).tolist() == [0, 255]


# --- slices of a volume -----------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 20))
def test_slices_are_evenly_spread(depth, count):
    stack = prepare_stack(reader_of(numbered(depth)).voxels(1), deep_plan(count, neighbours=False))
    assert stack.shape == (count, 3, 32, 32)
    chosen = [(int(slice[0, 16, 16]) - 1) // 2 for slice in stack]
    chosen = chosen if chosen[0] <= chosen[-1] else [depth - 1 - k for k in chosen]
    assert all(0 <= k < depth for k in chosen)
    steps = [b - a for a, b in pairwise(chosen)]
    assert all(depth // count <= step <= -(-depth // count) for step in steps)
    # Each is the middle of its share of the volume: as much is left out in front as behind, but for half a slice.
    assert abs(chosen[0] - (depth - 1 - chosen[-1])) <= 1
    if count == depth:
        assert chosen == list(range(depth))


def test_neighbours_are_the_slices_beside_even_where_not_all_are_read():
    stack = prepare_stack(reader_of(numbered(9)).voxels(1), deep_plan(3))
    found = [slice[:, 16, 16].tolist() for slice in stack]
    assert found == [[1, 3, 5], [7, 9, 11], [13, 15, 17]]  # of slices 1, 4, 7 of 0 to 8
    (ends,) = prepare_stack(reader_of(numbered(1)).voxels(1), deep_plan(1))
    assert ends[:, 16, 16].tolist() == [1, 1, 1]


def test_a_volume_stored_in_another_orientation_gives_the_same_stack():
    scan = Nifti1Image(
        np.random.default_rng(0).integers(0, 256, (12, 10, 6)).astype(np.float32), np.diag([-1.0, -1.0, 3.0, 1.0])
    )
    turned = scan.as_reoriented(np.array([[1, 1], [2, -1], [0, -1]]))
    assert turned.shape != scan.shape
    expected = prepare_stack(reader_of(scan).voxels(1), deep_plan(4))
    assert np.array_equal(prepare_stack(reader_of(turned).voxels(1), deep_plan(4)), expected)


# --- the cache --------------------------------------------------------------------------------------------------------


def examples_of(arrays):
    return [Example(f"im{k}", (array,), (k % 2,)) for k, array in enumerate(arrays)]


def test_stacks_of_all_examples_lie_in_one_file_in_their_order(tmp_path):
    arrays = [np.full((16, 32), 10 * k, np.uint8) for k in range(4)]
    told = []
    stacks = prepare_stacks(
        examples_of(arrays), flat_plan(), tmp_path / "deep/stacks.npy", lambda *what: told.append(what)
    )
    assert stacks.shape == (4, 1, 3, 32, 32)
    for stack, array in zip(stacks, arrays, strict=True):
        assert np.array_equal(stack, prepare_stack(reader_of(array).voxels(1), flat_plan()))
    assert told == [(k + 1, 4, f"im{k}") for k in range(4)]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["stacks.npy"]


def test_what_is_not_written_yet_claims_no_place(tmp_path):
    """Pages of a sparse file that a full disk has no place for would end the process without a word (SIGBUS)."""
    arrays = [np.full((16, 32), 10 * k, np.uint8) for k in range(4)]
    sizes = []

    def look(done, *_):
        (part,) = tmp_path.iterdir()
        sizes.append(part.stat().st_size)

    stacks = prepare_stacks(examples_of(arrays), flat_plan(), tmp_path / "stacks.npy", look)
    assert max(sizes) <= stacks.nbytes * 3 / 4 + 128


def test_what_was_prepared_is_taken_and_nothing_read_again(tmp_path, tiny_classes):
    examples = read_labelled(tiny_classes).cases[:3]
    path = tmp_path / "stacks.npy"
    first = np.array(prepare_stacks(examples, flat_plan(), path, silent))
    gone = [Example(each.name, (tmp_path / "gone.png",), each.target) for each in examples]
    assert np.array_equal(prepare_stacks(gone, flat_plan(), path, silent), first)


def test_an_interrupted_preparation_leaves_no_half_file_and_is_done_anew(tmp_path):
    examples = examples_of([np.full((16, 32), 10 * k, np.uint8) for k in range(4)])
    path = tmp_path / "stacks.npy"

    def interrupt(done, total, name):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_stacks(examples, flat_plan(), path, interrupt)
    assert list(tmp_path.iterdir()) == []
    assert prepare_stacks(examples, flat_plan(), path, silent)[3].max() == 30


def test_an_image_that_cannot_be_read_is_named_and_leaves_no_file(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes((tmp_path / "good.png").read_bytes()[:40])
    examples = [Example(name, (tmp_path / f"{name}.png",), (0,)) for name in ("good", "bad")]
    with pytest.raises(VptError, match=r"bad\.png: "):
        prepare_stacks(examples, flat_plan(), tmp_path / "cache" / "stacks.npy", silent)
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_place_in_a_cache_is_that_of_data_examples_and_plan(tmp_path):
    file = tmp_path / "b.png"
    file.write_bytes(b"first")
    a, b = Example("a", (np.zeros((2, 2), np.uint8),), (0,)), Example("b", (file,), (1,))
    data, other = tmp_path / "data", tmp_path / "other"
    place = stacks_folder(tmp_path, data, [a, b], flat_plan())
    assert place.parent == tmp_path
    assert place == stacks_folder(tmp_path, data, (a, b), flat_plan(reasons={"plane": "because"}))
    others = [
        stacks_folder(tmp_path, other, [a, b], flat_plan()),
        stacks_folder(tmp_path, data, [b, a], flat_plan()),
        stacks_folder(tmp_path, data, [a], flat_plan()),
        stacks_folder(tmp_path, data, [a, b], flat_plan(image_size=64)),
        stacks_folder(tmp_path, data, [a, b], flat_plan(fill=(0.5, 0.5, 0.5))),
        stacks_folder(tmp_path, data, [a, b], deep_plan(3)),
        stacks_folder(tmp_path, data, [a, b], deep_plan(4)),
    ]
    file.write_bytes(b"mended")
    others.append(stacks_folder(tmp_path, data, [a, b], flat_plan()))
    assert len({place, *others}) == 1 + len(others)


# --- draws ------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 3), st.integers(0, 5))
def test_an_epoch_is_every_example_once(examples, batch_size, seed, epoch):
    steps = -(-examples // batch_size)
    batches = draw_stacks(examples, steps=steps, batch_size=batch_size, seed=seed, epoch=epoch)
    assert sorted(draw.example for batch in batches for draw in batch) == list(range(examples))
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (steps - 1)
    assert batches == draw_stacks(examples, steps=steps, batch_size=batch_size, seed=seed, epoch=epoch)


def test_a_longer_epoch_is_every_example_again_and_a_shorter_one_is_cut():
    longer = draw_stacks(10, steps=7, batch_size=4, seed=0, epoch=0)
    assert len(longer) == 7  # rounds of three batches
    for start in (0, 3):
        assert sorted(draw.example for batch in longer[start : start + 3] for draw in batch) == list(range(10))
    assert [draw.example for batch in longer[:3] for draw in batch] != [
        draw.example for batch in longer[3:6] for draw in batch
    ]
    assert len({draw.seed for batch in longer for draw in batch}) > 20  # the same example is augmented anew
    assert draw_stacks(10, steps=2, batch_size=4, seed=0, epoch=0) == longer[:2]


def test_another_epoch_and_another_seed_have_another_order():
    def order(**changes):
        batches = draw_stacks(12, **({"steps": 3, "batch_size": 4, "seed": 0, "epoch": 0} | changes))
        return tuple(draw.example for batch in batches for draw in batch)

    assert len({order(), order(epoch=1), order(seed=1), order(seed=1, epoch=1)}) == 4


def test_what_is_cut_off_is_not_always_the_same():
    seen = Counter(
        draw.example
        for epoch in range(20)
        for batch in draw_stacks(12, steps=1, batch_size=3, seed=0, epoch=epoch)
        for draw in batch
    )
    assert len(seen) == 12


# --- samples ----------------------------------------------------------------------------------------------------------


def test_a_sample_is_the_stack_in_0_to_1_and_its_truth():
    stacks = np.random.default_rng(0).integers(0, 256, (3, 2, 3, 32, 32), np.uint8)
    examples = [Example(name, (), target) for name, target in (("a", (0,)), ("b", (2,)), ("c", (0, 1)))]
    truth = truth_of(examples, 3)
    assert truth.tolist() == [[1, 0, 0], [0, 0, 1], [1, 1, 0]]
    slices, own = StackDataset(stacks, truth, identity)[StackDraw(1, 7)]
    assert torch.equal(slices, torch.from_numpy(stacks[1].astype(np.float32) / 255))
    assert own.tolist() == [0, 0, 1]
    assert truth_of([Example("none", (), ())], 2).tolist() == [[0, 0]]


def test_slices_of_a_stack_are_augmented_alike_and_by_the_seed_of_the_draw():
    one = np.random.default_rng(0).integers(0, 256, (1, 1, 3, 32, 32), np.uint8)
    data = StackDataset(np.repeat(one, 4, axis=1), np.eye(1, dtype=np.float32), make_augment("strong"))
    slices, _ = data[StackDraw(0, 5)]
    assert slices.shape == (4, 3, 32, 32)
    assert all(torch.equal(slices[0], each) for each in slices)
    assert torch.equal(data[StackDraw(0, 5)][0], slices)
    assert any(not torch.equal(data[StackDraw(0, seed)][0], slices) for seed in range(3))


def test_features_are_given_with_the_truth_of_their_example(tmp_path):
    rows = np.arange(12, dtype=np.float16).reshape(3, 2, 2)
    write_rows(tmp_path / "rows.npy", [rows], 3)
    stacks = StackDataset(np.zeros((3, 2, 3, 8, 8), np.uint8), np.eye(3, dtype=np.float32), identity, views=1)
    vectors, own = StoredStacks(stacks, Store(tmp_path / "rows.npy", np.arange(3)))[StackDraw(2, 9)]
    assert np.array_equal(vectors.numpy(), rows[2])
    assert own.tolist() == [0, 0, 1]


def test_groups_are_drawn_equally_often_and_each_example_once_before_again() -> None:
    groups = [0] * 10 + [1] * 2 + [2] * 3
    drawn = [draw.example for batch in draw_of_groups(groups) for draw in batch]
    counts = [sum(groups[example] == group for example in drawn) for group in range(3)]
    assert counts == [16, 16, 16]
    assert [drawn.count(k) for k in (10, 11)] == [8, 8]
    assert all(drawn.count(k) in (1, 2) for k in range(10))
    assert draw_of_groups(groups) == draw_of_groups(groups) != draw_of_groups(groups, epoch=1)


def draw_of_groups(groups: list[int], epoch: int = 0) -> list[list[StackDraw]]:
    return draw_stacks_of_groups(groups, steps=8, batch_size=6, seed=3, epoch=epoch)
