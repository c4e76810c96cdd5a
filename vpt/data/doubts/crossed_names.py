"""Images that a list gives the mask which is called as another's: two columns that were sorted in different ways."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from vpt.data.cases import Case, case_name
from vpt.data.ids_in_names import id_of
from vpt.words import counted, listed


def crossed_names(cases: Iterable[Case]) -> str:
    """That masks belong to other images of the set by their names, in one sentence; "" where none does.

    Where images are called alike (`imaging.nii.gz`) their folders are asked. A mask of several images says nothing.
    """
    pairs = [(case.images[0], case.files[-1]) for case in cases if len(case.files) == len(case.images) + 1]
    shared = Counter(mask for _, mask in pairs)
    for key in (_by_file, _by_folder):
        ids = Counter(key(image) for image, _ in pairs)
        if max(ids.values(), default=0) > 1:
            continue
        wrong = [
            f"{_seen(image)} has {_seen(mask)}"
            for image, mask in pairs
            if shared[mask] == 1 and key(mask) in ids and key(mask) != key(image)
        ]
        return _sentence(wrong, len(pairs))
    return ""


def _sentence(wrong: list[str], count: int) -> str:
    if not wrong:
        return ""
    have = "has a mask that is called as another image" if len(wrong) == 1 else "have masks called as other images"
    return (
        f"{len(wrong)} of {counted(count, 'image')} {have} ({listed(wrong, 3)}); were images and masks listed in two "
        "orders? Give each image its own mask"
    )


def _by_file(path: Path) -> str:
    return id_of(case_name(path))


def _by_folder(path: Path) -> str:
    return id_of(path.parent.name)


def _seen(path: Path) -> str:
    return "/".join(path.parts[-2:])
