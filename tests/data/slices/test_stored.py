"""Views with numbers of their own, and the file of rows that is made of them."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from plans import plan_with

from vpt.data.slices.cached_slices import PreparedCase
from vpt.data.slices.drawing import SliceDataset, SliceDraw
from vpt.data.slices.slice_stacks import StackDataset, StackDraw
from vpt.data.slices.stored import Store, is_whole, to_half, versions_of, view_seed, write_rows
from vpt.data.transforms import identity, make_augment
from vpt.errors import VptError

DEPTHS, SIDE = (3, 2), 40


@pytest.fixture
def cases(tmp_path: Path) -> list[PreparedCase]:
    """Two cases of slices 40 x 40, a labelled square in each."""
    made = []
    for k, depth in enumerate(DEPTHS):
        images, labels = tmp_path / f"{k}.image.npy", tmp_path / f"{k}.label.npy"
        np.save(images, np.random.default_rng(k).random((depth, 1, SIDE, SIDE)).astype(np.float16))
        mask = np.zeros((depth, SIDE, SIDE), np.uint8)
        mask[:, 5:30, 8:35] = 1
        np.save(labels, mask)
        made.append(PreparedCase(f"case{k}", images, labels, None, tuple(range(depth)), depth, (SIDE, SIDE)))
    return made


# --- views ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "strength"), [(64, "strong"), (64, "light"), (32, "none"), (32, "light")])
def test_every_slice_has_exactly_its_views(cases: list[PreparedCase], size: int, strength: str) -> None:
    """32 px are random crops of the slices, which are views without any augmentation."""
    dataset = SliceDataset(cases, plan_with(image_size=size), make_augment(strength), views=4)
    for case, slice in ((0, 1), (1, 0)):
        drawn = [dataset[SliceDraw(case, slice, seed)] for seed in range(100, 140)]
        assert len({(image.numpy().tobytes(), label.numpy().tobytes()) for image, label in drawn}) == 4
        new = SliceDataset(cases, dataset.plan, dataset.augment)
        assert len({new[SliceDraw(case, slice, seed)][0].numpy().tobytes() for seed in range(100, 140)}) > 25


def test_every_example_has_exactly_its_views() -> None:
    stacks = np.random.default_rng(0).integers(0, 256, (3, 2, 3, 32, 32), np.uint8)
    dataset = StackDataset(stacks, np.eye(3, dtype=np.float32), make_augment("strong"), views=3)
    drawn = [dataset[StackDraw(1, seed)][0] for seed in range(30)]
    assert len({slices.numpy().tobytes() for slices in drawn}) == 3
    assert not torch.equal(dataset[StackDraw(0, 0)][0], dataset[StackDraw(0, 1)][0])


def test_views_have_numbers_without_gaps(cases: list[PreparedCase]) -> None:
    slices = SliceDataset(cases, plan_with(), identity, views=3)
    stacks = StackDataset(np.zeros((4, 1, 3, 8, 8), np.uint8), np.eye(4, dtype=np.float32), identity, views=3)
    for dataset, count in ((slices, 15), (stacks, 12)):
        assert dataset.count == count
        assert [dataset.number(dataset.view(k)) for k in range(count)] == list(range(count))
    assert slices.view(10) == SliceDraw(1, 0, 1)
    assert slices.number(SliceDraw(1, 0, 3001)) == 10
    assert SliceDataset(cases, plan_with(), identity).count == 0


def test_a_view_depends_on_its_place_only() -> None:
    assert view_seed(3, 1, 0) == view_seed(3, 1, 0)
    assert len({view_seed(case, slice, view) for case in range(9) for slice in range(9) for view in range(9)}) == 729


def test_hints_differ_between_draws_of_one_view(cases: list[PreparedCase]) -> None:
    dataset = SliceDataset(cases, plan_with(), make_augment("light"), hints=True, views=1)
    drawn = [dataset[SliceDraw(0, 1, seed)] for seed in range(20)]
    assert len({image.numpy().tobytes() for image, _, _ in drawn}) == 1
    assert len({hints.numpy().tobytes() for _, _, hints in drawn}) > 5


# --- the file ---------------------------------------------------------------------------------------------------------


def test_rows_are_read_by_the_numbers_they_belong_to(tmp_path: Path) -> None:
    rows = np.arange(24, dtype=np.float16).reshape(4, 2, 3)
    write_rows(tmp_path / "rows.npy", iter([rows[:3], rows[3:]]), 4)
    store = Store(tmp_path / "rows.npy", np.array([1, 5, 6, 90]))
    assert np.array_equal(store.rows(), rows)
    assert store.rows().dtype == np.float16
    for k, number in enumerate(store.numbers):
        assert torch.equal(store.read(number), torch.from_numpy(rows[k]))
    with pytest.raises(ValueError, match="read-only"):
        store.rows()[0] = 1
    assert len(pickle.dumps(store)) < 2000  # a worker that is not forked is told the path, not the rows


def test_a_damaged_row_is_refused_and_the_others_are_read(tmp_path: Path) -> None:
    path, rows = tmp_path / "rows.npy", np.arange(24, dtype=np.float16).reshape(4, 2, 3)
    write_rows(path, [rows], 4)
    store, content = Store(path, np.arange(4)), bytearray(path.read_bytes())
    content[-4 * 4 - rows.nbytes // 4 - 1] ^= 1  # the last byte of the row before the last
    path.write_bytes(content)
    assert torch.equal(store.read(3), torch.from_numpy(rows[3]))
    for read in (lambda: store.read(2), store.rows):
        with pytest.raises(VptError, match=r"rows\.npy: damaged: row 2 is not what was stored; delete the file"):
            read()


def test_a_file_without_checksums_or_of_other_rows_is_made_again(tmp_path: Path) -> None:
    path, rows = tmp_path / "rows.npy", np.zeros((4, 3), np.float16)
    assert not is_whole(path, 4)
    np.save(path, rows)  # as earlier versions wrote it
    assert not is_whole(path, 4)
    write_rows(path, [rows], 4)
    assert is_whole(path, 4)
    assert not is_whole(path, 3)


def test_half_precision_holds_what_it_can_and_the_rest_is_refused() -> None:
    assert to_half(torch.tensor([65504.0, -1e-3])).dtype == np.float16
    for value in (65536.0, float("nan")):
        with pytest.raises(VptError, match=r"beyond half precision.*train.cache_gb=0"):
            to_half(torch.tensor([1.0, value]))


def test_what_fails_or_does_not_fit_leaves_nothing(tmp_path: Path, full_disk: Callable) -> None:
    def failing() -> Iterator[np.ndarray]:
        yield np.zeros((2, 8), np.float16)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rows(tmp_path / "rows.npy", failing(), 4)
    with full_disk(1000), pytest.raises(VptError, match="cannot be written"):
        write_rows(tmp_path / "rows.npy", iter([np.zeros((4, 800), np.float16)]), 4)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_written_again_is_another_version(tmp_path: Path) -> None:
    file = tmp_path / "scan.nii"
    file.write_bytes(b"12")
    before = versions_of([file, tmp_path / "missing"])
    file.write_bytes(b"123")
    assert len(before) == 1
    assert before != versions_of([file])
