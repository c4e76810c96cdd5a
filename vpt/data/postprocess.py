"""Masks tidied label by label: only the largest component is kept, holes are filled. What is done is chosen on the
validation cases (`vpt.use.tidying`) and lies in the artifact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from vpt.scores.cases import boxes_of

Step = Literal["largest", "fill"]
Steps = Mapping[int, tuple[Step, ...]]
"""Label id -> what is done with it, in this order."""

STEPS: tuple[Step, ...] = get_args(Step)
WORDS: dict[Step, str] = {"largest": "only the largest component of {}", "fill": "holes in {} filled"}


def tidied(labels: np.ndarray, steps: Steps) -> np.ndarray:
    """Label ids (X, Y, Z), of images (rows, columns), -> the same with the steps of every label done, in place; holes
    are filled once all labels have only the components that they keep.

    Components are of 26 neighbours, of 8 in a plane. What is no longer the label's is background; a hole is background
    that the label encloses: of volumes with faces in all three axes, of a single plane within it.
    """
    thin = tuple(axis for axis, size in enumerate(labels.shape) if size == 1)
    boxes = boxes_of(labels, labels, list(steps))
    for step in STEPS:
        for (label, todo), box in zip(steps.items(), boxes, strict=True):
            if step in todo:
                _tidy(labels[box], label, step, thin)
    return labels


def _tidy(part: np.ndarray, label: int, step: Step, thin: tuple[int, ...]) -> None:
    """In place, of the box around a label; thin: axes by which no hole is left."""
    own = part == label
    if step == "largest":
        part[own & ~largest_component(own)] = 0
    else:
        part[holes_of(own, thin) & (part == 0)] = label


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The component (bool) of most voxels, the first of several; of an empty mask it is empty."""
    from scipy import ndimage

    parts, count = ndimage.label(mask, structure=np.ones((3,) * mask.ndim, bool))
    if count < 2:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    largest: np.ndarray = parts == sizes.argmax()
    return largest


def holes_of(mask: np.ndarray, thin: tuple[int, ...] = ()) -> np.ndarray:
    """What a mask (bool) encloses; thin: axes of one voxel, by which no hole is left."""
    from scipy import ndimage

    flat = mask.squeeze(thin)
    found: np.ndarray = ndimage.binary_fill_holes(flat) & ~flat
    return found.reshape(mask.shape)


def in_words(steps: Steps, names: Mapping[int, str]) -> str:
    """A sentence's part; "none" where nothing is done."""
    return ", ".join(WORDS[step].format(names[label]) for label, todo in steps.items() for step in todo) or "none"


def agreed(members: Sequence[Steps]) -> dict[int, tuple[Step, ...]]:
    """Of models whose answers are averaged: the steps that more than half of them have."""
    labels = sorted({label for steps in members for label in steps})
    found = {
        label: tuple(step for step in STEPS if 2 * sum(step in each.get(label, ()) for each in members) > len(members))
        for label in labels
    }
    return {label: todo for label, todo in found.items() if todo}
