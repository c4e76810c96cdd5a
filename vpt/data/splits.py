"""Who trains, who validates, who is tested: fixed by `split.json`, nnU-Net's `splits_final.json`, the set, or drawn.

`survey_splits` collects every problem for `vpt check`; `read_splits` raises the first one.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpt.data.cases import SegmentationSet, as_case, raise_first
from vpt.data.check_command import check_command
from vpt.data.labelled import LabelledSet
from vpt.data.strata import Held, deal, of_patients, read_held
from vpt.errors import VptError
from vpt.files import holds_file, read_json
from vpt.progress import Tick, silent
from vpt.vocabulary import SIDES
from vpt.words import counted, did_you_mean

FOLDS = 5
DRAW_SEED = 0


@dataclass(frozen=True)
class Splits:
    """Case names on each side. Cases on no side are left out on purpose; `vpt check` warns of them."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

    def to_dict(self) -> dict[str, list[str]]:
        return {"train": list(self.train), "val": list(self.val), "test": list(self.test)}


AnySet = SegmentationSet | LabelledSet


def read_written(path: Path) -> Splits:
    """The splits.json of a run. Raises VptError for what no run has written."""
    content = read_json(path)
    sides = content if isinstance(content, dict) else {}
    if set(sides) != set(SIDES) or not all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in sides.values()
    ):
        raise VptError(f"{path}: damaged, or edited: expected lists of names as {', '.join(SIDES)}; copy the run again")
    return Splits(**{side: tuple(names) for side, names in sides.items()})


def first_sides(splits: Sequence[Splits]) -> dict[str, str]:
    """Case -> its side in the first of these; empty where there is none."""
    return {name: side for side, names in splits[0].to_dict().items() for name in names} if splits else {}


def read_splits(dataset: AnySet, fold: int | None = None, folds: int | None = None, progress: Tick = silent) -> Splits:
    """Who trains, who validates, who is tested; raises VptError at the first problem.

    In this order: `split.json` ({"train", "val", "test"}), nnU-Net's `splits_final.json` ([{"train", "val"}, ...], of
    which `fold` is taken, by default 0), the sides that a set itself has, or a draw of five (or so many) `folds` by
    patient, of which `fold` validates: the same draw whatever the run's seed, so that seeds can be compared. Where the
    sides are fixed, a `fold` is one of those drawn over train and val; test stays as it is. A set's own folders or list
    that have train and test alone are read so, by default as fold 0.

    In a labelled set every fold has its share of each class, else of each label and of little and much foreground (see
    `vpt.data.strata`), for which the masks are read; progress: of these. `splits_final.json` and a draw over all have
    no test side. Cases on no side are allowed (warned of by `vpt check`).
    """
    splits, problems = survey_splits(dataset, fold, folds, progress=progress)
    raise_first(problems, f"`{dataset.check or check_command(_source(dataset))}` lists them all")
    return splits


def survey_splits(
    dataset: AnySet,
    fold: int | None = None,
    folds: int | None = None,
    held: Mapping[str, Held] | None = None,
    progress: Tick = silent,
) -> tuple[Splits, list[VptError]]:
    """The splits and all that is wrong with them. Raises VptError without such a fold or a usable file.

    held: what the masks hold, where they were read already.
    """
    if _are_given(dataset) and fold is None:
        return _fixed_splits(dataset)
    chosen, count = fold or 0, fold_count(dataset, folds)
    if not 0 <= chosen < count:
        raise VptError(f"{dataset.root}: there is no fold {chosen}, expected 0 to {count - 1}")
    listed_folds = dataset.root / "splits_final.json"
    if not is_fixed(dataset) and holds_file(listed_folds):
        return _named_splits(dataset, read_json(listed_folds)[chosen], listed_folds)
    names, test, problems = _to_draw_from(dataset)
    if problems:
        return Splits(names, (), test), problems
    inside = set(_folds_of(dataset, names, count, held, progress)[chosen])
    sides: dict[bool, list[str]] = {False: [], True: []}
    for name in sorted(names):
        sides[dataset.patient(name) in inside].append(name)
    return Splits(tuple(sides[False]), tuple(sides[True]), test), []


def survey_folds(dataset: AnySet, held: Mapping[str, Held] | None = None) -> tuple[list[Splits], list[VptError]]:
    """The fixed split, or every fold, and what is wrong with them; held: as in `survey_splits`."""
    found: list[Splits] = []
    problems: dict[str, VptError] = {}
    try:
        for fold in [None] if _are_given(dataset) else range(fold_count(dataset)):
            splits, errors = survey_splits(dataset, fold, held=held)
            found.append(splits)
            problems |= {str(error): error for error in errors}
    except VptError as error:
        problems[str(error)] = error
    return found, list(problems.values())


def fold_count(dataset: AnySet, folds: int | None = None) -> int:
    """How many folds there are to choose from; where the sides are fixed, over train and val.

    folds: so many are wanted, by default those of splits_final.json or 5 that are drawn. Raises VptError where there
    cannot be so many.
    """
    source = dataset.root / "splits_final.json"
    if is_fixed(dataset) or not holds_file(source):
        return _drawn_count(dataset, folds)
    content = read_json(source)
    if not isinstance(content, list) or not content:
        raise VptError(f'{source}: expected a list of folds, [{{"train": [...], "val": [...]}}, ...]')
    if folds not in (None, len(content)):
        raise VptError(f"{source}: lists {counted(len(content), 'fold')}, so there are no {folds}; take --folds all")
    return len(content)


def _drawn_count(dataset: AnySet, folds: int | None) -> int:
    patients = len(_patients(dataset, _to_draw_from(dataset)[0]))
    if patients < 2:
        where = f" in train and val of {split_source(dataset)}" if is_fixed(dataset) else ""
        raise VptError(
            f"{dataset.root}: cases of {counted(patients, 'patient')}{where}, expected at least 2, to train and to "
            "validate"
        )
    if folds is None:
        return min(FOLDS, patients)
    if folds > patients:
        raise VptError(f"{dataset.root}: {folds} folds of {counted(patients, 'patient')}; draw as many at most")
    return folds


def _to_draw_from(dataset: AnySet) -> tuple[tuple[str, ...], tuple[str, ...], list[VptError]]:
    """Cases that folds are drawn from, those of the test side, and what is wrong with a fixed split."""
    if not is_fixed(dataset):
        return tuple(case.name for case in dataset.cases), (), []
    splits, problems = _fixed_splits(dataset, needed=())
    return (*splits.train, *splits.val), splits.test, problems


def _folds_of(
    dataset: AnySet, names: Sequence[str], count: int, held: Mapping[str, Held] | None, progress: Tick
) -> list[list[str]]:
    """Patients of these cases in `count` folds, each with its share of the classes, or of what the masks hold."""
    patients = _patients(dataset, names)
    random.Random(DRAW_SEED).shuffle(patients)
    if isinstance(dataset, SegmentationSet):
        known = read_held(dataset, [dataset.case(name) for name in names], progress) if held is None else held
        return deal(patients, of_patients(dataset, names, known), count)
    patients.sort(key=_strata(dataset).__getitem__)  # stable: shuffled within a class, dealt out class by class
    return [patients[fold::count] for fold in range(count)]


def _patients(dataset: AnySet, names: Iterable[str]) -> list[str]:
    return sorted({dataset.patient(name) for name in names})


def _strata(dataset: LabelledSet) -> dict[str, tuple[int, ...]]:
    """Patient -> the class of its first example, so that the folds resemble each other."""
    strata: dict[str, tuple[int, ...]] = {}
    for example in dataset.cases:
        strata.setdefault(dataset.patient(example.name), example.target)
    return strata


def _own_sides(dataset: AnySet) -> dict[str, str]:
    return dataset.sides


def _source(dataset: AnySet) -> Path:
    return dataset.source if dataset.source != Path() else dataset.root


def _fixing(dataset: AnySet) -> Path | None:
    """The file (or folder, whose subfolders are train, val and test) that fixes the sides."""
    files = (dataset.root / name for name in ("split.json", "splits_final.json"))
    return next((file for file in files if holds_file(file)), _source(dataset) if _own_sides(dataset) else None)


def is_fixed(dataset: AnySet) -> bool:
    """Whether split.json, or the set itself, says who trains and who is tested."""
    return holds_file(dataset.root / "split.json") or (
        not holds_file(dataset.root / "splits_final.json") and bool(_own_sides(dataset))
    )


def _are_given(dataset: AnySet) -> bool:
    """Whether all sides are fixed: of a set that itself has train and test alone, a fold of train validates."""
    lacks = not holds_file(dataset.root / "split.json") and {*_own_sides(dataset).values()} == {"train", "test"}
    return is_fixed(dataset) and not lacks


def drawn(dataset: AnySet) -> bool:
    """Whether nothing fixes the sides."""
    return _fixing(dataset) is None


def split_source(dataset: AnySet) -> str:
    """Where the sides come from, in words: a file, or how they are drawn."""
    fixing = _fixing(dataset)
    if fixing is None:
        return f"drawn by patient, {_spread(dataset)}"
    return f"{fixing.name}/" if fixing.is_dir() else fixing.name


def source_in_words(dataset: AnySet, found: Sequence[Splits]) -> str:
    """Where the sides come from, and that of several folds, as `survey_folds` finds them, the first is meant."""
    return (f"fold 0 of {len(found)}, " if len(found) > 1 else "") + split_source(dataset)


def fold_in_words(dataset: AnySet, fold: int | None, folds: int | None, splits: Splits) -> str:
    """Which fold these sides are, and of what it was drawn; "" where the sides are fixed and taken as they are."""
    if _are_given(dataset) and fold is None:
        return ""
    which = f"fold {fold or 0} of {fold_count(dataset, folds)}"
    if not drawn(dataset) and not is_fixed(dataset):
        return f"{which} in {split_source(dataset)}"
    over = ""
    if is_fixed(dataset):
        apart = (
            f"its test side, {counted(len(splits.test), 'case')}, stays apart" if splits.test else "it has no test side"
        )
        over = f" over train and val of {split_source(dataset)} ({apart})"
    return f"{which}, drawn by patient{over}, {_spread(dataset)}"


def _spread(dataset: AnySet) -> str:
    """What every fold has its share of, see `_folds_of`."""
    what = "label, and of little and much foreground" if isinstance(dataset, SegmentationSet) else "class"
    return f"each with its share of every {what}"


def _fixed_splits(dataset: AnySet, needed: Collection[str] = ("train", "val")) -> tuple[Splits, list[VptError]]:
    """What split.json, or the set itself, says; needed: sides that must not be empty."""
    fixed = dataset.root / "split.json"
    if holds_file(fixed):
        return _named_splits(dataset, read_json(fixed), fixed, needed)
    own = _own_sides(dataset)
    named = {side: [name for name, its in own.items() if its == side] for side in SIDES}
    return _named_splits(dataset, named, _source(dataset), needed)


def _named_splits(
    dataset: AnySet, content: Any, source: Path, needed: Collection[str] = ("train", "val")
) -> tuple[Splits, list[VptError]]:
    """Splits from lists of names, and all that is wrong with them; needed: sides that must not be empty."""
    shape = f'{source}: expected {{"train": [names], "val": [names], "test": [names]}}'
    if not isinstance(content, dict) or not all(isinstance(names, list) for names in content.values()):
        raise VptError(shape)
    if unknown := sorted(set(content) - set(SIDES)):
        raise VptError(f"{shape}, found {unknown[0]!r}{did_you_mean(unknown[0], SIDES)}")
    known = dict.fromkeys(case.name for case in dataset.cases)
    apart = dataset.left_out if isinstance(dataset, LabelledSet) else frozenset[str]()
    listed = {side: [as_case(str(name), {*known, *apart}) for name in content.get(side, [])] for side in SIDES}
    sides = {side: tuple(name for name in names if name not in apart) for side, names in listed.items()}
    seen: dict[str, str] = {}
    problems = []
    for side, names in sides.items():
        if not names and side in needed:
            problems.append(VptError(f"{source}: no case in {side}; name at least one"))
        for name in names:
            if name not in known:
                problems.append(
                    VptError(f"{source}: {side} names {name!r}, which is no case{did_you_mean(name, known)}")
                )
            elif seen.get(name) == side:
                problems.append(VptError(f"{source}: {name} is listed twice in {side}; remove one of the two"))
            elif name in seen:
                problems.append(VptError(f"{source}: {name} is in {seen[name]} and in {side}; keep it in one of them"))
            seen.setdefault(name, side)
    problems += _patients_on_two_sides(dataset, seen, source)
    return Splits(**sides), problems


def _patients_on_two_sides(dataset: AnySet, side_of: dict[str, str], source: Path) -> list[VptError]:
    first: dict[str, str] = {}
    problems = []
    for name, side in side_of.items():
        other = first.setdefault(dataset.patient(name), name)
        if side_of[other] != side and dataset.whose.are_said(name, other):
            problems.append(
                VptError(
                    f"{source}: {other} in {side_of[other]} and {name} in {side} are one patient's "
                    f"({dataset.patient(name)}); keep them on one side, or say in dataset.json whose they are: "
                    '"patients": {"CASE": "PATIENT", ...}'
                )
            )
    return problems
