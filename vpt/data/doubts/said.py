"""What a person should know of a data set before it is trained on, as `vpt check` says it too."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from vpt.data.case_facts import seen_beside
from vpt.data.cases import SegmentationSet
from vpt.data.doubts.class_images import (
    folders_say_otherwise,
    masks_as_classes,
    masks_beside,
    may_hold_masks,
    patients_as_classes,
)
from vpt.data.doubts.class_names import class_doubts
from vpt.data.doubts.crossed_names import crossed_names
from vpt.data.doubts.headers import file_doubts, header_doubts
from vpt.data.doubts.image_and_mask import Beside, compared, drawn_in, misplaced
from vpt.data.doubts.inside_out import masks_of
from vpt.data.doubts.mask_looks import lossy
from vpt.data.doubts.negatives import FEWEST, negatives, seen_among
from vpt.data.doubts.one_patient import guessed_on_two_sides
from vpt.data.doubts.pictures_as_masks import pictures_as_masks
from vpt.data.doubts.unlike import unlike_others
from vpt.data.doubts.unread_columns import unread_columns
from vpt.data.doubts.unread_lists import unread_lists
from vpt.data.doubts.unread_sides import unread_sides
from vpt.data.doubts.unread_tables import unread_tables
from vpt.data.doubts.values import FEWEST as FEWEST_CASES
from vpt.data.doubts.values import LIGHT
from vpt.data.labelled import LabelledSet
from vpt.data.planned import FINGERPRINTED, spread
from vpt.data.splits import AnySet, Splits
from vpt.errors import VptError
from vpt.readers import reader_of

LOOKED_AT = FINGERPRINTED["images"]
MOST_VOXELS = 2**29  # of volumes: half a minute where they are compressed


def doubts_of(dataset: AnySet, splits: Splits) -> list[str]:
    """How the names were read as patients, sides that nothing reads, classes that may be one, what headers leave."""
    guess = dataset.whose.guess()
    classes = []
    if isinstance(dataset, LabelledSet):
        classes = [
            *class_doubts(dataset.classes),
            *folders_say_otherwise(dataset),
            *masks_beside(dataset),
            *patients_as_classes(dataset),
        ]
    used = {name for names in splits.to_dict().values() for name in names}
    if dataset.kind == "volumes":
        files = [
            *header_doubts(case for case in dataset.cases if case.name in used),
            *_of_volumes(dataset, used, splits),
        ]
    else:
        files = _of_pictures(dataset, used, frozenset(splits.test))
    sides, crossed = "", ""
    if isinstance(dataset, SegmentationSet):
        files += _of_masks(dataset, used - {*splits.test})
        sides, crossed = unread_sides(dataset), crossed_names(dataset.cases)
    return [
        *filter(None, [guess, sides, unread_lists(dataset), crossed]),
        *dataset.whose.doubts([splits.to_dict()]),
        *guessed_on_two_sides(dataset, [splits]),
        *unread_columns(dataset, [splits]),
        *unread_tables(dataset, [splits]),
        *classes,
        *files,
    ]


def require_no_masks(dataset: AnySet, splits: Splits) -> None:
    """Raise VptError for folders of images and of masks that were taken for two classes.

    Where their names let doubt it, some cases are looked at, of which none is tested.
    """
    if not isinstance(dataset, LabelledSet) or not may_hold_masks(dataset):
        return
    tested, most = {*splits.test}, FINGERPRINTED[dataset.kind]
    cases = spread([case for case in dataset.cases if case.name not in tested], most)[:most]
    seen = seen_among(_affordable(cases), len(dataset.channels), dataset.kind)
    for text in masks_as_classes(dataset, [(case, look.values) for case, look in seen]):
        raise VptError(f"{dataset.root}: {text}")


def _of_volumes(dataset: AnySet, used: Collection[str], splits: Splits) -> list[str]:
    """Whether some of 40 volumes at most are negatives, alone or as a group; as few as fit into `MOST_VOXELS`.

    No voxel of those that are tested is looked at.
    """
    tested = {*splits.test}
    cases = [case for case in dataset.cases if case.name in used and case.name not in tested]
    cases = _affordable(spread(cases, FINGERPRINTED["volumes"])[: FINGERPRINTED["volumes"]])
    if len(cases) < FEWEST_CASES:
        return []
    seen = [look for _, look in seen_among(cases, len(dataset.channels), dataset.kind)]
    alone = unlike_others([(look.file, look.values) for look in seen], dataset.channels, dataset.kind)
    light = [(file, text) for file, text in alone if LIGHT in text]
    found = light or negatives(seen, dataset.kind)
    return [f"{file if light else dataset.root}: {text}" for file, text in found]


def _of_masks(dataset: SegmentationSet, names: Collection[str]) -> list[str]:
    """Whether masks of the named cases are JPEG, and whether some lie turned on their images or are drawn into them."""
    cases = [case for case in dataset.cases if case.name in names and case.label is not None]
    near = compared(cases, dataset.kind)
    looked_at = [case for case in cases if case.name in near]
    found: list[Beside] = []
    for case in _affordable(looked_at) if dataset.kind == "volumes" else looked_at:
        with suppress(VptError):  # reading the case says why
            if look := seen_beside(case, dataset, near[case.name]):
                found.append(look)
    jpeg = lossy({case.name: case.label for case in cases}) if dataset.kind == "images" else []
    copies = pictures_as_masks(cases) if dataset.kind == "images" else []
    texts = (*misplaced(found, dataset.kind), *drawn_in(found, dataset.kind), *jpeg, *copies)
    return [f"{masks_of(dataset)}: {text}" for text in texts]


def _affordable(cases: Sequence[Any]) -> list[Any]:
    """The first of them, as far as their headers say that they can be read in about the time of the planning."""
    left, found = MOST_VOXELS, []
    for case in cases:
        try:
            left -= int(np.prod(reader_of(case.images).grid().shape)) * len(case.images)
        except VptError:  # reading the case says why
            continue
        if left < 0:
            break
        found.append(case)
    return found


def _of_pictures(dataset: AnySet, used: Collection[str], tested: Collection[str]) -> list[str]:
    """Of 100 images at most: what their files hide, whether some are negatives, and whether a class is of masks.

    No pixel of those that are `tested` is looked at.
    """
    cases = spread([case for case in dataset.cases if case.name in used], LOOKED_AT)[:LOOKED_AT]
    classes = dataset if isinstance(dataset, LabelledSet) else None
    untested = [case for case in cases if case.name not in tested]
    looks = classes is not None or len(untested) >= FEWEST
    seen = seen_among(untested, len(dataset.channels), dataset.kind) if looks else []
    found = [text for _, text in negatives([look for _, look in seen], dataset.kind)]
    if classes:
        found += masks_as_classes(classes, [(case, look.values) for case, look in seen])
    return [*file_doubts(cases), *(f"{dataset.root}: {text}" for text in found)]
