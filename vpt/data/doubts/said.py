"""What a person should know of a data set before it is trained on, as `vpt check` says it too."""

from __future__ import annotations

from vpt.data.doubts.class_names import doubtful_classes, missing_among
from vpt.data.doubts.headers import header_doubts
from vpt.data.doubts.one_patient import guessed_on_two_sides
from vpt.data.labelled import LabelledSet
from vpt.data.splits import AnySet, Splits


def doubts_of(dataset: AnySet, splits: Splits) -> list[str]:
    """How the names were read as patients, classes that may be one, and what headers leave open."""
    guess = dataset.whose.guess()
    classes = []
    if isinstance(dataset, LabelledSet):
        classes = [*doubtful_classes(dataset.classes), *missing_among(dataset.classes)]
    used = {name for names in splits.to_dict().values() for name in names}
    headers = header_doubts(case for case in dataset.cases if case.name in used) if dataset.kind == "volumes" else []
    return [
        *([guess] if guess else []),
        *dataset.whose.doubts([splits.to_dict()]),
        *guessed_on_two_sides(dataset, [splits]),
        *classes,
        *headers,
    ]
