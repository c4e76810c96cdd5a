"""The masks in two folders themselves, paired by their names, or by whose they are by these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from vpt.data.cases import case_name, kind_of, scan_files
from vpt.data.ids_in_names import NUMBERED, RARER, USUAL, Telling, id_of, own_name, says_mask
from vpt.data.layouts.naming import MASK, SAYING
from vpt.errors import VptError
from vpt.use.evaluation.pairs import Mask, Matched, Pair, mask_of
from vpt.words import counted, listed

WAYS = ((USUAL, USUAL), (RARER, RARER), (RARER, NUMBERED), (NUMBERED, RARER))
"""What is left out of predictions' and of references' names; the first that pairs them is taken."""


def pair_names(predictions: Path, references: Path) -> Matched:
    """The masks in two folders themselves."""
    found, expected = _masks_in(predictions), _masks_in(references)
    unpaired = found.keys() - expected.keys()
    if not (unpaired or _scans_in_the_way(found, expected)):
        return _paired(found, expected)
    if by_id := _by_ids(found, expected, predictions, references):
        mine, theirs, telling = *by_id, USUAL
    elif unpaired and (by_rarer_id := _by_rarer_ids(found, expected, predictions, references)):
        mine, theirs, telling = by_rarer_id
    else:
        require_references(unpaired, expected, predictions, references, "name")
        return _paired(found, expected)
    require_references(mine.keys() - theirs.keys(), theirs, predictions, references, "the id in their names")
    matched = _paired(mine, theirs, telling)
    first = next((pair for pair in matched.pairs if pair.prediction.name != pair.reference.name), matched.pairs[0])
    files = [Path(mask.shown).name for mask in (first.prediction, first.reference)]
    said = f"paired by the id in the names: {files[0]} with {files[1]} ({first.case})"
    passed = not_taken([*_passed(found, mine), *_passed(expected, theirs)])
    return replace(matched, said="; ".join(filter(None, (said, passed))))


def _by_ids(
    found: Mapping[str, Mask],
    expected: Mapping[str, Mask],
    predictions: Path,
    references: Path,
    way: tuple[Telling, Telling] = WAYS[0],
) -> tuple[dict[str, Mask], dict[str, Mask]] | None:
    """Both by the ids in their names, where that pairs all or more than equal names do, or these are scans.

    Raises VptError for two masks with one id.
    """
    with_scans = any(scans_and_masks(names, way[0].masks)[1] for names in (found, expected))
    alike = {*found} & {*expected} if not with_scans else set[str]()
    mine, theirs = _by_id(found, predictions, alike, way[0]), _by_id(expected, references, alike, way[1])
    paired = mine.keys() & theirs.keys()
    is_better = len(paired) == len(mine) or len(paired) > len(found.keys() & expected.keys())
    return (mine, theirs) if is_better or _scans_in_the_way(found, expected) else None


def _by_rarer_ids(
    found: Mapping[str, Mask], expected: Mapping[str, Mask], predictions: Path, references: Path
) -> tuple[dict[str, Mask], dict[str, Mask], Telling] | None:
    """The same, and what was left out of the references' names, where that pairs all.

    Numbers are left out on one side alone, of which the other has none: mask 2 of a case is not its mask 1.
    """
    counted_in = [any(id_of(name, NUMBERED) != id_of(name, RARER) for name in names) for names in (found, expected)]
    for way in WAYS[1:]:
        if any(telling.numbers and has for telling, has in zip(way, reversed(counted_in), strict=True)):
            continue
        with suppress(VptError):  # two of one id, by words that would not have been left out else
            by_id = _by_ids(found, expected, predictions, references, way)
            if by_id and len(by_id[0].keys() & by_id[1].keys()) == len(found):
                return *by_id, way[1]
    return None


def _paired(found: Mapping[str, Mask], expected: Mapping[str, Mask], telling: Telling = USUAL) -> Matched:
    """Those of one name or id, called as the reference is, without the words that an id lacks.

    Scans with a mask beside them are no references that lack a prediction.
    """
    names = {key: key if key == mask.name else own_name(mask.name, telling) for key, mask in expected.items()}
    pairs = [Pair(mask, expected[key], names[key]) for key, mask in found.items()]
    scans = _scans_with_masks({mask.name for mask in expected.values()}, SAYING)
    lacking = {key: mask for key, mask in expected.items() if key not in found}
    missing = {names[key]: Path(mask.shown) for key, mask in lacking.items() if mask.name not in scans}
    passed = [Path(mask.shown).name for mask in lacking.values() if mask.name in scans]
    return Matched.of(pairs, missing, not_taken(passed))


def require_references(
    unpaired: Collection[str], expected: Iterable[str], predictions: Path, references: Path, how: str
) -> None:
    if unpaired:
        raise VptError(
            f"{references}: no reference for {listed(sorted(unpaired))} in {predictions}; files are paired by {how}, "
            f"as {listed(expected, 2)}: rename the predictions, take them out, or add their references"
        )


def _scans_in_the_way(found: Mapping[str, Mask], expected: Mapping[str, Mask]) -> bool:
    """Whether references called as predictions are scans, beside which a file says that it is their mask."""
    return not found.keys().isdisjoint(_scans_with_masks(expected))


def _scans_with_masks(names: Collection[str], words: Collection[str] = MASK) -> set[str]:
    """The names that say no mask, where another one does and has the same id."""
    scans, _ = scans_and_masks(names, words)
    telling = USUAL if words == MASK else RARER
    masked = {id_of(name, telling) for name in {*names} - scans}
    return {name for name in scans if id_of(name, telling) in masked}


def scans_and_masks(names: Iterable[str], words: Collection[str] = MASK) -> tuple[set[str], set[str]]:
    """Names that do not say mask, and those that say they are the mask of one of these; words: what says it."""
    saying = {name for name in names if says_mask(name, words)}
    scans = {*names} - saying
    ids = {id_of(name) for name in scans}
    return scans, {name for name in saying if id_of(name) in ids}


def _by_id(masks: Mapping[str, Mask], folder: Any, alike: Collection[str], telling: Telling) -> dict[str, Mask]:
    """Id -> mask; where some names say that they are masks, only those, and those that are `alike` in both folders.

    Raises VptError for two masks with one id.
    """
    saying = {name for name in masks if says_mask(name, telling.masks)}
    found: dict[str, Mask] = {}
    for name, mask in masks.items():
        if saying and name not in saying and name not in alike:
            continue
        id = id_of(name, telling)
        if id in found:
            raise VptError(
                f"{folder}: {Path(found[id].shown).name} and {Path(mask.shown).name} are both of {id} by their names; "
                "keep one of the two, or give predictions and references equal names"
            )
        found[id] = mask
    return dict(sorted(found.items()))


def _passed(masks: Mapping[str, Mask], taken: Mapping[str, Mask]) -> list[str]:
    """The files' names of those that `_by_id` did not take."""
    return [Path(mask.shown).name for mask in masks.values() if mask not in taken.values()]


def not_taken(files: Sequence[object]) -> str:
    """That files are no masks, in words; "" for none."""
    return f"{counted(len(files), 'file')} not taken for masks, since others say so: {listed(files)}" if files else ""


def _masks_in(folder: Path) -> dict[str, Mask]:
    """Case name -> mask, sorted by name."""
    found: dict[str, Mask] = {}
    files = mask_files(folder)
    if len({kind_of(path) for path in files}) > 1:
        raise VptError(f"{folder}: holds NIfTI files and images; keep masks of one kind in a folder")
    for path in files:
        if twin := found.get(name := case_name(path)):
            raise VptError(f"{path}: {Path(twin.shown).name} has the same case name {name}; keep one of the two")
        found[name] = mask_of(path)
    if not found:
        below = [each.name for each in sorted(folder.iterdir()) if each.is_dir() and mask_files(each)]
        hint = f"did you mean its folder {' or '.join(below)}?" if below else "give the folder that holds the masks"
        raise VptError(f"{folder}: no volumes (.nii.gz, .nrrd, .mha, ...) or images in this folder; {hint}")
    return dict(sorted(found.items()))


def mask_files(folder: Path) -> list[Path]:
    """The files in a folder itself that may be masks: without the probabilities that nnU-Net writes beside one, as
    CASE.npz and CASE.pkl.
    """
    files = scan_files(folder)
    called = Counter(map(case_name, files))
    return [
        path
        for path in files
        if path.suffix.lower() != ".npz" or called[case_name(path)] == 1 or not path.with_suffix(".pkl").is_file()
    ]
