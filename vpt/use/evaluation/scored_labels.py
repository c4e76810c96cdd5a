"""Which labels an evaluation scores: those that are given, of the references' dataset.json, or all that occur."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import index
from pathlib import Path
from typing import Any, cast

import numpy as np

from vpt.data.doubts.labels import unnamed_label
from vpt.data.doubts.mask_looks import BETWEEN, lie_between
from vpt.data.doubts.mask_values import MOST_LABELS, MaskValues, SeenMask, too_many_values
from vpt.data.label_values import LabelValues, require_no_negative
from vpt.data.layouts.annotated import names_annotated
from vpt.data.layouts.description import description, read_labels
from vpt.errors import VptError
from vpt.readers import LabelFiles, LabelMap
from vpt.use.evaluation.named_cases import cases_meant, require_there, said_of_cases
from vpt.use.evaluation.pairs import Pair
from vpt.words import counted, did_you_mean, listed

DATASET = "dataset.json"
ONE_LABEL = {1, 255, 65535}  # ways to write the only one
MOST_IDS = 64  # a mask with more is looked at: an atlas has areas, a scan has another value in nearly every voxel
MOST_SHADES = 256  # of a picture's mask, all values are looked at for those that interpolation leaves
NONE: Mapping[int, str] = {}
ROUGH = 0.5  # of neighbours inside the foreground, so many differ in a scan


@dataclass(frozen=True)
class Labels:
    """The labels to score: id -> name in order of ids, without the background; and who says so, for messages."""

    names: dict[int, str]
    origin: str
    complete: bool = True  # False: the references may hold others as well
    found: bool = False  # in the references, where nobody has named them
    values: LabelValues | None = None  # what is in the files stands for, where it is not the labels' ids

    def id_of(self, label: int | str, where: str) -> int:
        """The id of a label that is named, or given as its id; `where` begins the sentence about one that is none."""
        named = {name: id for id, name in self.names.items()} | {str(id): id for id in self.names}
        if str(label) not in named:
            known = listed((name.removeprefix("label ") for name in self.names.values()), 20)
            meant = did_you_mean(str(label), self.names.values())
            raise VptError(f"{where}: {label} is none of the labels {known} (from {self.origin}){meant}")
        return named[str(label)]

    def check(self, found: LabelMap, shown: str, ignored: int | None = None) -> None:
        """Raise VptError for a mask that holds another label."""
        require_no_negative(found.ids if found.stored is None else found.stored, shown)
        if unknown := [id for id in found.ids if id not in {0, ignored, *self.names}]:
            raise VptError(
                f"{shown}: label{'s' if len(unknown) > 1 else ''} {listed(unknown, 8)} not in {listed(self.names, 20)} "
                f"(from {self.origin}); {self._mended(found, unknown)}"
            )

    def _mended(self, found: LabelMap, unknown: Sequence[int]) -> str:
        if lie_between(found, unknown):
            return f"{BETWEEN}: export it again without interpolation (nearest neighbour), or threshold it"
        if len(unknown) == len(self.names) == 1 and {*unknown, *self.names} <= ONE_LABEL:
            return f"if it is the same label written in another way, write {next(iter(self.names))} in both"
        return "add it to `labels`, or take it out of the file"


def choose_labels(
    given: Mapping[int, str] | Iterable[int | str] | None, pairs: Sequence[Pair], files: Mapping[int, str] = NONE
) -> Labels:
    """files: the labels (id -> name) of references that are a file for each."""
    if given is not None:
        return _with_values(_given_labels(_numbered(given, pairs, files)), pairs)
    for file in dataset_files(pairs):
        try:
            named = read_labels(file)
        except VptError as error:
            raise VptError(f"{error}; or give `labels`") from error
        if named is not None:
            values = LabelValues(named)
            names = {id: name for id, name in values.labels.items() if id}
            return Labels(names, str(file), values=None if values.is_plain else values)
    if files:
        return Labels(dict(sorted(files.items())), "the references' files")
    found: set[int] = set()
    seen = MaskValues(Path(pairs[0].reference.shown).parent)
    for pair in pairs:
        reference, (_, grid) = pair.reference, pair.grids()
        refuse_scan(held := reference.read(grid), reference.shown)
        ids = held.ids
        if ids[0] < 0:
            raise VptError(f"{reference.shown}: holds {ids[0]}, expected labels of 0 and above; is this a label map?")
        found.update(ids)
        mask = SeenMask.of(held, MOST_SHADES if reference.unit == "px" else MOST_LABELS)
        seen.add(os.path.relpath(reference.shown, seen.folder), mask)
    for doubt in seen.problems():
        raise VptError(f"{doubt}, or give `labels`")
    if len(found - {0}) > MOST_LABELS and pairs[0].reference.unit == "px":
        raise VptError(f"{too_many_values(Path(pairs[-1].reference.shown))}, or give `labels`")
    if found <= {0}:
        raise VptError(
            f"{pairs[0].reference.shown}: no label above 0 in any of {counted(len(pairs), 'reference')}; give `labels`"
        )
    return Labels({id: f"label {id}" for id in sorted(found - {0})}, "the references", found=True)


def annotated_of(
    pairs: Sequence[Pair],
    labels: Labels,
    given: Sequence[Collection[int] | None] | None,
    missing: Collection[str] = (),
) -> list[frozenset[int]]:
    """Of each pair the ids to score: those that are given, that a dataset.json names for its case, or all.

    missing: the cases that were not predicted, of which it may speak as well.
    """
    every = frozenset(labels.names)
    if given is not None:
        given = list(given)
        if len(given) != len(pairs):
            raise VptError(
                f"`annotated`: {counted(len(given), 'list')} for {counted(len(pairs), 'pair')}; give one for each, or "
                "None"
            )
        return [every if ids is None else every & _as_ids(ids) for ids in given]
    for file in dataset_files(pairs):
        said = names_annotated(description(file), file)
        if not said:
            continue
        known = LabelValues(read_labels(file) or labels.names).labels
        named = {name: id for id, name in known.items()}
        if unknown := [name for names in said.values() for name in names if name not in named]:
            meant = did_you_mean(unknown[0], named)
            raise VptError(f"{file}: `annotated` names {unknown[0]!r}, none of the labels{meant}")
        cases = cases_meant(said, pairs, missing)
        require_there([name for name in said if name not in cases], file, [*(pair.case for pair in pairs), *missing])
        chosen = said_of_cases(said, cases, file)
        return [
            every & frozenset(named[name] for name in chosen[pair.case]) if pair.case in chosen else every
            for pair in pairs
        ]
    return [every] * len(pairs)


def _as_ids(given: Collection[int]) -> frozenset[int]:
    """Raise VptError for what is no collection of ids."""
    try:
        return frozenset(map(index, given))
    except TypeError:
        raise VptError(f"`annotated`: {given!r}, expected the ids of a case's labels, such as {{1, 2}}") from None


def require_declared(ids: Iterable[int], annotated: Collection[int], labels: Labels, shown: str) -> None:
    """Raise VptError for a reference that holds a label to score which its case is not annotated for."""
    if odd := [labels.names[id] for id in ids if id in labels.names and id not in annotated]:
        raise VptError(f"{shown}: holds {listed(odd)}, which its case is not annotated for; add it to `annotated`")


def _numbered(
    given: Mapping[int, str] | Iterable[int | str], pairs: Sequence[Pair], files: Mapping[int, str]
) -> Mapping[int, str] | Iterable[int]:
    """The same, with the numbers that a dataset.json, or else labels in `files` of their own, have by their names.

    Raises VptError for such a label that is given another number, since its masks were numbered before.
    """
    if isinstance(given, Mapping):
        ids = {name: id for id, name in files.items()}
        for id, name in given.items():
            if ids.get(name, id) != id:
                raise VptError(
                    f"`labels`: {name} is given as {id}, and the references' files of it count as {ids[name]}; say in "
                    f'a dataset.json beside them how the predictions number it: "labels": {{"{name}": {id}, ...}}, '
                    "with every label that has files"
                )
    if isinstance(given, Mapping | str) or not isinstance(given, Iterable):
        return cast(Any, given)
    asked = list(given)
    if not (names := [label for label in asked if isinstance(label, str)]):
        return cast(Any, {id: files[cast(int, id)] for id in asked} if files.keys() >= {*asked} else asked)
    for file in dataset_files(pairs):
        if named := read_labels(file):
            known = {id: name for id, name in LabelValues(named).labels.items() if id}
            labels = Labels(known, str(file))
            return {id: known.get(id, unnamed_label(id)) for id in (labels.id_of(label, "`labels`") for label in asked)}
    if files:
        labels = Labels(dict(files), "the references' files")
        return {id: files[id] for id in (labels.id_of(label, "`labels`") for label in asked)}
    raise VptError(
        f"`labels`: {listed(names)}, and no dataset.json beside the references names labels; give their numbers, such "
        "as 1,2"
    )


def _given_labels(given: Mapping[int, str] | Iterable[int]) -> Labels:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise VptError(f"`labels`: {given!r}, expected ids such as [1, 2], or {{1: 'liver'}}")
    named = given if isinstance(given, Mapping) else {label: f"label {label}" for label in given}
    try:
        names = dict(sorted((index(label), str(name)) for label, name in named.items() if index(label) != 0))
    except TypeError:
        raise VptError(f"`labels`: {listed(named)} are not integer labels, such as 1, 2, 3") from None
    if not names or min(names) < 0:
        raise VptError(f"`labels`: labels {listed(names) or 'none'}, expected at least one, all above 0")
    return Labels(names, "`labels`", complete=False)


def _with_values(labels: Labels, pairs: Sequence[Pair]) -> Labels:
    """The labels that are given, of masks whose dataset.json merges, drops or ignores values: these are its ids.

    A dataset.json that cannot be read says nothing, since `labels` is what takes its place.
    """
    for file in dataset_files(pairs):
        try:
            named = read_labels(file)
        except VptError:
            return labels
        if named is None:
            continue
        values = LabelValues(named)
        if values.is_plain:
            return labels
        if unknown := [id for id in labels.names if id not in values.labels]:
            raise VptError(
                f"`labels`: {listed(unknown)} not among the labels of {file}, which merges, drops or ignores values: "
                f"{listed(f'{id} {name}' for id, name in values.labels.items() if id)}; give those"
            )
        return replace(labels, values=values)
    return labels


def dataset_files(pairs: Sequence[Pair]) -> list[Path]:
    """The `dataset.json` that hold for all references: of the folder that they lie in, of those above it up to the
    one that was given, and of the one above that; of files in several folders none.
    """
    folders = reference_folders(pairs)
    if not folders:
        return []
    given = pairs[0].folder.resolve() if pairs[0].folder else None
    common = Path(os.path.commonpath(folders))
    if given is None and len(folders) > 1:
        return []
    if given is None or not common.is_relative_to(given):
        given = given or common
        common = given
    inside = [folder for folder in (common, *common.parents) if folder.is_relative_to(given)]
    return [file for folder in (*inside, given.parent) if (file := folder / DATASET).is_file()]


def reference_folders(pairs: Sequence[Pair]) -> set[Path]:
    sources = [pair.reference.source for pair in pairs]
    return {Path(source).parent.resolve() for source in sources if isinstance(source, Path | LabelFiles)}


def unread_beside(pairs: Sequence[Pair]) -> str:
    """That references in several folders have a dataset.json of their own, which is not read; "" for none."""
    read = dataset_files(pairs)
    texts = {file.read_bytes() for file in read}
    files = sorted(folder / DATASET for folder in reference_folders(pairs))
    unread = [file for file in files if file.is_file() and file not in read and file.read_bytes() not in texts]
    if not unread or pairs[0].folder is None:
        return ""
    return f"not read: {listed(unread, 2)}; put one that holds for all references into {pairs[0].folder}"


def refuse_scan(found: LabelMap, shown: str) -> None:
    """Raise VptError for a label map whose values are those of a scan."""
    lowest, highest = found.ids[0], found.ids[-1]
    negative = sum(id < 0 for id in found.ids)
    if len(found.ids) > MOST_IDS and (negative > 1 or _roughness(found.array) > ROUGH):
        raise VptError(
            f"{shown}: {len(found.ids)} different values from {lowest} to {highest}, which is a scan and no mask; give "
            "the mask in its place"
        )


def _roughness(array: np.ndarray) -> float:
    """Of neighbours along the first axis that are both foreground, the share with different values."""
    both = (array[1:] != 0) & (array[:-1] != 0)
    count = np.count_nonzero(both)
    return float(np.count_nonzero(both & (array[1:] != array[:-1])) / count) if count else 0.0
