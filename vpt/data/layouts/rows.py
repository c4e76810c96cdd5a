"""One labelled image as its layout tells it, and what its name says of its patient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vpt.data.patients import stem_of_name
from vpt.readers import Source

SIDE_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True, eq=False)
class Row:
    """One image as its layout tells it; side and patient are empty where nothing says them.

    stem: the name without class, side and last number, "" where it is the name itself; others: what the columns say
    that are looked at for none of these; annotated: of labels, those that somebody has looked for, None for all;
    where: what a sentence about it begins with, the image's file or the line of the CSV.
    """

    where: str
    name: str
    image: Source
    labels: tuple[str, ...]
    side: str = ""
    patient: str = ""
    stem: str = ""
    others: Mapping[str, str] = field(default_factory=dict)
    annotated: tuple[str, ...] | None = None


def stem_of(name: str, label: str) -> str:
    """The name of an image without its frame, visit or slice; "" where it has none.

    Folders of a class or side at the start do not count, because a patient can have slices of several classes.
    """
    parts = name.split("/")
    while len(parts) > 1 and (parts[0] == label or parts[0].lower() in SIDE_WORDS):
        parts = parts[1:]
    own = "/".join(parts)
    stem = stem_of_name(own)
    return "" if stem == own or stem.endswith("/") else stem
