"""Files in a folder that nothing reads: counted and named by their kind, so that none is left out in silence.

Links to folders are followed; what leads back to a folder above is not, since it would never end.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from vpt.data.doubts.drawn import drawn_among, told_of_drawn
from vpt.data.walking import Walk
from vpt.files import is_hidden
from vpt.readers import endings, format_of, reader_of
from vpt.readers.content import LIST
from vpt.readers.dicom.reader import DicomReader
from vpt.words import counted, listed

LONGEST_LINK = 1024  # bytes
PLANS = {"splits_final.json", "plans.json", "dataset_fingerprint.json"}  # of nnU-Net
KNOWN = {"dataset.json", "split.json", "labels.csv", LIST.lower()} | PLANS
DOCUMENTS = (  # that no one would convert to a scan
    *(".md", ".rst", ".pdf", ".doc", ".docx", ".xls", ".xlsx", ".pptx", ".html", ".bib", ".cff"),
    *(".log", ".py", ".ipynb", ".sh", ".md5", ".sha1", ".sha256"),
)
BESIDE = (
    *DOCUMENTS,
    ".txt",
    ".json",
    ".csv",
    ".tsv",
    ".jsonl",
    ".yaml",
    ".yml",
)
SIDECARS = (".json", ".tsv", ".bval", ".bvec")  # beside a scan, of its name: what dcm2niix and BIDS say of it
# Of a part of a data set:
DESCRIBING = {"dataset_description.json", "readme", "readme.md", "changes", "license", LIST.lower()}
DOUBLE = (".gz", ".bz2", ".zst", ".xz", ".zip")  # of endings such as .nii.bz2


def leads_nowhere(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def link_in_text(path: Path) -> str:
    """Where a file leads that holds nothing but the path of something there, as git and some copies leave a link."""
    try:
        if path.is_symlink() or not 0 < path.stat().st_size <= LONGEST_LINK:
            return ""
        text = path.read_bytes().decode()
        return text if text.isprintable() and (path.parent / text).exists() else ""
    except (OSError, ValueError):
        return ""


def _of_texts(root: Path, texts: Sequence[Path]) -> str:
    links = listed((f"{path.relative_to(root).as_posix()} to {link_in_text(path)}" for path in texts), 3)
    return (
        f"{counted(len(texts), 'link')} that a copy left as a text file, not followed: {links}; make it a link again "
        "(cp -a keeps them, git with core.symlinks=true), or copy what it leads to"
    )


def ending_of(path: Path) -> str:
    """`.nii.bz2`, `.mat`, ...; "" where there is none."""
    first, last = Path(path.stem).suffix.lower(), path.suffix.lower()
    return first + last if last in DOUBLE and len(first) < 6 else last


def kinds(files: Iterable[Path]) -> str:
    """ "20 .gif and 1 .mha": how many files of each ending, the most frequent first."""
    endings = Counter(ending_of(path) or "without ending" for path in files).most_common()
    return listed((f"{number} {ending}" for ending, number in endings), 8)


@dataclass(frozen=True)
class LeftOut:
    """What is not read of a folder: files of other kinds, files of known kinds in folders that are not entered, links,
    folders that nobody may enter.

    nested: by the folder at the top that they lie in.
    """

    root: Path
    files: tuple[Path, ...] = ()
    nested: tuple[Path, ...] = ()
    circles: tuple[Path, ...] = ()
    locked: tuple[Path, ...] = ()

    def sentences(self, wanted: str = "", read: str = "") -> list[str]:
        """In words; `wanted`: what to convert files to, `read`: why files of known kinds are not read."""
        every = (*self.files, *self.nested)
        texts = [path for path in every if link_in_text(path)]
        gone = [path for path in every if leads_nowhere(path)]
        links = {*texts, *gone}
        files, nested = ([path for path in paths if path not in links] for paths in (self.files, self.nested))
        drawn = drawn_among(self.files)
        other = [path for path in files if not format_of(path) and path not in drawn]
        known = [path for path in files if format_of(path)]
        said = (
            other and f"{_are(other)} not read{_where(self.root, other)}; convert them{wanted}, or take them out",
            known and f"{_are(known)} not read{_where(self.root, known)}{read}",
            nested and self._of_nested(nested),
            drawn and told_of_drawn(self.root, drawn),
            texts and _of_texts(self.root, texts),
            gone and f"{counted(len(gone), 'link')} to what is not there: {self._leading(gone)}; mend or remove it",
            self.circles
            and f"{counted(len(self.circles), 'link')} back to a folder above, not followed: "
            f"{self._named(self.circles)}; remove it",
            self.locked
            and f"{counted(len(self.locked), 'folder')} that may not be read: {self._named(self.locked)}; have the "
            "permission to read and enter given (chmod u+rx), or run as who has it",
        )
        return [sentence for sentence in said if sentence]

    def _of_nested(self, nested: Sequence[Path]) -> str:
        tops = sorted({*map(self._top, nested)})
        return (
            f"{counted(len(tops), 'subfolder')} with {counted(len(nested), 'file')} ({kinds(nested)}) "
            f"{'is' if len(tops) == 1 else 'are'} not read: {listed(tops, 5)}; add --recursive, give each "
            "as a folder of its own, or move the files up"
        )

    def _top(self, path: Path) -> str:
        """The folder at the top that a file lies in; below one that is a scan itself, its own."""
        inside = path.relative_to(self.root)
        return inside.parts[0] if format_of(self.root / inside.parts[0]) is None else inside.parent.as_posix()

    def _named(self, paths: Iterable[Path]) -> str:
        return listed((path.relative_to(self.root).as_posix() for path in paths), 3)

    def _leading(self, links: Iterable[Path]) -> str:
        return listed((f"{path.relative_to(self.root).as_posix()} to {os.readlink(path)}" for path in links), 3)


def left_out(root: Path, read: Collection[Path], *, nested: bool = False) -> LeftOut:
    """What is not read of a folder and below, when `read` are the files that are.

    nested: files in subfolders count as such. Descriptions at the top (README.md, dataset.json, ...), documents and
    what lies beside a scan of its name do not count.
    """
    walk, known = Walk(root), _with_their_parts(read)
    others = tuple({*endings("volumes")} - {*DicomReader.endings})
    files: list[Path] = []
    deeper: list[Path] = []
    for path in walk.files():
        if os.path.abspath(path) in known:
            continue
        if os.path.abspath(path.parent) in known and not path.name.lower().endswith(others):
            continue  # a folder of slices is one scan, but a volume in another format is none of them
        describes = _is_sidecar(path) or (path.parent == root and _is_description(path))
        if describes and not (leads_nowhere(path) or link_in_text(path)):
            continue
        (deeper if nested and path.parent != root else files).append(path)
    return LeftOut(root, tuple(files), tuple(deeper), tuple(walk.circles), tuple(walk.locked))


def beside(folder: Path, files: Iterable[Path]) -> LeftOut:
    """What lies in the folders of some files of `folder`, and is none of them."""
    known = _with_their_parts(files)
    folders = sorted({Path(os.path.dirname(file)) for file in known})
    inside = [each for each in folders if each.is_relative_to(os.path.abspath(folder))]
    found = (path for each in inside for path in sorted(each.iterdir()) if path.is_file() and not is_hidden(path))
    out = [path for path in found if str(path) not in known and not _is_description(path)]
    return LeftOut(Path(os.path.abspath(folder)), tuple(out))


def unread_beside(folder: Path) -> str:
    """What a folder holds that cannot be read, as the end of a sentence that found nothing in it; "" where nothing."""
    if not folder.is_dir():
        return ""
    every = list(Walk(folder).files())
    if texts := [path for path in every if link_in_text(path)]:
        return f"; {_of_texts(folder, texts)}"
    if drawn := told_of_drawn(folder, drawn_among(every)):
        return f"; {drawn}"
    found = [path for path in every if not _is_description(path)]
    other = [path for path in found if not format_of(path)]
    deeper = sorted({path.relative_to(folder).parts[0] for path in found if format_of(path) and path.parent != folder})
    unread = f"; {_are(other)} not read{_where(folder, other)}: convert them" if other else ""
    return unread + (
        f"; {counted(len(deeper), 'subfolder')} with files that can be read: {listed(deeper)}" if deeper else ""
    )


def _with_their_parts(read: Iterable[Path]) -> set[str]:
    """Absolute paths of files that are read, and of those that they cannot do without."""
    return {os.path.abspath(file) for path in read for file in (path, *(reader_of(path).files()))}


def _is_description(path: Path) -> bool:
    name = path.name.lower()
    return name in KNOWN or name.endswith(BESIDE) or (not path.suffix and _is_text(path))


def _is_text(path: Path) -> bool:
    """Whether a file without an ending is text (README, LICENSE), and not an image that lost its own, or a pipe."""
    if not path.is_file():
        return False
    try:
        with open(path, "rb") as file:
            return b"\0" not in file.read(LONGEST_LINK)
    except OSError:
        return True


def _is_sidecar(path: Path) -> bool:
    """What only says something of other files: of a scan of its name, of numbers of labels, of a part of the set."""
    name = path.name.lower()
    if name in DESCRIBING or name.endswith(("dseg.tsv", *DOCUMENTS)):
        return True
    alike = path.parent.glob(f"{escape(path.stem)}.*") if path.suffix.lower() in SIDECARS else ()
    return any(map(format_of, alike))


def _are(files: Collection[Path]) -> str:
    if len({ending_of(path) for path in files}) == 1:
        ending = ending_of(next(iter(files)))
        return f"{len(files)} {ending or 'nameless'} file{' is' if len(files) == 1 else 's are'}"
    return f"{len(files)} files ({kinds(files)}) are"


def _where(root: Path, files: Iterable[Path]) -> str:
    folders = sorted({path.relative_to(root).parent.as_posix() for path in files} - {"."})
    return f" in {listed(folders, 3)}" if folders else ""
