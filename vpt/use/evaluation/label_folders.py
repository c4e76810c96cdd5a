"""References with a folder for each case and a mask for each label in it, as `s0001/segmentations/liver.nii.gz`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vpt.data.alike_names import stem_of_name
from vpt.data.cases import case_name, kind_of
from vpt.data.ids_in_names import FOLDER, by_case
from vpt.data.layouts.annotated import is_told, without_masks
from vpt.data.layouts.description import description, given_labels, numbers_of
from vpt.data.layouts.naming import IMAGE, MASK, PLAIN
from vpt.errors import VptError
from vpt.readers import LabelFiles, reader_of
from vpt.use.evaluation.paired_names import mask_files, require_references
from vpt.use.evaluation.pairs import Mask, Matched, Pair, mask_of
from vpt.vocabulary import SIDE_WORDS
from vpt.words import counted, listed

ENOUGH = 0.5  # of the cases, and more, have each label where folders of predictions are to be labels too
MOST_SAID = 3  # labels whose numbers are said


@dataclass(frozen=True)
class _Folder:
    """A case's name, the folder of its masks, and the mask of each label."""

    name: str
    path: Path
    masks: Mapping[str, Path]

    def mask(self, ids: Mapping[str, int]) -> Mask:
        """One label map of those that have an id."""
        files = LabelFiles(tuple((path, ids[label]) for label, path in sorted(self.masks.items()) if label in ids))
        return Mask(self.name, str(self.path), files)


def mask_at(path: Path, labels: Mapping[int, str]) -> Path | LabelFiles:
    """What is to be read of a scored mask: of a folder that is no series the files called as labels (id -> name)."""
    if not path.is_dir() or kind_of(path) is not None:
        return path
    ids = {name: id for id, name in labels.items()}
    masks = _by_label(mask_files(path)) or {}
    found = tuple((each, ids[label]) for label, each in sorted(masks.items()) if label in ids)
    return LabelFiles(found) if found else path


def pair_label_folders(
    predictions: Path, references: Path, own: Sequence[Path], expected: Sequence[Path], alike: bool
) -> Matched | None:
    """Folders of masks on both sides; None where they are not sure to be of one case each, with a mask for each label.

    own, expected: the folders that hold masks, as seen from both; alike: some masks are called alike on both sides, so
    that they can be paired by that where they are of two readers or of two times.
    """
    theirs = _folders(references, expected, called=True)
    if not _are_labels(theirs):
        return None
    labels = {label for each in theirs.values() for label in each.masks}
    mine = _folders(predictions, own, called=False)
    mine = {id: each for id, each in mine.items() if id in theirs and len(each.masks) > 1 and labels & {*each.masks}}
    if not mine or (alike and _are_of_one_thing(theirs[min(mine)])):
        return None
    taken = {path for each in mine.values() for path in (each.path, *each.path.parents)}
    if lone := [str(below) for below in own if predictions / below not in taken]:
        require_references(lone, (each.name for each in theirs.values()), predictions, references, "folder")
    ids = _numbers(references, labels)
    others = sorted({label for each in mine.values() for label in each.masks} - labels)
    said = f"not scored, since no reference has {'it' if len(others) == 1 else 'them'}: {listed(others, 5)}"
    pairs = {id: each.mask(ids) for id, each in mine.items()}
    return _matched(references, theirs, pairs, ids, said if others else "")


def pair_label_maps(
    predictions: Path, references: Path, own: Sequence[Path], expected: Sequence[Path]
) -> Matched | None:
    """Label maps, one for each case, with folders of masks, one for each label; None where none is called as a folder,
    or these hold one label alone, whose file may be a map as well, or masks of visits or slices.

    Raises VptError where only some are.
    """
    theirs = _folders(references, expected, called=True)
    files = [path for below in (Path(), *own) for path in mask_files(predictions / below)]
    mine = by_case(predictions, files, strictly=False, grids=True)
    lacking = [name for id, (name, _) in mine.items() if id not in theirs]
    labels = {label for each in theirs.values() for label in each.masks}
    if len(lacking) == len(mine) or len(labels) < 2 or all(map(_is_of_case, labels)):
        return None
    names = [each.name for each in theirs.values()]
    require_references(lacking, names, predictions, references, "the folder of each case")
    ids = _numbers(references, labels)
    said = f"numbered {_shown(ids)}; where predictions are numbered otherwise, `labels` in dataset.json says so"
    return _matched(references, theirs, {id: mask_of(path) for id, (_, path) in mine.items()}, ids, said)


def _matched(
    references: Path, theirs: Mapping[str, _Folder], mine: Mapping[str, Mask], ids: Mapping[str, int], said: str
) -> Matched:
    contents = [description(source) for source in _sources(references)]
    for id in mine:
        each = theirs[id]
        missing = sorted(ids.keys() - each.masks.keys())
        if missing and not any(is_told(content, each.name) for content in contents):
            raise VptError(f"{each.path}: {without_masks(each.name, sorted(each.masks), missing)}")
    pairs = [Pair(mask, theirs[id].mask(ids), theirs[id].name, references) for id, mask in sorted(mine.items())]
    missing_cases = {each.name: each.path for id, each in theirs.items() if id not in mine}
    how = f"references hold {counted(len(ids), 'label')}, a file for each"
    return replace(Matched.of(pairs, missing_cases, how, said), labels={id: label for label, id in ids.items()})


def _folders(root: Path, holding: Iterable[Path], *, called: bool) -> dict[str, _Folder]:
    """Id -> the folder of its masks; called: only those that a word for masks says to be such, in one of a case.

    {} where two are of one case, or two masks in one of one label.
    """
    found: dict[str, _Folder] = {}
    paths: dict[tuple[str, ...], Path] = {}
    for below in holding:
        says_mask = _says_mask(below.name)
        words = tuple(part for part in below.parts if _id((part,)))
        if not words or (called and not (says_mask and len(below.parts) > 1)):
            continue
        if not called and words in paths and says_mask is not _says_mask(paths[words].name):
            paths[words] = root / below if says_mask else paths[words]  # the other holds scans
            continue
        if words in paths:
            return {}
        paths[words] = root / below
    shared = _shared(paths) if len(paths) > 1 else 0
    for words, path in paths.items():
        masks = _by_label(mask_files(path))
        id = _id(words[shared:])
        if masks is None or id in found:
            return {}
        found[id] = _Folder("/".join(words[shared:]), path, masks)
    return found


def _says_mask(folder: str) -> bool:
    return not MASK.isdisjoint(PLAIN.of(folder.lower()))


def _shared(paths: Collection[tuple[str, ...]]) -> int:
    """How many folders at the top are those of all."""
    least = min(map(len, paths)) - 1
    return next((k for k in range(least) if len({parts[k] for parts in paths}) > 1), least)


def _id(parts: Iterable[str]) -> str:
    words = (word for part in parts for word in PLAIN.of(part))
    return "_".join(word for word in words if word.lower() not in FOLDER.words)


def _by_label(files: Sequence[Path]) -> dict[str, Path] | None:
    """Label -> mask, by what is left of the files' names; None where two have one, or some name says nothing else."""
    found: dict[str, Path] = {}
    for path in files:
        label = "_".join(word for word in PLAIN.of(case_name(path)) if word.lower() not in MASK | IMAGE)
        if not label or label in found:
            return None
        found[label] = path
    return found


def _are_labels(folders: Mapping[str, _Folder]) -> bool:
    """Whether masks in them are sure to be labels of a case, and no cases: of names that most folders share, which say
    no visit, side or number and are no scan's beside them, in folders that are called as no side.
    """
    counts = Counter(label for each in folders.values() for label in each.masks)
    shared = len(folders) > 1 and len(counts) > 1 and all(n > ENOUGH * len(folders) for n in counts.values())
    sides = {each.name.lower() for each in folders.values()} & SIDE_WORDS.keys()
    of_case = all(label[-1].isdigit() or _is_of_case(label) for label in counts)
    scans = {case_name(path) for each in folders.values() for path in mask_files(each.path.parent)}
    return shared and not (sides or of_case or scans & counts.keys())


def _is_of_case(label: str) -> bool:
    """Whether it says which of a case's masks it is: ED, post, 007."""
    return label.isdigit() or stem_of_name(f"case_{label}") == "case"


def _are_of_one_thing(folder: _Folder) -> bool:
    """Whether the first two masks of a case lie on each other, on two grids, or one has several values: no labels."""
    try:
        one, other = (reader_of(path).labels() for _, path in sorted(folder.masks.items())[:2])
    except (VptError, ValueError):  # what cannot be read is told by its case; or there is one mask
        return False
    if one.array.shape != other.array.shape:
        return True
    least = min(np.count_nonzero(each.array) for each in (one, other))
    several = any(len({*each.ids} - {0}) > 1 for each in (one, other))
    return several or bool(0 < least < 2 * np.count_nonzero((one.array != 0) & (other.array != 0)))


def _sources(references: Path) -> list[Path]:
    """The dataset.json in the folder of the references and in that above, which need not be there."""
    return [folder / "dataset.json" for folder in (references, references.resolve().parent)]


def _numbers(references: Path, labels: Collection[str]) -> dict[str, int]:
    """Label -> id: as one of these dataset.json has it, else in the order of the names, as training numbers them."""
    for source in _sources(references):
        if given := given_labels(description(source), source):
            return numbers_of(labels, given, source)
    return numbers_of(labels)


def _shown(ids: Mapping[str, int]) -> str:
    numbered = sorted((id, label) for label, id in ids.items())
    return listed((f"{id} {label}" for id, label in numbered), MOST_SAID)
