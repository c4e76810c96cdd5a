"""Folders or names that say who is tested, where the sides are drawn."""

from __future__ import annotations

from pathlib import Path

from vpt.data.cases import SegmentationSet
from vpt.data.layouts.sides import by_folders, by_names
from vpt.data.splits import drawn
from vpt.words import counted, listed


def unread_sides(dataset: SegmentationSet) -> str:
    """That some cases are called as those to be tested with, but may be trained with, in one sentence; "" else."""
    if not drawn(dataset):
        return ""
    scans = {case.name: _seen(case.images[0], dataset.root) for case in dataset.cases if case.images}
    folders, names = by_folders(scans), by_names(scans)
    tested = [path for name, path in scans.items() if "test" in (folders[name], names[name])]
    if not tested or len(tested) == len(scans):
        return ""
    count = f"{len(tested)} of {counted(len(scans), 'case')} {'is' if len(tested) == 1 else 'are'}"
    return (
        f"{count} called test by a folder or the name ({listed((path.as_posix() for path in tested), 3)}), but the "
        "sides are drawn, so that training may take them; call folders of all cases train, val and test, or say the "
        'sides in split.json ({"train": [...], "val": [...], "test": [...]})'
    )


def _seen(path: Path, root: Path) -> Path:
    """As seen from the data set's folder; what lies elsewhere by its own folder and name."""
    return path.relative_to(root) if path.is_relative_to(root) else Path(*path.parts[-2:])
