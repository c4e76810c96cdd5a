"""What the images of classes let doubt: masks that count as a class, and classes that their files alone tell apart."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vpt.data.cases import case_name
from vpt.data.doubts.mask_values import MOST_LABELS
from vpt.data.labelled import Example, LabelledSet
from vpt.data.values import CaseValues
from vpt.readers import Grid
from vpt.readers.grid import by
from vpt.words import listed

ALIKE = 0.9  # of a class, so many are called as images of another
MANY = 2  # times as many values as a mask may have: a picture
FEWEST = 8  # images of a class, and of the others; of fewer nothing is told
EACH, KINDS = 5, 10  # images at least for every size that a class has; sizes at most, where one can tell something
FEW_CLASSES = 3  # of fewer folders nothing is told
COLOUR = 1.0  # levels that channels lie apart, on average, where there is colour

Valued = tuple[Example, CaseValues]


def masks_as_classes(found: LabelledSet, read: Sequence[Valued]) -> list[str]:
    """A class whose images all look like masks and are called as those of another; read: some or all of the images."""
    stems = _by_class(found, ((example, Path(example.name).stem) for example in found.cases))
    distinct = _by_class(found, ((example, _distinct(values)) for example, values in read))
    for masks, few in distinct.items():
        if len(few) < FEWEST or max(few) > MOST_LABELS:
            continue
        for images, many in distinct.items():
            shared = np.mean([stem in {*stems[images]} for stem in stems[masks]])
            if images != masks and np.median(many) > MANY * MOST_LABELS and shared >= ALIKE:
                return [
                    f"every image of {masks!r} has {max(few)} values at most, as masks have, and is called as one of "
                    f"{images!r}; if these are masks, call the folders images and masks, and the set is segmented"
                ]
    return []


def patients_as_classes(found: LabelledSet) -> list[str]:
    """Folders that all hold files of the same names (flair, t1, lesions), as folders of patients do."""
    if not found.source.is_dir():
        return []
    stems = _by_class(found, ((example, case_name(Path(example.name))) for example in found.cases))
    names = {frozenset(each) for each in stems.values()}
    subjects = [name for name in stems if name.lower().startswith("sub-")]
    same = len(names) == 1 and any(stem.isalpha() for stem in next(iter(names)))
    if len(stems) < FEW_CLASSES or not (same or len(subjects) == len(stems)):
        return []
    files = sorted({stem for each in stems.values() for stem in each})
    return [
        f"the {len(stems)} folders {listed(stems, 3)} count as classes, but hold files such as {listed(files, 3)}, as "
        "folders of patients do; to segment, let the masks' names say mask, label or seg; to classify, give labels.csv"
    ]


def told_by_the_file(found: LabelledSet, read: Sequence[tuple[Example, CaseValues, Grid, str]]) -> list[str]:
    """A class whose files differ from all others in their size, format or colour, so that nothing has to be seen."""
    if found.kind != "images" or found.target != "classes":
        return []
    return [
        *_apart(found, [(each, grid.shape[:2]) for each, _, grid, _ in read], "size", by),
        *_apart(found, [(each, Path(file).suffix.lower()) for each, _, _, file in read], "format", str),
        *_apart(found, [(each, values.colour > COLOUR) for each, values, _, _ in read], "colour", _coloured),
    ]


def _apart(
    found: LabelledSet, read: Iterable[tuple[Example, Hashable]], what: str, shown: Callable[..., str]
) -> list[str]:
    classes = _by_class(found, read)
    for name, mine in classes.items():
        others = [value for other, values in classes.items() if other != name for value in values]
        own, theirs = {*mine}, {*others}
        few = len(mine) >= EACH * len(own) and len(others) >= EACH * len(theirs)
        if min(len(mine), len(others)) >= FEWEST and few and len(own | theirs) <= KINDS and not own & theirs:
            return [
                f"all {len(mine)} images of {name!r} are of another {what} ({listed(sorted(map(shown, own)), 3)}) than "
                f"all {len(others)} others ({listed(sorted(map(shown, theirs)), 3)}), so that a model may learn that "
                "alone; bring all into one, and look whether the classes come from different sources"
            ]
    return []


def _by_class(found: LabelledSet, read: Iterable[tuple[Example, Any]]) -> dict[str, list[Any]]:
    classes: dict[str, list[Any]] = {}
    for example, value in read:
        for place in example.target:
            classes.setdefault(found.classes[place], []).append(value)
    return classes


def _coloured(has: bool) -> str:
    return "colour" if has else "grey"


def _distinct(values: CaseValues) -> int:
    """How many values it has, more than masks may have where one is no whole number."""
    whole = all(channel.whole for channel in values.channels)
    return max(channel.distinct for channel in values.channels) if whole else MANY * MOST_LABELS + 1
