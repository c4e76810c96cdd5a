"""What a person should know of a data set before it is trained on, as `vpt check` says it too."""

from __future__ import annotations

from collections.abc import Collection

from vpt.data.doubts.class_images import masks_as_classes, patients_as_classes
from vpt.data.doubts.class_names import class_doubts
from vpt.data.doubts.headers import file_doubts, header_doubts
from vpt.data.doubts.negatives import FEWEST, negatives, seen_among
from vpt.data.doubts.one_patient import guessed_on_two_sides
from vpt.data.labelled import LabelledSet
from vpt.data.planned import FINGERPRINTED, spread
from vpt.data.splits import AnySet, Splits

LOOKED_AT = FINGERPRINTED["images"]


def doubts_of(dataset: AnySet, splits: Splits) -> list[str]:
    """How the names were read as patients, classes that may be one, and what headers leave open."""
    guess = dataset.whose.guess()
    classes = []
    if isinstance(dataset, LabelledSet):
        classes = [*class_doubts(dataset.classes), *patients_as_classes(dataset)]
    used = {name for names in splits.to_dict().values() for name in names}
    if dataset.kind == "volumes":
        files = header_doubts(case for case in dataset.cases if case.name in used)
    else:
        files = _of_pictures(dataset, used, frozenset(splits.test))
    return [
        *([guess] if guess else []),
        *dataset.whose.doubts([splits.to_dict()]),
        *guessed_on_two_sides(dataset, [splits]),
        *classes,
        *files,
    ]


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
