"""Of labelled sets: in which examples somebody has looked for each class, where that is not all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from vpt.data.labelled import Example, LabelledSet
from vpt.words import counted, listed


class Looked(NamedTuple):
    """Examples that somebody has looked at for a class, and how many of these have it."""

    annotated: int
    present: int


def looked_for(examples: Sequence[Example], classes: Sequence[str]) -> dict[str, Looked]:
    """For each class, in their order."""
    return {
        name: Looked(
            sum(each.annotated is None or place in each.annotated for each in examples),
            sum(place in each.target for each in examples),
        )
        for place, name in enumerate(classes)
    }


def looked_for_in_words(examples: Sequence[Example], classes: Sequence[str]) -> str:
    """`edema in 8, mass in 4 of 12 images`; empty where all are annotated for all."""
    found = looked_for(examples, classes)
    if all(each.annotated == len(examples) for each in found.values()):
        return ""
    said = listed((f"{name} in {each.annotated}" for name, each in found.items()), 20)
    return f"{said} of {counted(len(examples), 'image')}"


def looked_for_doubts(dataset: LabelledSet, sides: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """How many examples of each side are annotated for each class, and the classes of which one answer alone is there.

    sides: `training` and `validation`, with the names of their examples. Nothing where all are annotated for all.
    """
    if not dataset.is_partly_annotated:
        return
    for side, names in sides.items():
        examples = [dataset.case(name) for name in names]
        if examples:
            said = looked_for_in_words(examples, dataset.classes) or "all in all"
            yield f"annotated for {side}: {said}"
            yield from one_sided(examples, dataset.classes, side)


def one_sided(examples: Sequence[Example], classes: Sequence[str], side: str) -> Iterator[str]:
    """Classes that no example is annotated for, or that all have that are."""
    lacks = {"training": "nothing teaches what it looks like", "validation": "no epoch is chosen by it"}
    for name, each in looked_for(examples, classes).items():
        if not each.annotated:
            yield f"{name}: no {side} image is annotated for it, so {lacks[side]}"
        elif each.annotated == each.present:
            yield (
                f"{name}: every {side} image that is annotated for it has it, so nothing "
                f"{'teaches' if side == 'training' else 'measures'} where it is absent; name it in `annotated` of "
                "images without it"
            )
