"""Labelled images in a folder per class, with or without folders of sides above. Only names are read here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from vpt.data.cases import kind_of, without_ending
from vpt.data.layouts.naming import WAYS, name_roles
from vpt.data.layouts.rows import Row, stem_of
from vpt.data.layouts.sides import says_both
from vpt.data.walking import Walk, folders_in, is_training, leads_back
from vpt.readers import is_part
from vpt.vocabulary import SIDE_WORDS

SEGMENTATION = {"images", "masks", "labels", "imagestr", "imagests", "labelstr", "labelsts"}  # no names of classes


def class_folders(root: Path) -> list[tuple[str, Path]]:
    """(side, folder) of every class, sorted: ROOT/CLASS, or ROOT/train/CLASS, ROOT/val/CLASS, ROOT/test/CLASS.

    [] where there are fewer than two classes, or where the names are those of images with masks, or of cases.
    """
    tops = [path for path in _folders(root, root) if any(True for _ in _images_below(path, root))]
    if {path.name.lower() for path in tops} & SEGMENTATION or name_roles([path.name for path in tops]):
        return []
    if _are_cases(tops, root):
        return []
    if tops and all(path.name.lower() in SIDE_WORDS for path in tops):
        apart = any(SIDE_WORDS[top.name.lower()] != "test" and not says_both(top.name) for top in tops)
        read = [top for top in tops if not (apart and says_both(top.name))]
        found = [(SIDE_WORDS[top.name.lower()], path) for top in read for path in _folders(top, root)]
        found = [(side, path) for side, path in found if any(True for _ in _images_below(path, root))]
    else:
        found = [("", path) for path in tops]
    return found if len({path.name for _, path in found}) > 1 else []


def _are_cases(tops: Sequence[Path], root: Path) -> bool:
    """Whether every folder is of a case, with the same kinds of its files, one of masks: `p1/p1_image`, `p1/p1_roi`."""
    kinds = {_kinds_inside(top, root) for top in tops}
    words = WAYS[-1]
    return len(tops) > 1 and len(kinds) == 1 and any(words.masks & {*words.of(kind)} for kind in kinds.pop())


def _kinds_inside(case: Path, root: Path) -> frozenset[str]:
    """What the names of the folders inside add to its own; none where they are called otherwise, or numbered."""
    added = {inner.name.removeprefix(case.name) for inner in _folders(case, root) if inner.name.startswith(case.name)}
    plain = len(added) == len(_folders(case, root)) and not any(map(str.isdigit, "".join(added)))
    return frozenset(added) if plain else frozenset()


def folder_rows(root: Path) -> Iterator[Row]:
    for side, folder in class_folders(root):
        for path in _images_below(folder, root):
            name = without_ending(path.relative_to(root))
            yield Row(str(path), name, path, (folder.name,), side, stem=stem_of(name, folder.name))


def unread_classes(root: Path) -> dict[str, list[Path]]:
    """Folder, as seen from the root -> its files, of those where a class would be, but no file is read."""
    read = {folder for _, folder in class_folders(root)}
    tops = [path for path in _folders(root, root) if path not in read]
    inner = [path for top in tops if top.name.lower() in SIDE_WORDS for path in _folders(top, root) if path not in read]
    found = {}
    for path in [*(top for top in tops if top.name.lower() not in SIDE_WORDS), *inner]:
        files = list(Walk(path, root).files())
        if files or not any(path.iterdir()):
            found[path.relative_to(root).as_posix()] = files
    return found


def _folders(folder: Path, root: Path) -> list[Path]:
    """Those in a folder, links included but for those back to a folder above; none that is a run."""
    above = [Path(os.path.realpath(each)) for each in (root, folder)]
    return [path for path in folders_in(folder) if not leads_back(path, above) and not is_training(path)]


def _images_below(folder: Path, root: Path) -> Iterator[Path]:
    """Images and volumes in a folder of `root` and below, sorted; what is hidden does not count.

    A folder below it that is one scan itself, a DICOM series, is one of them.
    """
    series: dict[Path, bool] = {folder: False}
    for path in Walk(folder, root).files():
        above = path.parent
        if above not in series:
            series[above] = kind_of(above) is not None
            if series[above]:
                yield above
        if not series[above] and kind_of(path) and not is_part(path):
            yield path
