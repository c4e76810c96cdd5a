"""Examples to classify as stacks of slices in one cached array; an image is a stack of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from vpt.data.framing import as_channels, placement_of
from vpt.data.plan import Plan
from vpt.data.slices.cached_arrays import damaged, mapped, require_unchanged, save_rows
from vpt.data.slices.cached_slices import prepare_image
from vpt.data.slices.sampling import in_turn
from vpt.data.slices.stored import Store, Viewed, versions_of, view_seed
from vpt.data.transforms import Augment
from vpt.progress import Tick
from vpt.readers import Voxels, reader_of

if TYPE_CHECKING:
    from vpt.data.labelled import Example


def prepare_stack(voxels: Voxels, plan: Plan) -> np.ndarray:
    """Voxels (C, X, Y, Z) -> (S, 3, size, size) uint8, [0, 1] in 255 steps: what the encoder is given.

    Of a volume `plan.slices` slices, evenly spread, each whole and padded to the square; of an image its only one.
    Where the model mixes channels, they stand in the place of the 3, here and below.
    """
    oriented, count = voxels.oriented(plan.orientation), plan.slices or 1
    depth = oriented.grid.shape[0]
    chosen = places_of_slices(depth, count)
    seen = {int(k) for k in chosen}
    if plan.neighbours:
        seen = {near for k in seen for near in (k - 1, k, k + 1) if 0 <= near < depth}
    slices = prepare_image(oriented, plan, only=seen)
    stack = np.stack([as_channels(slices, k, plan.neighbours) for k in chosen])
    framed = placement_of((stack.shape[2], stack.shape[3]), plan).pad(stack, plan.around)
    return np.rint(framed * 255).astype(np.uint8)


def places_of_slices(depth: int, count: int) -> np.ndarray:
    """Which slices (S,) of so many are read where `count` are, evenly spread."""
    return np.floor((np.arange(count) + 0.5) * depth / count).astype(int)


def prepare_stacks(examples: Sequence[Example], plan: Plan, path: Path, progress: Tick) -> np.ndarray:
    """The stacks of all examples, memory-mapped (N, S, 3, size, size) uint8; a file that is there already is taken.

    Raises VptError for what the readers refuse.
    """
    shape = (len(examples), plan.slices or 1, plan.inputs, plan.image_size, plan.image_size)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_rows(path, _stacks_of(examples, plan, progress), shape, np.dtype(np.uint8))
    else:
        require_unchanged(path, "u", 5)
    found = mapped(path, "u", 5)
    if found.shape != shape:
        raise damaged(path, f"{found.shape}, expected {shape}")
    return found


def _stacks_of(examples: Sequence[Example], plan: Plan, progress: Tick) -> Iterator[np.ndarray]:
    for done, example in enumerate(examples, start=1):
        yield prepare_stack(reader_of(example.images).voxels(len(plan.channels)), plan)
        progress(done, len(examples), example.name)


def stacks_folder(cache: Path, source: Path, examples: Sequence[Example], plan: Plan) -> Path:
    """The folder in a cache for what these examples of a data set become under a plan.

    It is another one once a file has another size or was written again.
    """
    files = [source, *(image for example in examples for image in example.images if isinstance(image, Path))]
    decides = [
        str(source.resolve()),
        *(example.name for example in examples),
        plan.model_dump_json(exclude={"reasons", "values"}),
        *versions_of(files),
    ]
    return cache / sha256("\n".join(decides).encode()).hexdigest()[:16]


def truth_of(examples: Sequence[Example], classes: int) -> np.ndarray:
    """(N, classes) float32 of 0 and 1."""
    truth = np.zeros((len(examples), classes), np.float32)
    for row, example in zip(truth, examples, strict=True):
        row[list(example.target)] = 1
    return truth


def annotated_of(examples: Sequence[Example], classes: int) -> np.ndarray | None:
    """(N, classes) bool, which somebody has looked for; None where that is all of them in all examples."""
    if all(example.annotated is None for example in examples):
        return None
    found = np.zeros((len(examples), classes), bool)
    for row, example in zip(found, examples, strict=True):
        row[slice(None) if example.annotated is None else list(example.annotated)] = True
    return found


@dataclass(frozen=True)
class StackDraw:
    """One training sample: an example by number, and the seed of its augmentation."""

    example: int
    seed: int


def draw_stacks(examples: int, *, steps: int, batch_size: int, seed: int, epoch: int) -> list[list[StackDraw]]:
    """Batches of an epoch: every example once, in an order of its own, and again until there are `steps` batches.

    The same for the same seed and epoch. Where an epoch has fewer steps than the data, it is cut short.
    """
    rng = np.random.default_rng((seed, epoch))
    batches: list[list[StackDraw]] = []
    while len(batches) < steps:
        order = rng.permutation(examples)
        parts = [order[start : start + batch_size] for start in range(0, examples, batch_size)]
        batches += [[StackDraw(int(k), int(rng.integers(2**31))) for k in part] for part in parts]
    return batches[:steps]


def draw_stacks_of_groups(
    groups: Sequence[int], *, steps: int, batch_size: int, seed: int, epoch: int
) -> list[list[StackDraw]]:
    """Batches of an epoch in which every group is drawn as often; of each group every example once, and again.

    groups: of every example. The same for the same seed and epoch.
    """
    rng = np.random.default_rng((seed, epoch))
    members = [np.flatnonzero(np.equal(groups, group)) for group in sorted(set(groups))]
    places = [in_turn(len(own), rng) for own in members]
    turns = in_turn(len(members), rng)

    def one() -> StackDraw:
        group = next(turns)
        return StackDraw(int(members[group][next(places[group])]), int(rng.integers(2**31)))

    return [[one() for _ in range(batch_size)] for _ in range(steps)]


class StackDataset(Viewed):
    """StackDraw -> (slices (S, 3, size, size) float32 in [0, 1], truth (K,)), the slices of a stack augmented alike.

    annotated: (N, K) bool, of which a draw then gives its row as well, (K,).
    views: so many fixed augmentations of every example are all there is (see `stored.Viewed`), and a draw's seed
    says which of them; 0: it makes a new one.
    """

    def __init__(
        self,
        stacks: np.ndarray,
        truth: np.ndarray,
        augment: Augment,
        *,
        views: int = 0,
        annotated: np.ndarray | None = None,
    ):
        self.stacks = stacks
        self.truth = truth
        self.annotated = annotated
        self.augment = augment
        self.views = views

    @property
    def count(self) -> int:
        return len(self.stacks) * self.views

    def number(self, draw: StackDraw) -> int:
        return draw.example * self.views + draw.seed % self.views

    def view(self, number: int) -> StackDraw:
        return StackDraw(*divmod(number, self.views))

    def labels_of(self, example: int) -> tuple[Tensor, ...]:
        """Its truth (K,), and where it matters what it was annotated for, (K,) bool."""
        parts = [self.truth] if self.annotated is None else [self.truth, self.annotated]
        return tuple(torch.from_numpy(part[example]) for part in parts)

    def __getitem__(self, draw: StackDraw) -> tuple[Tensor, ...]:
        stack = self.stacks[draw.example].astype(np.float32) / 255
        empty = np.zeros(stack.shape[2:], np.uint8)
        seed = view_seed(draw.example, draw.seed % self.views) if self.views else draw.seed
        augmented = [self.augment(image, empty, seed)[0] for image in stack]
        return torch.from_numpy(np.stack(augmented)), *self.labels_of(draw.example)


class StoredStacks(TorchDataset):
    """StackDraw -> (what frozen blocks made of the slices, (S, V), truth (K,), ...); see `StackDataset`."""

    def __init__(self, stacks: StackDataset, store: Store):
        self.stacks = stacks
        self.store = store

    def __getitem__(self, draw: StackDraw) -> tuple[Tensor, ...]:
        return self.store.read(self.stacks.number(draw)), *self.stacks.labels_of(draw.example)
