"""Labels that lie between others as thin seams: a label map of small ids that was resampled with interpolation.

Between 0 and 4 interpolation leaves 1, 2 and 3, which are labels too. What tells them from labels that are thin in
truth (a wall, a layer): along the edge they come and go from one row to the next, as the pixels happen to lie.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vpt.data.doubts.mask_values import some_slices
from vpt.readers.picture import lowest_and_highest
from vpt.words import agreeing, counted, listed

AREA = 3  # pixels in a row of one label: what lies between two such is a seam, or nothing
WIDEST = 8  # labels in a seam
NEAR = 2  # pixels that an edge moves by from one row to the next
FEWEST = 40  # places on an edge; of fewer nothing is told
OF_ALL, OF_ONE = (0.4, 0.2), (0.5, 0.3)  # of an edge: so much has a seam, and from row to row so often another
NEARLY_ALL, SEVERAL = 0.8, 0.4  # of an edge whose seams do not change, and of those with two labels or more

Pair = tuple[int, int]
Places = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""On edges: the lower and the higher label (N, 2), row (N,), column (N,), the labels between, sorted (N, M)."""


@dataclass(frozen=True)
class Edge:
    """Between areas of two labels that are no neighbours: places on it, those with labels between, with two or more;
    places next to each other that were compared, and those of them with other labels between.
    """

    places: int = 0
    seams: int = 0
    several: int = 0
    compared: int = 0
    changes: int = 0
    between: frozenset[int] = frozenset()

    def __add__(self, other: Edge) -> Edge:
        return Edge(
            self.places + other.places,
            self.seams + other.seams,
            self.several + other.several,
            self.compared + other.compared,
            self.changes + other.changes,
            self.between | other.between,
        )

    def is_interpolated(self, areas: frozenset[int], limits: tuple[float, float] = OF_ALL) -> bool:
        """areas: labels that have an area of their own somewhere; limits: see `OF_ALL`."""
        often, changing = limits
        if self.places < FEWEST or self.seams < often * self.places:
            return False
        if self.compared >= FEWEST / 2 and self.changes >= changing * self.compared:
            return True
        thin = not self.between & areas
        return thin and self.seams >= NEARLY_ALL * self.places and self.several >= SEVERAL * self.places


@dataclass(frozen=True)
class Seams:
    """Of one case's label map: pair of labels -> their edge; the labels with an area of 3 x 3 pixels."""

    case: str
    edges: Mapping[Pair, Edge]
    areas: frozenset[int]


def seams_of(case: str, labels: np.ndarray, ids: Collection[int]) -> Seams:
    """A label map (X, Y, Z) of ids, or of their places in order, of which some slices are looked at; ids: it holds."""
    edges: dict[Pair, Edge] = {}
    if len({*ids, 0}) < 3:  # nothing can lie between
        return Seams(case, edges, frozenset(ids))
    areas: set[int] = set()
    for k in some_slices(labels):
        plane = labels[..., k]
        low, high = lowest_and_highest(plane)
        areas |= {*np.unique(plane[low == high]).tolist()}
        for rows in (plane, plane.T):
            for pair, edge in _edges(np.ascontiguousarray(rows)).items():
                edges[pair] = edges.get(pair, Edge()) + edge
    return Seams(case, edges, frozenset(areas))


def interpolated(cases: Sequence[Seams], ids: Sequence[int] | None = None) -> list[str]:
    """What is doubtful in the label maps of a data set, a sentence for all pairs of labels; ids: of places in order."""
    areas = frozenset[int]().union(*(case.areas for case in cases))
    of_all = [case for case in cases if case.edges]
    alone = [case for case in of_all if any(edge.is_interpolated(areas, OF_ONE) for edge in case.edges.values())]
    doubted = next((some for some in (of_all, alone) if _pairs(some, areas)), [])
    if not doubted:
        return []
    every = _pairs(doubted, areas)
    low, high = max(every, key=lambda pair: every[pair].seams)
    edge = every[low, high]
    named = list(ids) if ids is not None else range(high + 1)
    having = [case.case for case in doubted if any((found := case.edges.get(pair)) and found.seams for pair in every)]
    return [
        f"{len(having)} of {counted(len(cases), 'mask')} ({listed(having, 3)}) {agreeing(len(having), 'have')} labels "
        f"as thin seams between others: {listed((named[k] for k in sorted(edge.between)), 5)} on "
        f"{edge.seams / edge.places:.0%} of the edge from {named[low]} to {named[high]}; were they resized or "
        "resampled with interpolation? Then do it again with nearest neighbour"
    ]


def thin_throughout(cases: Sequence[Seams], unnamed: Collection[int], ids: Sequence[int] | None = None) -> list[str]:
    """Of labels that nothing names: one that is a line between two others wherever it is.

    A contour that was drawn, or what interpolation at one and the same place between pixels leaves: nobody can tell.
    """
    areas = frozenset[int]().union(*(case.areas for case in cases))
    named = list(ids) if ids is not None else None
    found = []
    for (low, high), edge in sorted(_summed(cases).items()):
        between = [named[k] if named else k for k in sorted(edge.between)]
        lines = edge.places >= FEWEST and edge.seams >= NEARLY_ALL * edge.places and not edge.between & areas
        if lines and len(between) == 1 and {*between} <= {*unnamed} and not edge.is_interpolated(areas):
            lower, higher = (named[low], named[high]) if named else (low, high)
            found.append(
                f"{between[0]} is a thin line between {lower} and {higher} wherever it is; if it is a contour of its "
                "own, name it under `labels` in dataset.json; if interpolation left it, do that again with nearest "
                "neighbour"
            )
    return found


def _pairs(cases: Sequence[Seams], areas: frozenset[int]) -> dict[Pair, Edge]:
    """The edges of all cases together that look interpolated."""
    return {pair: edge for pair, edge in _summed(cases).items() if edge.is_interpolated(areas)}


def _summed(cases: Sequence[Seams]) -> dict[Pair, Edge]:
    every: dict[Pair, Edge] = {}
    for case in cases:
        for pair, edge in case.edges.items():
            every[pair] = every.get(pair, Edge()) + edge
    return every


def _edges(rows: np.ndarray) -> dict[Pair, Edge]:
    """What lies between areas along each row of (rows, columns)."""
    starts, values, lengths = _runs(rows)
    line, column = np.divmod(starts, rows.shape[1])
    step = np.sign(np.diff(values.astype(np.int64)))
    found: list[Places] = []
    for many in range(min(WIDEST, len(values) - 2) + 1):
        last = np.arange(many + 1, len(values))
        first = last - many - 1
        fits = (lengths[first] >= AREA) & (lengths[last] >= AREA) & (line[first] == line[last])
        fits &= np.minimum(values[first], values[last]) >= 0  # what is ignored is below
        fits &= np.abs(values[last].astype(np.int64) - values[first]) > 1
        for j in range(many + 1):
            fits &= step[first + j] == step[first]
            fits &= (j == 0) | (lengths[first + j] < AREA)
        first, last = first[fits], last[fits]
        if first.size:
            ends = np.sort(np.stack([values[first], values[last]], axis=1), axis=1)
            inside = np.sort(values[first[:, None] + np.arange(1, many + 1)], axis=1)
            found.append((ends, line[first], column[first + 1], inside))
    return _counted(found, rows.shape)


def _runs(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of equal labels in a row, one after the other -> where each starts, counted through, its label and length."""
    new = np.ones(rows.shape, bool)
    new[:, 1:] = rows[:, 1:] != rows[:, :-1]
    starts = np.flatnonzero(new)
    return starts, rows.ravel()[starts], np.diff(np.append(starts, rows.size))


def _counted(found: Iterable[Places], shape: tuple[int, ...]) -> dict[Pair, Edge]:
    """Places on the edges of all pairs -> the edge of each pair."""
    edges: dict[Pair, Edge] = {}
    numbers: dict[Pair, np.ndarray] = {}
    known = 1  # the number of places with nothing between
    for ends, line, column, inside in found:
        kinds, kind = np.unique(inside, axis=0, return_inverse=True) if inside.shape[1] else (inside[:1], 0 * line)
        for pair in map(tuple, np.unique(ends, axis=0).tolist()):
            mine = (ends == pair).all(axis=1)
            count, many = int(mine.sum()), inside.shape[1]
            between = frozenset(np.unique(inside[mine]).tolist())
            edges[pair] = edges.get(pair, Edge()) + Edge(count, count * (many > 0), count * (many > 1), between=between)
            numbers.setdefault(pair, np.zeros(shape, np.int32))[line[mine], column[mine]] = known + kind.ravel()[mine]
        known += len(kinds)
    return {pair: edge + _changes(numbers[pair]) for pair, edge in edges.items()}


def _changes(places: np.ndarray) -> Edge:
    """(rows, columns) with a number of what lies between, 0 where no edge is -> how often the next row differs."""
    width, compared, changes = places.shape[1], 0, 0
    for shift in range(-NEAR, NEAR + 1):
        here = places[:-1, max(0, -shift) : width - max(0, shift)]
        there = places[1:, max(0, shift) : width - max(0, -shift)]
        both = (here > 0) & (there > 0)
        compared += int(both.sum())
        changes += int((both & (here != there)).sum())
    return Edge(compared=compared, changes=changes)
