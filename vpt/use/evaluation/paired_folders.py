"""The masks in two folders and those below, of an archive or with a folder for each case."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from vpt.data.cases import case_name, kind_of
from vpt.data.ids_in_names import DERIVATIVES, FOLDER, below_derivatives, by_case, id_of, says_mask
from vpt.data.layouts.bids_files import DATATYPES, SUBJECT
from vpt.data.layouts.naming import IMAGE
from vpt.data.walking import Walk
from vpt.errors import VptError
from vpt.readers import Kind
from vpt.use.evaluation.label_folders import pair_label_folders, pair_label_maps
from vpt.use.evaluation.paired_names import mask_files, not_taken, pair_names, require_references
from vpt.use.evaluation.paired_with_set import pair_with_set
from vpt.use.evaluation.pairs import Matched, Pair, mask_of
from vpt.words import counted, listed, with_article

PROBABILITIES, PREVIEWS = "probabilities", "previews"  # folders of what is written beside masks
BESIDE_MASKS = {PROBABILITIES, PREVIEWS}
SCANS = IMAGE | {"imagests"}  # folders, also those of scans to predict, which no references lie in
Cases = Mapping[str, tuple[str, Path]]  # id -> name and mask, see `by_case`
MOST_SAID = 3  # folders of which is said how their masks were paired


def pair_folders(predictions: Any, references: Any) -> Matched:
    """The masks in two folders and those below, as `vpt.use.evaluation.pairing.pair_masks` says.

    Raises VptError where one of the two is no folder.
    """
    for one, other in ((predictions, references), (references, predictions)):
        if not is_folder(one):
            shown = one if isinstance(one, str | Path) else with_article(type(one).__name__)
            if isinstance(one, str | Path) and not Path(one).exists():
                raise VptError(f"{shown}: no such folder, expected one as {other} is; correct the path")
            raise VptError(f"{shown}: not a folder, but {other} is one; give two folders or two files")
    mine, theirs = Path(predictions), Path(references)
    own, expected = (_below(one, other) for one, other in ((mine, theirs), (theirs, mine)))
    expected = _without_raw(theirs, expected)
    alike = [below for below in expected if _called_alike(mine / below, theirs / below)]
    if matched := pair_with_set(mine, theirs, own):
        return matched
    if matched := pair_label_folders(mine, theirs, own, expected, bool(alike)):
        return matched
    if matched := _pair_cases(mine, theirs, own, expected, bool(alike)):
        return matched
    if mask_files(mine) or not alike:
        alike.insert(0, Path())
    parts = {below: pair_names(mine / below, theirs / below) for below in alike}
    pairs = [
        replace(pair, case=_inside(below, pair.case), folder=theirs)
        for below, part in parts.items()
        for pair in part.pairs
    ]
    named = ((below, zip(part.missing, part.missing_files, strict=True)) for below, part in parts.items())
    missing = {_inside(below, name): file for below, both in named for name, file in both}
    kinds = _kinds(pairs)
    missing |= _unpredicted(theirs, (each for each in (Path(), *expected) if each not in parts), kinds)
    lone = [below for below in own if below not in alike and _of_kinds(mine / below, kinds)]
    said = [*dict.fromkeys(part.said for part in parts.values() if part.said)]
    more = f"and so on in {counted(len(said) - MOST_SAID, 'folder')} more" if len(said) > MOST_SAID else ""
    return Matched.of(pairs, missing, *said[:MOST_SAID], more, _not_scored(lone))


def _pair_cases(
    predictions: Path, references: Path, own: Sequence[Path], expected: Sequence[Path], alike: bool
) -> Matched | None:
    """Masks of which one side has a folder for each case at least, by whose they are by their paths; None for others.

    alike: some lie in folders below as masks that are called so; all these have to be called as their folders then.
    Raises VptError where only some predictions find a reference, or by their paths none does.
    """
    flat, other_flat = bool(mask_files(predictions)), bool(mask_files(references))
    if (flat and other_flat) or (alike and (flat or other_flat)):
        return None
    mine = _masks_in_all(predictions, [Path()] if flat else own)
    theirs = _masks_in_all(references, [Path()] if other_flat else _without_scans(expected))
    found, known = _by_case(predictions, mine, references, theirs)
    lacking = {id: name for id, (name, _) in found.items() if id not in known}
    if len(lacking) == len(found):
        if matched := pair_label_maps(predictions, references, own, expected):
            return matched
        if found and known and not alike:
            _refuse_all(predictions, references, found, known)
        return None
    own_folders = {id: below_derivatives(path.relative_to(references)).parts[0] for id, (_, path) in known.items()}
    if alike and (lacking or any(id_of(own_folders[id], FOLDER) != id for id in found)):
        return None
    expected_names = [name for name, _ in known.values()]
    require_references([*lacking.values()], expected_names, predictions, references, "the folder of each case")
    pairs = [Pair(mask_of(path), mask_of(known[id][1]), known[id][0], references) for id, (_, path) in found.items()]
    kinds = _kinds(pairs)
    missing = {name: path for id, (name, path) in known.items() if id not in found and kind_of(path) in kinds}
    if other_flat:
        missing |= _unpredicted(references, expected, kinds)
    lone = [below for below in own if flat and _of_kinds(predictions / below, kinds)]
    mask, truth = (Path(each.shown) for each in (pairs[0].prediction, pairs[0].reference))
    names = f"{mask.relative_to(predictions)} with {truth.relative_to(references)}"
    said = f"paired by the folder of each case: {names} ({pairs[0].case})"
    sides = (predictions, mine, found), (references, theirs, known)
    passed = [path.relative_to(side) for side, files, cases in sides for path in _others(files, cases)]
    return Matched.of(pairs, missing, said, not_taken(passed), _not_scored(lone))


def _by_case(predictions: Path, mine: Sequence[Path], references: Path, theirs: Sequence[Path]) -> tuple[Cases, Cases]:
    """Predictions and references by whose they are; what BIDS says of their grids is left out where that pairs all, and
    so are folders of datatypes (`dwi/`) that one side alone has.
    """
    datatypes = all(_name_datatypes(files, root) for files, root in ((mine, predictions), (theirs, references)))

    def by(grids: bool) -> tuple[Cases, Cases]:
        found = by_case(predictions, mine, strictly=False, grids=grids, datatypes=grids or datatypes)
        return found, by_case(references, theirs, strictly=True, grids=grids, datatypes=grids or datatypes)

    usual = by(grids=True)
    if _pair_all(*usual):
        return usual
    without = by(grids=False)
    return without if _pair_all(*without) else usual


def _name_datatypes(files: Iterable[Path], root: Path) -> bool:
    return any(not DATATYPES.isdisjoint(path.relative_to(root).parts[:-1]) for path in files)


def _pair_all(found: Cases, known: Cases) -> bool:
    return bool(found) and found.keys() <= known.keys()


def _refuse_all(predictions: Path, references: Path, found: Cases, known: Cases) -> NoReturn:
    (name, mask), (other, reference) = (next(iter(cases.values())) for cases in (found, known))
    raise VptError(
        f"{references}: no reference for any mask in {predictions}; they are paired by the folder of each case, and "
        f"{mask.relative_to(predictions)} is of {name}, {reference.relative_to(references)} of {other}: rename the one "
        "or the other, or give files of one mask for each case"
    )


def _others(files: Iterable[Path], cases: Cases) -> list[Path]:
    taken = {path for _, path in cases.values()}
    return [path for path in files if path not in taken]


def _masks_in_all(folder: Path, below: Iterable[Path]) -> list[Path]:
    return [path for each in below for path in mask_files(folder / each)]


def _without_scans(below: Iterable[Path]) -> list[Path]:
    """Folders that are not called as one of scans, nor lie in one, by their paths."""
    return [each for each in below if not {part.lower() for part in each.parts} & SCANS]


def _without_raw(references: Path, below: Sequence[Path]) -> list[Path]:
    """Folders without those of BIDS' raw scans, where masks lie in `derivatives` beside them."""
    saying = {each for each in below if any(says_mask(case_name(path)) for path in mask_files(references / each))}
    if not any(DERIVATIVES in each.parts for each in saying):
        return [*below]
    return [each for each in below if each in saying or DERIVATIVES in each.parts or not SUBJECT.match(each.parts[0])]


def _kinds(pairs: Iterable[Pair]) -> set[Kind | None]:
    return {kind_of(Path(pair.reference.shown)) for pair in pairs}


def _of_kinds(folder: Path, kinds: Collection[Kind | None]) -> list[Path]:
    """The masks in a folder of which nothing is paired."""
    return [path for path in mask_files(folder) if kind_of(path) in kinds]


def _unpredicted(folder: Path, below: Iterable[Path], kinds: Collection[Kind | None]) -> dict[str, Path]:
    """The references in folders of which nothing is paired: name -> file."""
    return {
        _inside(each, case_name(path)): path
        for each in _without_scans(below)
        for path in _of_kinds(folder / each, kinds)
    }


def _not_scored(folders: Sequence[Path]) -> str:
    """That no reference lies in folders of predictions, in words; "" for none."""
    if not folders:
        return ""
    names = listed((each.as_posix() for each in folders), 3)
    return f"not scored, since no reference called alike lies there: {counted(len(folders), 'folder')} ({names})"


def _below(folder: Path, other: Path) -> list[Path]:
    """The folders in it, at any depth, that hold masks, by their paths in it; other: of what these are compared with.

    Without DICOM series, which are masks themselves, and what lies beside masks.
    """
    holding = {path.parent for path in Walk(folder).files() if kind_of(path)} - {folder}
    if folder.resolve() in (apart := other.resolve()).parents:
        holding = {path for path in holding if not path.resolve().is_relative_to(apart)}
    inside = (path.relative_to(folder) for path in sorted(holding) if kind_of(path) is None)
    return [below for below in inside if not {*below.parts} & BESIDE_MASKS]


def _called_alike(predictions: Path, references: Path) -> bool:
    """Whether some mask in one folder is called as one in the other."""
    found, expected = ({id_of(case_name(path)) for path in mask_files(each)} for each in (predictions, references))
    return bool(found & expected)


def _inside(below: Path, name: str) -> str:
    return (below / name).as_posix()


def is_folder(given: Any) -> bool:
    return isinstance(given, str | Path) and Path(given).is_dir()
