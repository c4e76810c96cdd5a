"""Published data sets: where one comes from and its terms, how it is got, and a new folder for it."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vpt.data.layouts import read_dataset
from vpt.data.splits import read_splits
from vpt.errors import VptError
from vpt.files import write_json
from vpt.progress import bar
from vpt.published.archives import CLUTTER, ENDINGS, extract, is_archive
from vpt.vocabulary import SIDES
from vpt.words import agreeing, counted, listed

DEAL = ("train", "val", "test", "train", "train", "train", "train", "test", "train", "train")  # 70, 10 and 20 percent


# --- where a data set comes from --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Archive:
    """An archive as its host calls it; without `url` it lies behind a login."""

    name: str
    url: str = ""
    md5: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Origin:
    """A data set and its terms. page: where people get it; size: of what is fetched, in words; login: what it takes."""

    title: str
    page: str
    size: str
    licence: str
    citation: str
    archives: tuple[Archive, ...]
    login: str = ""

    @property
    def terms(self) -> str:
        """What everybody who uses the set must know."""
        return f"{self.title} ({self.size}), {self.page}\nlicence: {self.licence}\ncite: {self.citation}"

    @property
    def by_hand(self) -> str:
        names = listed((archive.name for archive in self.archives), 6)
        return f"download {names} from {self.page} and give the folder or the archive with `--source`"

    def description(self, labels: Mapping[str, int], **more: Any) -> dict[str, Any]:
        """A dataset.json."""
        named = {"name": self.title, "reference": self.citation, "licence": self.licence, "source": self.page}
        return named | {"labels": dict(labels)} | more


@dataclass(frozen=True)
class Material:
    """The files of a data set: in `source`, a folder or archive, or else fetched into the folder `downloads`."""

    origin: Origin
    source: Path | None
    downloads: Path
    scratch: Path

    def folder(self, name: str) -> Path:
        """The one folder of that name, in the source or in its archives."""
        plain = _folders(self.source, name) if self.source and self.source.is_dir() else []
        found = plain or _folders(self._unpacked, name)
        if len(found) != 1:
            where = self.source or self.downloads
            shown = listed(found, 4) or "none"
            raise VptError(f"{where}: expected one folder called {name}, found {shown}; {self.origin.by_hand}")
        return found[0]

    @cached_property
    def _unpacked(self) -> Path:
        """A folder with the content of all archives."""
        content = self.scratch / "unpacked"
        content.mkdir()
        for archive in self._archives():
            extract(archive, content)
        return content

    def _archives(self) -> list[Path]:
        if self.source is None:
            return [self._fetched(archive) for archive in self.origin.archives]
        if self.source.is_dir():
            return [path for each in self.origin.archives if (path := self.source / each.name).is_file()]
        if not self.source.is_file():
            raise VptError(f"{self.source}: no such folder or archive; {self.origin.by_hand}")
        if not is_archive(self.source):
            raise VptError(
                f"{self.source}: neither a folder nor an archive; expected one that ends in {', '.join(ENDINGS)}"
            )
        return [self.source]

    def _fetched(self, archive: Archive) -> Path:
        if not archive.url:
            raise VptError(f"{self.origin.title} lies behind a login: {self.origin.login}, {self.origin.by_hand}")
        file = self.downloads / archive.name
        fetch(archive.url, file, self.origin.by_hand, md5=archive.md5, sha256=archive.sha256)
        return file


def _folders(root: Path, name: str) -> list[Path]:
    """Those of that name: not what macOS keeps beside files; of two in each other, as programs unpack, the inner."""
    found = [path for path in (root, *root.rglob(name)) if path.name == name and path.is_dir()]
    own = [path for path in found if not {*path.relative_to(root).parts} & {*CLUTTER}]
    return sorted(path for path in own if not any(path in other.parents for other in own))


def fetch(url: str, file: Path, instead: str, *, md5: str | None = None, sha256: str | None = None) -> None:
    """Download a file, whole and verified or not at all; `instead` says what to do without a network."""
    from vpt.backbones.fetch import ELSEWHERE, download

    try:
        with bar(f"fetching {file.name}") as tick:
            download(url, file, md5=md5, sha256=sha256, progress=tick)
    except VptError as error:
        raise VptError(str(error).replace(ELSEWHERE, f"without a network {instead}")) from error


# --- the folder that is made ------------------------------------------------------------------------------------------


@contextmanager
def new_folder(target: Path) -> Iterator[tuple[Path, Path]]:
    """(a folder for what is thrown away, one that becomes `target` at the end), on the same disk.

    Raises VptError where the target is there already, or cannot be written; nothing is left then.
    """
    if target.exists() or target.is_symlink():
        raise VptError(f"{target}: is there already; remove it, or give another folder with --to")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".part-{target.name}-", dir=target.parent) as part:
            new = Path(part, "new")
            new.mkdir()
            try:
                yield Path(part), new
            except VptError as error:
                raise VptError(str(error).replace(str(new), str(target))) from error
            os.rename(new, target)
    except OSError as error:
        raise VptError(
            f"{target}: cannot be written ({error.strerror or error}); free space or choose another folder, "
            "nothing was left half-written"
        ) from error


def place(source: Path, target: Path) -> None:
    """The same file at a second place, whole or not at all: a hard link, or else a copy. Its folder is made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk, or one that knows no links
        part = target.with_name(f".part-{os.getpid()}-{target.name}")
        try:  # not by `atomic`, which would name the file where the whole set cannot be written
            shutil.copyfile(source, part)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)


# --- sides ------------------------------------------------------------------------------------------------------------


def draw(groups: Mapping[str, str], strata: Mapping[str, str] | None = None, seed: int = 0) -> dict[str, list[str]]:
    """Sides drawn by group: 70, 10 and 20 percent of them for training, validation and test.

    groups: case -> the patient, or what else must stay on one side; strata: case -> its class, of which every side
    gets its share (a group's is that of its first case).
    """
    if len(set(groups.values())) < 2:
        raise VptError(
            f"{counted(len(groups), 'case')} of {counted(len(set(groups.values())), 'patient')}, expected at least 2 "
            "patients"
        )
    stratum: dict[str, str] = {}
    for case, group in sorted(groups.items()):
        stratum.setdefault(group, (strata or {}).get(case, ""))
    order = sorted(stratum)
    random.Random(seed).shuffle(order)
    order.sort(key=stratum.__getitem__)  # stable: shuffled within a class
    side = {group: DEAL[number % len(DEAL)] for number, group in enumerate(order)}
    return {each: sorted(case for case, group in groups.items() if side[group] == each) for each in SIDES}


def write_split(folder: Path, split: Mapping[str, Sequence[str]]) -> None:
    write_json(folder / "split.json", {side: sorted(split[side]) for side in SIDES})


# --- the whole way ----------------------------------------------------------------------------------------------------


def make_set(
    origin: Origin, to: Path, source: Path | None, downloads: Path | None, build: Callable[[Material, Path], None]
) -> str:
    """Have `build` fill a new folder that `vpt` reads, from `source` or from what is fetched -> where it is, in words.

    downloads: where archives are kept; None: downloads/ beside the folder.

    Raises:
        VptError: a folder that is there already, what is wrong with the material, no network; nothing is left then, but
            for the archives, which are gone on with.
    """
    kept = downloads or to.parent / "downloads"
    was_there = kept.exists()
    try:
        with new_folder(to) as (scratch, new):
            build(Material(origin, source, kept, scratch), new)
            counts = {side: len(names) for side, names in read_splits(read_dataset(new)).to_dict().items()}
    finally:
        if not was_there:
            with suppress(OSError):  # there are archives in it
                kept.rmdir()
    sides = ", ".join(f"{side} {count}" for side, count in counts.items())
    return (
        f"{to}: {counted(sum(counts.values()), 'case')} {agreeing(sum(counts.values()), 'are')} ready ({sides}), "
        f"look at them with `vpt check {to}`"
    )
