"""A folder and those below it, entered alike by all that look for scans: links are followed, once around is enough."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from vpt.files import is_hidden, may_enter

OFTEN = 16  # the most times that one folder is entered by links, in folders that are linked among each other


class Walk:
    """Every file in a folder and below, or every folder, sorted; what is hidden and trainings in it do not count.

    circles: the links back to a folder above; locked: the folders that nobody may enter; once all was asked for.
    """

    def __init__(self, folder: Path, root: Path | None = None, apart: Path | None = None):
        """root: the folder above that a link may not lead back to either; apart: a real one that is not entered."""
        self.folder = folder
        self.root = root or folder
        self.apart = apart
        self.circles: list[Path] = []
        self.locked: list[Path] = []

    def folders(self) -> Iterator[Path]:
        """The folder itself and those below it, each before those in it."""
        inner = self.folder.relative_to(self.root).parts
        above = tuple(Path(os.path.realpath(self.root.joinpath(*inner[:k]))) for k in range(len(inner) + 1))
        yield from self._below(self.folder, above, Counter())

    def files(self) -> Iterator[Path]:
        """The files below a folder, its own before those of the folders in it; also links that lead nowhere."""
        for folder in self.folders():
            yield from _inside(folder, folders=False)

    def _below(self, folder: Path, above: tuple[Path, ...], entered: Counter[Path]) -> Iterator[Path]:
        yield folder
        for path in folders_in(folder):
            real = Path(os.path.realpath(path))
            if leads_back(path, above):
                self.circles.append(path)
            elif not may_enter(path):
                self.locked.append(path)
            elif real != self.apart and not is_training(path):
                entered[real] += 1
                if entered[real] <= OFTEN:
                    yield from self._below(path, (*above, real), entered)


def folders_in(folder: Path) -> list[Path]:
    """The folders in one, links to such included, sorted; what is hidden does not count."""
    return _inside(folder, folders=True)


def _inside(folder: Path, *, folders: bool) -> list[Path]:
    """The folders, or all else. The system says of each what it is, so thousands of slices cost little."""
    with os.scandir(folder) as found:
        names = sorted(each.name for each in found if _is_folder(each) is folders)
    return [path for name in names if not is_hidden(path := folder / name)]


def _is_folder(each: os.DirEntry[str]) -> bool:
    """Of a link that leads in a circle False, where the entry itself would raise."""
    return os.path.isdir(each.path) if each.is_symlink() else each.is_dir()


def is_training(folder: Path) -> bool:
    """Whether a folder holds a training of this package, whose pictures and masks are nobody's data."""
    return all(os.path.isfile(folder / name) for name in ("plan.json", "splits.json", "config.yaml"))


def leads_back(folder: Path, above: Iterable[Path]) -> bool:
    """Whether a folder is a link to one of the real folders `above`, or to one that holds any of them."""
    if not folder.is_symlink():
        return False
    real = Path(os.path.realpath(folder))
    return any(each.is_relative_to(real) for each in above)
