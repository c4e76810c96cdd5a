"""Predictions that agree with their references far better when they are mirrored, turned or have other axes first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from vpt.data.doubts.image_and_mask import IN_VOLUMES, OF_VOLUMES, TURNS, Turn
from vpt.readers import Kind
from vpt.words import counted

SIDE = 81  # voxels: about so many of a side are looked at
FEWEST, NEARLY_ALL = 3, 0.85  # cases; so many of them are no worse so
BETTER, ALIKE = 0.15, 0.05  # by that Dice on average; what is symmetric may be worse by so much
AGREE = 0.5  # Dice so, on average; of less it may be chance
LEFT = 0.5  # of what lacks to a Dice of 1; one of many ways is better by chance where few predictions are poor
OTHER_AXES: dict[str, Turn] = {
    f"with the axes in the order {', '.join('xyz'[axis] for axis in order)}": partial(np.transpose, axes=order)
    for order in ((0, 2, 1), (2, 1, 0), (1, 2, 0), (2, 0, 1))
}


def agreements(prediction: np.ndarray, reference: np.ndarray, kind: Kind) -> dict[str, float]:
    """Two label maps (X, Y, Z) -> how the first is turned, "" for as it is -> Dice of all labels together; {} where one
    is empty.
    """
    prediction, reference = _spread(prediction), _spread(reference)
    size = np.count_nonzero(prediction) + np.count_nonzero(reference)
    if not (prediction.any() and reference.any()):
        return {}
    turned = {"": prediction} | {name: turn(prediction) for name, turn in TURNS.items()}
    if kind == "volumes":
        turned |= {name: turn(prediction) for name, turn in (OF_VOLUMES | OTHER_AXES).items()}
    return {
        name: 2 * np.count_nonzero((labels == reference) & (reference > 0)) / size
        for name, labels in turned.items()
        if labels.shape == reference.shape
    }


def _spread(labels: np.ndarray) -> np.ndarray:
    """Every n-th voxel along each axis, those at both ends equally far from the border: mirrored they are the same."""
    return labels[tuple(map(_places, labels.shape))]


def _places(side: int) -> slice:
    step = max(1, side // SIDE) | 1  # odd, so that there is such a place to begin at
    first = next(place for place in range(step) if (side - 1 - 2 * place) % step == 0)
    return slice(first, None, step)


def turned_predictions(found: Sequence[Mapping[str, float]], kind: Kind) -> list[str]:
    """A sentence where nearly all of three cases and more agree so much better in one way; else none."""
    cases = [each for each in found if each]
    ways = {name for each in cases for name in each if name}
    gains = {name: np.array([each[name] - each[""] for each in cases if name in each]) for name in ways}
    sure = {
        name: float(gain.mean())
        for name, gain in gains.items()
        if len(gain) >= max(FEWEST, NEARLY_ALL * len(cases)) and np.mean(gain > -ALIKE) >= NEARLY_ALL
    }
    best = max(sure, key=lambda name: (sure[name], name), default="")
    if not best or sure[best] < BETTER:
        return []
    so, as_is = (float(np.mean([each[way] for each in cases if best in each])) for way in (best, ""))
    if so < AGREE or 1 - so > LEFT * (1 - as_is):
        return []
    how = IN_VOLUMES.get(best, best) if kind == "volumes" else best
    better = int((gains[best] > 0).sum())
    return [
        f"{better} of {counted(len(cases), 'mask')} agree far better with the references {how} (Dice of all labels "
        f"together {so:.2f}, as they are {as_is:.2f}); were they saved in another order of voxels, or are left and "
        "right exchanged?"
    ]
