"""Of a run's prompts the training patches nearest to them, as pictures and numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vpt.nearest_patches import Near, nearest_patches
from vpt.progress import Tick, silent
from vpt.tasks.images import Normalise
from vpt.use.classifier import Classifier
from vpt.use.segmenter import Segmenter
from vpt.use.training_images import training_images
from vpt.use.watched import shown

MOST = 4  # patches of a prompt
AROUND = 1  # patches that a crop shows on every side of it


@dataclass(frozen=True)
class Neighbour:
    """A training patch near to a prompt.

    where: the image, in words; case, slice: it; row, column: of the patch, in a grid of rows and columns; cosine: of
    its key with the prompt's; crop: (h, w[, 3]) in [0, 1], the patch in the middle of those around it.
    """

    where: str
    case: str
    slice: int | None
    row: int
    column: int
    cosine: float
    crop: np.ndarray

    def to_dict(self) -> dict[str, object]:
        return {
            "case": self.case,
            "slice": self.slice,
            "row": self.row,
            "column": self.column,
            "cosine": self.cosine,
        }


@dataclass(frozen=True)
class Neighbours:
    """found: (block, prompt) -> the nearest, each of another image, the nearest first; names: the training cases that
    were searched, of so many.
    """

    found: dict[tuple[int, int], tuple[Neighbour, ...]]
    names: tuple[str, ...]
    of: int


def neighbours(
    run: str | Path, answers: Segmenter | Classifier, image: Tensor, count: int, progress: Tick = silent
) -> Neighbours:
    """Of the prompts on a normalised image (1, 3, S, S), among patches of `count` training images of the run.

    Raises:
        VptError: what `training_images` and `nearest_patches` refuse.
    """
    training = training_images(run, answers, count)
    normalise = Normalise.of(answers.model).to(answers.device)

    def each() -> Iterator[Tensor]:
        for seen in training.each():
            with torch.no_grad():
                yield normalise(seen.to(answers.device))

    near = nearest_patches(answers.model, image, each, MOST, progress)
    asked = {one.image for of_block in near.values() for of_prompt in of_block for one in of_prompt}
    pictures = {number: shown(training.read(number)) for number in sorted(asked)}

    def neighbour(one: Near) -> Neighbour:
        return Neighbour(
            training.where(one.image),
            training.names[one.image],
            training.slices[one.image],
            one.row,
            one.column,
            one.cosine,
            crop(pictures[one.image], one),
        )

    found = {
        (block, number): tuple(map(neighbour, of_prompt))
        for block, of_block in near.items()
        for number, of_prompt in enumerate(of_block)
    }
    return Neighbours(found, training.names, training.of)


def crop(picture: np.ndarray, near: Near) -> np.ndarray:
    """Of an image (h, w[, 3]) the patch and those around it, the image's edge repeated beyond it."""
    height, width = picture.shape[0] / near.rows, picture.shape[1] / near.columns
    rows = np.arange(round((near.row - AROUND) * height), round((near.row + 1 + AROUND) * height))
    columns = np.arange(round((near.column - AROUND) * width), round((near.column + 1 + AROUND) * width))
    return picture[rows.clip(0, picture.shape[0] - 1)[:, None], columns.clip(0, picture.shape[1] - 1)]
