"""Masks of a file for each label: the labels of a data set, and what each case's label map is put together from."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

from vpt.data.layouts.description import numbers_of
from vpt.readers import LabelFiles

K = TypeVar("K", bound=Hashable)


def label_masks(
    masks: Mapping[K, Mapping[str, Path]], given: dict[int, str] | None, source: Path
) -> tuple[dict[int, str], dict[K, LabelFiles]]:
    """Case -> label -> file, to the labels (id -> name, numbered as by `numbers_of`) and each case's files.

    given: what dataset.json, the `source`, says of the labels; None for nothing.
    """
    ids = numbers_of({label for its in masks.values() for label in its}, given, source)
    called = {id: (given or {}).get(id, name) for name, id in sorted(ids.items(), key=itemgetter(1))}
    files = {
        case: LabelFiles(tuple(sorted((path, ids[label]) for label, path in its.items())))
        for case, its in masks.items()
    }
    return {0: "background", **called}, files
