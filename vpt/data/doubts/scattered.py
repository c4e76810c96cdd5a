"""Masks whose edges are strewn with single pixels: a soft mask that was dithered to 1 bit, or noise that was cut off.

Dithering writes a half as every second pixel. A threshold leaves a line there, and thin structures are drawn in one of
the two colours only, so that single pixels lie on one side of their edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vpt.data.doubts.mask_values import some_slices
from vpt.words import counted, listed

OF_EDGE, EACH_WAY = 0.06, 0.015  # single pixels of a mask, of those at its edges: all, and of either colour
FEWEST = 8  # of either colour; of fewer nothing is told


@dataclass(frozen=True)
class Scatter:
    """Of one case's mask: pixels with a neighbour of another label beside, above or below them; of those the ones with
    such neighbours only, in labels and in the background.
    """

    case: str
    edge: int
    labelled: int
    empty: int

    @property
    def is_dithered(self) -> bool:
        fewer = min(self.labelled, self.empty)
        return fewer >= max(FEWEST, EACH_WAY * self.edge) and self.labelled + self.empty >= OF_EDGE * self.edge


def scatter_of(case: str, labels: np.ndarray) -> Scatter:
    """A label map (X, Y, Z), of which some slices are looked at."""
    edge = labelled = empty = 0
    for k in some_slices(labels):
        plane = labels[..., k]
        down, right = plane[1:] != plane[:-1], plane[:, 1:] != plane[:, :-1]
        differing = np.zeros(plane.shape, np.uint8)
        for here, unlike in (((np.s_[1:], np.s_[:-1]), down), ((np.s_[:, 1:], np.s_[:, :-1]), right)):
            for part in here:
                differing[part] += unlike
        edge += int(np.count_nonzero(differing))
        single = differing == 4
        labelled += int(np.count_nonzero(single & (plane > 0)))
        empty += int(np.count_nonzero(single & (plane == 0)))
    return Scatter(case, edge, labelled, empty)


def dithered(masks: Sequence[Scatter]) -> list[str]:
    """What is doubtful in the masks of a data set, in one sentence."""
    if not (odd := [mask for mask in masks if mask.is_dithered]):
        return []
    share = sum(mask.labelled + mask.empty for mask in odd) / sum(mask.edge for mask in odd)
    some = f"{len(odd)} of {counted(len(masks), 'mask')} ({listed((mask.case for mask in odd), 3)})"
    return [
        f"{some} {'has' if len(odd) == 1 else 'have'} edges strewn with single pixels ({share:.0%} of them), as "
        "dithering to 1 bit leaves them of a soft mask; threshold the soft mask instead, without dithering"
    ]
