"""Cases whose images are the same, or nearly so, on two sides of a split or where a draw may put them there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vpt.data.cases import Case, SegmentationSet
from vpt.data.doubts.likeness import alike
from vpt.data.findings import Problem
from vpt.data.splits import Splits, drawn
from vpt.words import listed

TOLD = 10  # in a line each


@dataclass(frozen=True, eq=False)
class Look:
    """What a case's image is like: a digest of its voxels, "" where it was not read, and `steps_of` it."""

    case: Case
    digest: str
    steps: np.ndarray | None

    @property
    def file(self) -> str:
        return str(self.case.images[0])


def twins(dataset: SegmentationSet, looks: Sequence[Look], splits: Sequence[Splits]) -> Iterator[Problem]:
    """Images with the same voxels: an error when they are, or by a draw may come, on two sides."""
    sides = _sides(splits)
    seen: dict[str, list[Case]] = {}
    for look in looks:
        earlier = seen.setdefault(look.digest, []) if look.digest else []
        if earlier:
            yield _twin(look.case, earlier, sides, dataset)
        earlier.append(look.case)


def near_twins(dataset: SegmentationSet, looks: Sequence[Look], splits: Sequence[Splits]) -> Iterator[Problem]:
    """Images that are nearly the same, of which one is, or by a draw may come, on another side than the other."""
    read = [look for look in looks if look.steps is not None]
    sides, found = _sides(splits), []
    for first, second in alike([look.steps for look in read if look.steps is not None]):
        earlier, later = read[first], read[second]
        if earlier.digest == later.digest:
            continue  # `twins` says it
        text = f"nearly the same image as {_called(earlier.case, later.case, dataset.root)}"
        if drawn(dataset):
            if dataset.patient(earlier.case.name) != dataset.patient(later.case.name):
                found.append((later.file, f"{text}; say in `patients` that they are one patient's, or remove one"))
        elif apart := _apart(earlier.case, later.case, sides):
            found.append((later.file, f"{text}, on two sides ({' and '.join(apart)}); put both on one, or remove one"))
    yield from (Problem("warning", file, text) for file, text in found[:TOLD])
    if more := found[TOLD:]:
        file, text = more[0]
        yield Problem(
            "warning", file, f"{text} (so {len(more)} more: {listed(dict.fromkeys(name for name, _ in more), 3)})"
        )


Sides = list[dict[str, str]]
"""Case name -> side, for each fold."""


def _sides(splits: Sequence[Splits]) -> Sides:
    return [{name: side for side, names in each.to_dict().items() for name in names} for each in splits]


def _apart(one: Case, other: Case, sides: Sides) -> tuple[str, str] | None:
    """The two sides that they are on in some fold."""
    for side in sides:
        mine, theirs = side.get(one.name), side.get(other.name)
        if mine and theirs and mine != theirs:
            return mine, theirs
    return None


def _called(other: Case, case: Case, root: Path) -> str:
    """The file of another case; with its folders where that of `case` has the same name."""
    path = other.images[0]
    if path.name != case.images[0].name:
        return path.name
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _twin(case: Case, earlier: Sequence[Case], sides: Sides, dataset: SegmentationSet) -> Problem:
    """The problem that `case` has the voxels of the `earlier` ones."""
    file = str(case.images[0])
    same, first = f"the same {dataset.element}s as", _called(earlier[0], case, dataset.root)
    if drawn(dataset):
        text = "; a drawn split can put them on two sides: remove one, or write split.json"
        return Problem("error", file, f"{same} {first}{text}")
    for other in earlier:
        if apart := _apart(other, case, sides):
            text = f"{' and '.join(apart)} then hold the same patient; put both on one side, or remove one"
            return Problem("error", file, f"{same} {_called(other, case, dataset.root)}; {text}")
    return Problem("warning", file, f"{same} {first}; remove one if it is a copy")
