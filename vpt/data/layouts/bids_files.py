"""Names of files as BIDS writes them: `sub-01_ses-02_label-lesion_mask.nii.gz`, entities and a suffix.

Source: the Brain Imaging Data Structure, common principles (entities) and derivatives (masks, discrete segmentations).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from vpt.data.cases import case_name, kind_of
from vpt.data.layouts.naming import MASK
from vpt.data.walking import Walk
from vpt.errors import VptError
from vpt.readers import is_part

DATATYPES = {"anat", "dwi", "perf", "func", "fmap", "pet", "micr", "meg", "eeg", "ieeg", "beh", "nirs", "motion", "mrs"}
MASKS = MASK | {"dseg", "roi", "lesion", "msk"}  # suffixes; BIDS itself knows mask and dseg
TRACED = {"seg", "gmseg", "wmseg", "lesion", "mask", "roi"}  # `sub-01_T2w_seg-manual`, behind the scan's own name
SOFT = ("probseg", "defacemask")  # neither scans nor masks
OF_A_CASE = ("sub", "ses", "run", "split")  # split: of a scan that was cut in two, as in VerSe
SUBJECT = re.compile(r"sub-[A-Za-z0-9+]+")
FORM = '"bids": {"masks": "derivatives/manual/*_mask.nii.gz", "scans": "*_T1w.nii.gz"}'


@dataclass(frozen=True)
class BidsFile:
    """One file of a subject: its entities in order, and what else its name says.

    name: without the ending; words: all that stands between `_`; pipeline: the folder below `derivatives`, "" of raw
    data; datatype: `anat` and the like, "" where no folder says it.
    """

    path: Path
    name: str
    words: tuple[str, ...]
    pipeline: str
    datatype: str
    entities: Mapping[str, str] = field(hash=False)

    @property
    def suffix(self) -> str:
        return self.words[-1]

    @property
    def is_mask(self) -> bool:
        key, _, traced = self.suffix.partition("-")
        named = any("-" not in word for word in self.words[:-1])
        return self.suffix.lower() in MASKS or (bool(traced) and named and key.lower() in TRACED)

    @property
    def is_scan(self) -> bool:
        return not self.is_mask and "-" not in self.suffix and not self.suffix.lower().endswith(SOFT)

    @property
    def subject(self) -> str:
        return self.words[0]

    def without(self, *keys: str) -> str:
        """Its name without these entities."""
        return "_".join(word for word in self.words if word.partition("-")[0] not in keys)


def bids_files(root: Path, chosen: Mapping[str, list[str]] | None = None) -> list[BidsFile]:
    """Scans and masks of subjects anywhere below a folder; nothing where no folder is called as a subject is.

    chosen: patterns of paths, as seen from `root`, of those that count as `scans` and `masks`.
    """
    found = [_file(path, root) for path in Walk(root).files() if SUBJECT.match(path.name) and kind_of(path)]
    files = [file for file in found if file is not None]
    for what, patterns in (chosen or {}).items():
        files = [
            file
            for file in files
            if file.is_mask != (what == "masks") or _is_one(file.path.relative_to(root).as_posix(), patterns)
        ]
    return files


def has_subjects(root: Path) -> bool:
    """Whether folders of subjects lie in it, or below `rawdata` or `derivatives`."""
    below = (root, root / "rawdata", root / "derivatives", *_folders(root / "derivatives"))
    return any(SUBJECT.fullmatch(path.name) for folder in below for path in _folders(folder))


def chosen_by(content: Mapping[str, Any], source: Path) -> dict[str, list[str]]:
    """`bids` of a dataset.json: patterns of `scans` and of `masks`."""
    found = content.get("bids", {})
    if not isinstance(found, dict) or not {*found} <= {"scans", "masks"}:
        raise VptError(f"{source}: `bids` is not understood; expected {FORM}")
    lists = {what: [given] if isinstance(given, str) else given for what, given in found.items()}
    if not all(isinstance(each, list) and each and {*map(type, each)} == {str} for each in lists.values()):
        raise VptError(f"{source}: `bids` holds what is no pattern of paths; expected {FORM}")
    return lists


def _file(path: Path, root: Path) -> BidsFile | None:
    name = case_name(path)
    words, folders = tuple(name.split("_")), path.relative_to(root).parts[:-1]
    if "sourcedata" in folders or words[0] not in folders or len(words) < 2 or not all(words) or is_part(path):
        return None
    entities = dict(word.split("-", 1) for word in words if "-" in word)
    below = folders[folders.index("derivatives") :] if "derivatives" in folders else ("",)
    pipeline = below[1] if len(below) > 1 and below[1] != words[0] else below[0]
    datatype = next((each for each in folders if each in DATATYPES), "")
    return BidsFile(path, name, words, pipeline, datatype, entities)


def _is_one(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(path, pattern) for pattern in patterns)


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
