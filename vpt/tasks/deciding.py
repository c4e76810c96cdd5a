"""One mask of the probabilities of all labels: the likeliest label of a voxel, or the mask of most expected Dice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from vpt.progress import Tick, silent
from vpt.tasks.segmentation import likeliest, likeliest_classes
from vpt.vocabulary import Decision

STEPS = 255  # a probability is kept as a whole number of 255ths

Decide = Callable[[Iterable[Tensor | None], Sequence[int], int, Tick], np.ndarray]


@torch.inference_mode()
def classes_of_most_dice(
    found: Iterable[Tensor | None], shape: Sequence[int], classes: int, progress: Tick = silent
) -> np.ndarray:
    """Probabilities (K, rows, columns) of each slice, None for background -> classes of that shape.

    Of all masks with n voxels that of the n largest p has the highest expected Dice, if voxels are independent and p is
    what it says; of many voxels it is close to 2 * (sum of p within) / (n + sum of p everywhere). The mask is the one
    with the best n (RankDice: Dai and Li, "RankSEG", JMLR 24, 2023, there for one label). Its lowest p is half of that
    Dice (Lipton, Elkan and Naryanaswamy, ECML 2014), so that what is found with doubt is drawn wider than the
    likeliest label is.

    With several labels each is decided by itself, among the voxels where it is the likeliest foreground. A label that
    nowhere is the likeliest of all is nowhere: no mask gets a label that it would not have had.

    Slice by slice; of the whole scan a class and a byte for each voxel are held.
    """
    done = np.zeros(shape, np.min_scalar_type(classes - 1))
    levels = np.zeros(shape, np.uint8)
    voxels = np.zeros((classes, STEPS + 1))  # whose likeliest foreground is that class, by their level
    total, is_found = np.zeros(classes), np.zeros(classes, bool)
    for place, one in enumerate(found):
        if one is not None:
            own = likeliest(one[1:])
            best = one[1:].gather(0, own[None].long())[0]
            own = own + 1
            is_found[own[best > one[0]].unique().cpu().numpy()] = True
            total += one.double().sum((1, 2)).cpu().numpy()
            done[place] = own.cpu().numpy()
            levels[place] = (best * STEPS).round().cpu().numpy()
            numbers = done[place].astype(np.int64) * (STEPS + 1) + levels[place]
            voxels += np.bincount(numbers.ravel(), minlength=voxels.size).reshape(voxels.shape)
        progress(place + 1, len(done), "")
    lowest = np.array([_lowest(each, its) for each, its in zip(voxels, total, strict=True)])
    lowest[~is_found] = STEPS + 1
    for own, level in zip(done, levels, strict=True):
        own[level < lowest[own]] = 0
    return done


def _lowest(voxels: np.ndarray, total: float) -> int:
    """The level from which on voxels belong to a label. voxels: how many have each level; total: sum of all p."""
    down = np.arange(STEPS, 0, -1)
    numbers = voxels[down]
    within = np.cumsum(numbers * down / STEPS)
    expected = 2 * within / np.maximum(np.cumsum(numbers) + total, np.finfo(float).tiny)
    return int(down[expected.argmax()])


DECISIONS: dict[Decision, Decide] = {"likeliest": likeliest_classes, "dice": classes_of_most_dice}
