"""Which slices are drawn for training, and what is drawn: crops of cached slices, augmented."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from vpt.data.framing import as_channels, as_float32, crop_or_pad, offset
from vpt.data.hints import draw_hints
from vpt.data.plan import Plan
from vpt.data.slices.cached_slices import PreparedCase
from vpt.data.slices.sampling import in_turn
from vpt.data.slices.stored import Store, Viewed, view_seed
from vpt.data.transforms import Augment
from vpt.vocabulary import Sampling


@dataclass(frozen=True)
class SliceDraw:
    """One training sample: case and slice by number, and the seed of its crop and augmentation."""

    case: int
    slice: int
    seed: int


def draw_epoch(
    cases: Sequence[PreparedCase],
    *,
    steps: int,
    batch_size: int,
    foreground: float,
    seed: int,
    epoch: int,
    sampling: Sampling = "even",
    groups: Sequence[int] | None = None,
) -> list[list[SliceDraw]]:
    """Batches of an epoch, the same for the same seed and epoch, whatever the number of workers.

    A share `foreground` of the samples are slices with any label; cases are drawn evenly, so that long scans do not
    outweigh short ones. By label: of these every label has the same number, and cases are drawn from those with it.
    groups: of every case, each of which is then drawn as often, and within it as said.
    """
    rng = np.random.default_rng((seed, epoch))
    of = [0] * len(cases) if groups is None else groups
    parts = [_Part.of(cases, [k for k, own in enumerate(of) if own == each], sampling) for each in sorted(set(of))]
    turns = in_turn(len(parts), rng)

    def one() -> SliceDraw:
        members, pools = parts[next(turns)]
        if pools and rng.random() < foreground:
            pool = pools[rng.integers(len(pools))] if sampling == "by_label" else pools[0]
            case, chosen = pool[rng.integers(len(pool))]
            return SliceDraw(case, chosen[rng.integers(len(chosen))], int(rng.integers(2**31)))
        case = members[rng.integers(len(members))]
        return SliceDraw(case, int(rng.integers(cases[case].depth)), int(rng.integers(2**31)))

    return [[one() for _ in range(batch_size)] for _ in range(steps)]


Pool = list[tuple[int, tuple[int, ...]]]
"""Cases by number, each with the slices that may be drawn of it."""


class _Part(NamedTuple):
    """Cases that are drawn from alike, and the pools of their labelled slices, none of them empty."""

    members: list[int]
    pools: list[Pool]

    @classmethod
    def of(cls, cases: Sequence[PreparedCase], members: list[int], sampling: Sampling) -> Self:
        """The pools: one for each label where they are drawn by label, else one of all labelled slices."""
        if sampling == "even":
            return cls(members, _filled([[(k, cases[k].foreground) for k in members]]))
        held = zip(*(cases[k].holding for k in members), strict=True)
        return cls(members, _filled([list(zip(members, of_label, strict=True)) for of_label in held]))


def _filled(pools: Sequence[Pool]) -> list[Pool]:
    """The pools without cases that have no slice in them, and without pools that have no case."""
    filled = ([(case, slices) for case, slices in pool if slices] for pool in pools)
    return [pool for pool in filled if pool]


class SliceDataset(Viewed):
    """SliceDraw -> (image (3, S, S) float32 in [0, 1], label (S, S) int64), augmented; hints (3, 3) too if asked for.

    annotated: (cases, K) bool, of `annotated_classes`; then the case's row is the last part of a sample.

    Where the model mixes channels, these are the image's, (C, S, S).

    views: so many fixed crops and augmentations of every slice are all there is (see `stored.Viewed`), and a draw's
    seed says which of them, and what the hints are; 0: it makes a new one.
    """

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        plan: Plan,
        augment: Augment,
        *,
        hints: bool = False,
        views: int = 0,
        annotated: Tensor | None = None,
    ):
        self.cases = cases
        self.plan = plan
        self.augment = augment
        self.hints = hints
        self.views = views
        self.annotated = annotated
        self.starts = np.cumsum([0, *(case.depth for case in cases)])  # of the cases, among all slices

    @property
    def count(self) -> int:
        return int(self.starts[-1]) * self.views

    def number(self, draw: SliceDraw) -> int:
        return int(self.starts[draw.case] + draw.slice) * self.views + draw.seed % self.views

    def view(self, number: int) -> SliceDraw:
        place, view = divmod(number, self.views)
        case = int(np.searchsorted(self.starts, place, side="right")) - 1
        return SliceDraw(case, place - int(self.starts[case]), view)

    def __getitem__(self, draw: SliceDraw) -> tuple[Tensor, ...]:
        images, labels = self.cases[draw.case].read()
        seed = view_seed(draw.case, draw.slice, draw.seed % self.views) if self.views else draw.seed
        rng = np.random.default_rng(seed)
        label = np.asarray(labels[draw.slice])
        image = as_float32(as_channels(images, draw.slice, self.plan.neighbours)).numpy()
        size = self.plan.image_size
        top, left = _corner(label, size, self.plan, rng)
        image, label = crop_or_pad(image, size, top, left, self.plan.around), crop_or_pad(label, size, top, left)
        image, label = self.augment(image, label, seed)
        sample = [torch.from_numpy(image), torch.from_numpy(label.astype(np.int64))]
        if self.hints:
            rng = np.random.default_rng(draw.seed) if self.views else rng  # hints are drawn anew for the same view
            sample.append(torch.from_numpy(draw_hints(label, rng)))
        return tuple(sample) if self.annotated is None else (*sample, self.annotated[draw.case])


class StoredSlices(TorchDataset):
    """SliceDraw -> (image, label, what frozen blocks made of the image, and the other parts); see `SliceDataset`."""

    def __init__(self, slices: SliceDataset, store: Store):
        self.slices = slices
        self.store = store

    def __getitem__(self, draw: SliceDraw) -> tuple[Tensor, ...]:
        image, label, *others = self.slices[draw]
        return image, label, self.store.read(self.slices.number(draw)), *others


def annotated_classes(cases: Sequence[PreparedCase], classes: int) -> Tensor:
    """(cases, K) bool: of each case the classes that somebody has looked for, with the background."""
    table = torch.ones(len(cases), classes, dtype=torch.bool)
    for row, case in zip(table, cases, strict=True):
        if case.annotated is not None:
            row[1:] = False
            row[list(case.annotated)] = True
    return table


def _corner(label: np.ndarray, size: int, plan: Plan, rng: np.random.Generator) -> tuple[int, int]:
    """Where to crop: padded where the slice fits; else around a labelled pixel, at random where there is none.

    By label that pixel is of each of the slice's labels as often.
    """
    inside = label > 0
    if plan.sampling == "by_label" and max(label.shape) > size and inside.any():
        inside = label == rng.choice(np.unique(label[inside]))
    focus = np.flatnonzero(inside) if max(label.shape) > size else ()
    point = np.unravel_index(focus[rng.integers(len(focus))], label.shape) if len(focus) else None
    corner = []
    for axis, length in enumerate(label.shape):
        if length <= size:
            corner.append(-offset(length, size, plan.padding))
        elif point is None:
            corner.append(int(rng.integers(length - size + 1)))
        else:
            low, high = max(0, point[axis] - size + 1), min(point[axis], length - size)
            corner.append(int(rng.integers(low, high + 1)))
    return corner[0], corner[1]
