"""What the images of classes let doubt: masks that count as a class, and classes that their files alone tell apart."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from vpt.data.cases import case_name
from vpt.data.doubts.class_names import NUMBER, plain_name
from vpt.data.doubts.mask_values import MOST_LABELS
from vpt.data.labelled import Example, LabelledSet
from vpt.data.layouts.naming import APART, says_masks
from vpt.data.values import CaseValues
from vpt.readers import Grid
from vpt.readers.grid import by
from vpt.words import counted, listed

ALIKE = 0.9  # of a class, so many are called as images of another
MANY = 2  # times as many values as a mask may have: a picture
VARIED = 0.5  # of masks that nothing but names tells, so many hold something; blank images are a class
FEWEST = 8  # images of a class, and of the others; of fewer nothing is told
EACH, KINDS = 5, 10  # images at least for every size that a class has; sizes at most, where one can tell something
FEW_CLASSES = 3  # of fewer folders nothing is told
MANY_CLASSES = 50  # of more folders the masks of a set are none
TONE, TWO = 0.1, 0.95  # of the highest value: how far a tone reaches; the share of an image of two tones that they are
COLOUR = 1.0  # levels that channels lie apart, on average, where there is colour

Valued = tuple[Example, CaseValues]


def masks_as_classes(found: LabelledSet, read: Sequence[Valued]) -> list[str]:
    """A class whose images all look like masks, and are called as those of another or lie in a folder that is called
    as one of masks; read: some or all of the images.
    """
    names, looks = _names(found), _by_class(found, read)
    pictures = [name for name, its in looks.items() if np.median([*map(_distinct, its)]) > MANY * MOST_LABELS]
    for masks, images in product(looks, pictures):
        alike = masks != images and _called_alike(names[masks], {*names[images]})
        says = masks != images and says_masks(masks) and not says_masks(images)
        if seen := _as_masks(looks[masks], alike, says):
            because = f"is called as one of {images!r}" if alike else f"{images!r} holds pictures"
            return [
                f"every image of {masks!r} has {seen}, and {because}; if these are masks, call the folders images and "
                "masks, and the set is segmented, or list image and mask in cases.csv, or name them by `pairs` in "
                "dataset.json; if they are images of a class, list all in labels.csv with path and label"
            ]
    return []


def _as_masks(looks: Sequence[CaseValues], alike: bool, says: bool) -> str:
    """What the images of a class have as masks have it; alike, says: what their and the folder's name say for it."""
    most, varied = max(map(_distinct, looks)), np.mean([_distinct(look) > 1 for look in looks]) > VARIED
    if most <= MOST_LABELS and (says or (alike and len(looks) >= FEWEST and varied)):
        return f"{most} values at most, as masks have"
    if says and alike and all(map(_has_two_tones, looks)):
        return "little but its darkest and lightest values, as masks saved as JPEG have"
    return ""


def may_hold_masks(found: LabelledSet) -> bool:
    """Whether class folders are called so that one may be of masks of another, so that its images are worth a look."""
    if not found.source.is_dir() or len(found.classes) < 2:
        return False
    if any(map(says_masks, found.classes)):
        return True
    names = _names(found) if len(found.classes) <= MANY_CLASSES else {}
    having: dict[str, set[str]] = defaultdict(set)  # name -> the classes that have an image of it
    for name, its in names.items():
        for each in its:
            having[each].add(name)
    for name, its in names.items():
        others = Counter(other for each in its for other in _having(each, having) - {name})
        if others and others.most_common(1)[0][1] >= ALIKE * len(its):
            return True
    return False


def _having(image: str, having: Mapping[str, set[str]]) -> set[str]:
    """The classes that have an image called so, or as it begins."""
    return set[str]().union(*(having.get(part, ()) for part in _beginnings(image)))


def _names(found: LabelledSet) -> dict[str, list[str]]:
    return _by_class(found, ((example, Path(example.name).stem) for example in found.cases))


def _called_alike(masks: Sequence[str], images: Collection[str]) -> bool:
    """Whether nearly all masks have the name of an image, or begin with it (`IDRiD_01_MA`)."""
    return bool(np.mean([any(part in images for part in _beginnings(name)) for name in masks]) >= ALIKE)


def _beginnings(name: str) -> Iterator[str]:
    """The name itself, and what stands before each sign in it that parts words."""
    yield name
    yield from (name[: found.start()] for found in APART.finditer(name))


def masks_beside(found: LabelledSet) -> list[str]:
    """That masks lie among the images of class folders, which are no cases."""
    if not found.masks:
        return []
    files = listed((os.path.relpath(str(file), found.root) for file in found.masks), 2)
    what = "file is the mask of an" if len(found.masks) == 1 else "files are masks of"
    return [
        f"{len(found.masks):,} {what} image{'' if len(found.masks) == 1 else 's'} beside by name and left out "
        f"({files}); if these are images of a class, list all in labels.csv with the columns path and label"
    ]


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


def folders_say_otherwise(found: LabelledSet) -> list[str]:
    """Images in a folder that is called as a class, and which are of another. A number may be a patient's."""
    known = {plain_name(name) for name in found.classes if not NUMBER.fullmatch(name)}
    apart = []
    for each in found.cases:
        folder = each.images[0].parent.name if isinstance(each.images[0], Path) else ""
        classes = [found.classes[place] for place in each.target]
        if plain_name(folder) in known - {*map(plain_name, classes)}:
            apart.append(f"{each.name} in {folder} is {' and '.join(classes) or 'of none'}")
    if not apart:
        return []
    return [
        f"of {counted(len(apart), 'image')} the folder is called as another class ({listed(apart, 3)}); correct what "
        "is wrong"
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


def _has_two_tones(values: CaseValues) -> bool:
    """Whether nearly all lies close to the lowest or to the highest value."""
    return all(
        np.mean(np.minimum(channel.body - channel.low, channel.high - channel.body) <= TONE * channel.high) >= TWO
        for channel in values.channels
    )
