"""A few examples to learn from: so many of each class, or so many cases."""

from __future__ import annotations

import random

from vpt.data.cases import SegmentationSet
from vpt.data.labelled import LabelledSet
from vpt.data.splits import Splits
from vpt.errors import VptError
from vpt.words import counted


def draw_shots(dataset: SegmentationSet | LabelledSet, splits: Splits, shots: int, seed: int) -> Splits:
    """The same sides with few that train: `shots` examples of each class, of segmentation `shots` cases, drawn by seed.

    The draw of k shots holds that of fewer with the same seed. Of several labels at once an example counts for each of
    its own, and those that have none are drawn like a label; a label that too few examples have gives all it has.

    Raises:
        VptError: a class, or the data set, has fewer than `shots` on the training side.
    """
    order = sorted(splits.train)
    random.Random(seed).shuffle(order)
    if isinstance(dataset, LabelledSet):
        chosen = _of_each_class(dataset, order, shots)
    elif len(order) < shots:
        raise VptError(
            f"{dataset.root}: {counted(len(order), 'training case')}, fewer than {counted(shots, 'shot')}; lower "
            "data.shots"
        )
    else:
        chosen = set(order[:shots])
    return Splits(tuple(name for name in splits.train if name in chosen), splits.val, splits.test)


def _of_each_class(dataset: LabelledSet, order: list[str], shots: int) -> set[str]:
    chosen: set[str] = set()
    targets = {case.name: case.target for case in dataset.cases}
    for position, name in enumerate(dataset.classes):
        having = [example for example in order if position in targets[example]]
        if len(having) < shots and dataset.target != "labels":
            raise VptError(
                f"{dataset.root}: {counted(len(having), 'training example')} of {name}, fewer than "
                f"{counted(shots, 'shot')}; "
                "lower data.shots"
            )
        chosen |= set(having[:shots])
    without = [example for example in order if not targets[example]] if dataset.target == "labels" else []
    return chosen | set(without[:shots])
