"""Images of a set for classification that are the same, or nearly so, on two sides of a split or under two labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from vpt.data.doubts.likeness import alike
from vpt.data.findings import Problem
from vpt.data.labelled import Example, LabelledSet
from vpt.data.splits import split_source
from vpt.words import counted, listed

Sides = Sequence[dict[str, str]]
"""Example -> side, for each fold."""


@dataclass(frozen=True, eq=False)
class Look:
    """What an example's image is like: a digest of its voxels, "" where it was not read, and `steps_of` it."""

    example: Example
    digest: str
    steps: np.ndarray | None


def copies(found: LabelledSet, looks: Sequence[Look], sides: Sides) -> Iterator[Problem]:
    """Images with the same pixels that are on two sides, in any fold, or of two classes."""
    groups: dict[str, list[Example]] = {}
    for look in looks:
        if look.digest:
            groups.setdefault(look.digest, []).append(look.example)
    apart, unlike = [], []
    for group in (group for group in groups.values() if len(group) > 1):
        for side in sides:
            on = {side[each.name]: each.name for each in group if each.name in side}
            if len(on) > 1:
                apart.append(" = ".join(f"{name} in {its}" for its, name in on.items()))
                break
        if any(_contradict(one, other) for one, other in combinations(group, 2)):
            of = {_named(found, each): each.name for each in group}
            unlike.append(" = ".join(f"{name} of {its}" for its, name in of.items()))
    pixels = "pixels" if found.kind == "images" else "voxels"
    yield from _told(
        found,
        ("image", f"with the same {pixels}"),
        (apart, "scores are then too good: keep one of each, or all on one side"),
        (unlike, "keep the right one"),
    )


def near_copies(found: LabelledSet, looks: Sequence[Look], sides: Sides) -> Iterator[Problem]:
    """Images that are nearly the same and on two sides, in any fold, or of two classes."""
    pairs = list(_near_pairs(looks))
    apart = [said for one, other in pairs if (said := _apart(one, other, sides))]
    unlike = [
        f"{one.name} of {_named(found, one)} = {other.name} of {_named(found, other)}"
        for one, other in pairs
        if _contradict(one, other)
    ]
    what = f"nearly the same {'image' if found.kind == 'images' else 'scan'}"
    yield from _told(
        found,
        ("pair", f"of {what}"),
        (apart, "scores are then too good: put both on one side, or say in `patients` that they are one patient's"),
        (unlike, "are both right?"),
    )


def _told(
    found: LabelledSet, what: tuple[str, str], apart: tuple[list[str], str], unlike: tuple[list[str], str]
) -> Iterator[Problem]:
    """what: they are, to be counted, and what is said of them; each with how to mend it: those on two sides, and those
    under different labels.
    """
    noun, said = what
    where = ((apart, "on two sides", split_name(found)), (unlike, "under different labels", str(found.source)))
    for (copies, mend), how, file in where:
        if copies:
            text = f"{counted(len(copies), noun)} {said} {how} ({listed(copies, 3)})"
            yield Problem("warning", file, f"{text}; {mend}")


def split_name(found: LabelledSet) -> str:
    """The file that a finding about the split is told of."""
    source = split_source(found)
    return str(found.source) if source.startswith("drawn") else source


def _near_pairs(looks: Sequence[Look]) -> Iterator[tuple[Example, Example]]:
    """Pairs of images that are nearly the same, without equal ones, of which `copies` tells."""
    read = [look for look in looks if look.steps is not None]
    for first, second in alike([look.steps for look in read if look.steps is not None]):
        if read[first].digest != read[second].digest:
            yield read[first].example, read[second].example


def _apart(one: Example, other: Example, sides: Sides) -> str:
    """The two sides that they are on in some fold, in words; "" where there is none."""
    for side in sides:
        mine, theirs = side.get(one.name), side.get(other.name)
        if mine and theirs and mine != theirs:
            return f"{one.name} in {mine} = {other.name} in {theirs}"
    return ""


def _contradict(one: Example, other: Example) -> bool:
    """Whether two are labelled otherwise in what both were annotated for."""
    return any(
        all(each.annotated is None or place in each.annotated for each in (one, other))
        for place in {*one.target} ^ {*other.target}
    )


def _named(found: LabelledSet, example: Example) -> str:
    return " and ".join(found.classes[place] for place in example.target) or "no class"
