"""What the members of an ensemble say of each slice, added up to the quality of a case."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from vpt.scores.means import mean_defined
from vpt.scores.trust import Quality, StructureQuality, pairwise_dice
from vpt.tasks.segmentation import likeliest


class Witness:
    """Sees the slices of one case in order, from the first one on; begins anew where it is shown the first again.

    labels: id -> name with background 0, in the order of the classes.
    """

    def __init__(self, labels: Mapping[int, str]):
        self.names = [name for _, name in sorted(labels.items())][1:]
        self.classes = len(labels)
        self._begin(1)

    def _begin(self, members: int) -> None:
        pairs = members * (members - 1) // 2
        self.found, self.unsure = np.zeros(self.classes), np.zeros(self.classes)
        self.sizes, self.shared = np.zeros((members, self.classes)), np.zeros((pairs, self.classes))

    def see(self, place: int, mean: Tensor, members: Sequence[Tensor]) -> None:
        """Probabilities (K, rows, columns) of a slice: those that decide, and of each member."""
        if place == 0:
            self._begin(len(members))
        classes = likeliest(mean).flatten()
        self.found += self._sums(classes)
        self.unsure += self._sums(classes, entropy(mean).flatten())
        masks = [likeliest(each).flatten() for each in members] if len(members) > 1 else []
        for k, mask in enumerate(masks):
            self.sizes[k] += self._sums(mask)
        for k, (a, b) in enumerate(combinations(masks, 2)):
            self.shared[k] += self._sums(a[a == b])

    def _sums(self, classes: Tensor, weights: Tensor | None = None) -> np.ndarray:
        given = None if weights is None else weights.double()
        found: np.ndarray = torch.bincount(classes.long(), given, self.classes).cpu().numpy()
        return found

    def quality(self, distance: float = math.nan) -> Quality:
        agreement = pairwise_dice(self.sizes[:, 1:], self.shared[:, 1:])
        found, unsure = self.found[1:], self.unsure[1:]
        structures = {
            name: StructureQuality(int(found[k]), float(agreement[k]), _mean(unsure[k], found[k]))
            for k, name in enumerate(self.names)
        }
        whole = StructureQuality(int(found.sum()), float(mean_defined(agreement, 0)), _mean(unsure.sum(), found.sum()))
        return Quality(whole, structures, distance)


def entropy(probabilities: Tensor) -> Tensor:
    """(K, ...) -> (...), from 0 where one class is sure to 1 where all are as likely."""
    return torch.special.entr(probabilities.float()).sum(0) / math.log(len(probabilities))


def _mean(total: float, count: float) -> float:
    return float(total / count) if count else math.nan
