"""Who trains, who validates, who is tested: fixed by `split.json`, nnU-Net's `splits_final.json`, the set, or drawn.

`survey_splits` collects every problem for `vpt check`; `read_splits` raises the first one.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vpt.data.cases import SegmentationSet, case_name, raise_first, without_ending
from vpt.data.labelled import LabelledSet
from vpt.data.patients import SETTLE
from vpt.errors import VptError
from vpt.files import read_json
from vpt.words import counted, did_you_mean, listed

FOLDS = 5
DRAW_SEED = 0
SIDES = ("train", "val", "test")


@dataclass(frozen=True)
class Splits:
    """Case names on each side. Cases on no side are left out on purpose; `vpt check` warns of them."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

    def to_dict(self) -> dict[str, list[str]]:
        return {side: list(names) for side, names in asdict(self).items()}


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


def read_splits(dataset: AnySet, fold: int | None = None, folds: int | None = None) -> Splits:
    """Who trains, who validates, who is tested; raises VptError at the first problem.

    In this order: `split.json` ({"train", "val", "test"}), nnU-Net's `splits_final.json` ([{"train", "val"}, ...], of
    which `fold` is taken, by default 0), the sides that a labelled set itself has, or a draw of five (or so many)
    `folds` by patient, of which `fold` validates: the same draw whatever the run's seed, so that seeds can be compared.
    In a labelled set every fold has its share of each class. `splits_final.json` and the draw have no test side. Cases
    on no side are allowed (warned of by `vpt check`).
    """
    splits, problems = survey_splits(dataset, fold, folds)
    raise_first(problems, f"`vpt check {_source(dataset)}` lists them all")
    return splits


def survey_splits(dataset: AnySet, fold: int | None = None, folds: int | None = None) -> tuple[Splits, list[VptError]]:
    """The splits and all that is wrong with them. Raises VptError without such a fold or a usable file."""
    fixed, listed_folds = dataset.root / "split.json", dataset.root / "splits_final.json"
    count = fold_count(dataset, folds)
    if len(_patients(dataset)) < 2 and _fixing(dataset) is None:
        found = len(_patients(dataset))
        raise VptError(f"{dataset.root}: cases of {found} patient(s), expected at least 2, to train and to validate")
    if fold is not None and not count:
        raise VptError(
            f"{_fixing(dataset)}: fixes the split, so there is no fold {fold}; leave the fold out, or "
            f"{'move the file away' if fixed.is_file() else 'take the sides out of it'}"
        )
    chosen = fold or 0
    if count and not 0 <= chosen < count:
        raise VptError(f"{dataset.root}: there is no fold {chosen}, expected 0 to {count - 1}")
    if fixed.is_file():
        return _named_splits(dataset, read_json(fixed), fixed)
    if listed_folds.is_file():
        return _named_splits(dataset, read_json(listed_folds)[chosen], listed_folds)
    if own := _own_sides(dataset):
        named = {side: [name for name, its in own.items() if its == side] for side in SIDES}
        return _named_splits(dataset, named, _source(dataset))
    patients = _patients(dataset)
    random.Random(DRAW_SEED).shuffle(patients)
    patients.sort(key=_strata(dataset).__getitem__)  # stable: shuffled within a class, dealt out class by class
    held = set(patients[chosen::count])
    sides: dict[bool, list[str]] = {False: [], True: []}
    for name in sorted(case.name for case in dataset.cases):
        sides[dataset.patient(name) in held].append(name)
    return Splits(tuple(sides[False]), tuple(sides[True]), ()), []


def survey_folds(dataset: AnySet) -> tuple[list[Splits], list[VptError]]:
    """The fixed split, or every fold, and what is wrong with them."""
    found: list[Splits] = []
    problems: dict[str, VptError] = {}
    try:
        for fold in range(fold_count(dataset)) or [None]:
            splits, errors = survey_splits(dataset, fold)
            found.append(splits)
            problems |= {str(error): error for error in errors}
    except VptError as error:
        problems[str(error)] = error
    return found, list(problems.values())


def fold_count(dataset: AnySet, folds: int | None = None) -> int:
    """How many folds there are to choose from: 0 when split.json, or the set itself, fixes the split.

    folds: so many are wanted, by default those of splits_final.json or 5 that are drawn. Raises VptError where there
    cannot be so many.
    """
    if (dataset.root / "split.json").is_file():
        return 0
    source = dataset.root / "splits_final.json"
    if not source.is_file():
        return 0 if _own_sides(dataset) else _drawn_count(dataset, folds)
    content = read_json(source)
    if not isinstance(content, list) or not content:
        raise VptError(f'{source}: expected a list of folds, [{{"train": [...], "val": [...]}}, ...]')
    if folds not in (None, len(content)):
        raise VptError(f"{source}: lists {len(content)} folds, so there are no {folds}; take --folds all")
    return len(content)


def _drawn_count(dataset: AnySet, folds: int | None) -> int:
    patients = len(_patients(dataset))
    if folds is None:
        return min(FOLDS, patients)
    if folds > patients:
        raise VptError(f"{dataset.root}: {folds} folds of {counted(patients, 'patient')}; draw as many at most")
    return folds


def _patients(dataset: AnySet) -> list[str]:
    return sorted({dataset.patient(case.name) for case in dataset.cases})


def _strata(dataset: AnySet) -> dict[str, tuple[int, ...]]:
    """Patient -> the class of its first example, so that the folds resemble each other; () without classes."""
    strata: dict[str, tuple[int, ...]] = {}
    for case in dataset.cases:
        strata.setdefault(dataset.patient(case.name), getattr(case, "target", ()))
    return strata


def _own_sides(dataset: AnySet) -> dict[str, str]:
    return dataset.sides


def _source(dataset: AnySet) -> Path:
    return dataset.source if dataset.source != Path() else dataset.root


def _fixing(dataset: AnySet) -> Path | None:
    """The file (or folder, whose subfolders are train, val and test) that fixes the sides."""
    files = (dataset.root / name for name in ("split.json", "splits_final.json"))
    return next((file for file in files if file.is_file()), _source(dataset) if _own_sides(dataset) else None)


def drawn(dataset: AnySet) -> bool:
    """Whether nothing fixes the sides."""
    return _fixing(dataset) is None


def split_source(dataset: AnySet) -> str:
    """Where the sides come from, in words."""
    fixing = _fixing(dataset)
    if fixing is None:
        return "drawn by case"
    return f"{fixing.name}/" if fixing.is_dir() else fixing.name


def _named_splits(dataset: AnySet, content: Any, source: Path) -> tuple[Splits, list[VptError]]:
    """Splits from lists of names, and all that is wrong with them."""
    shape = f'{source}: expected {{"train": [names], "val": [names], "test": [names]}}'
    if not isinstance(content, dict) or not all(isinstance(names, list) for names in content.values()):
        raise VptError(shape)
    if unknown := sorted(set(content) - set(SIDES)):
        raise VptError(f"{shape}, found {unknown[0]!r}{did_you_mean(unknown[0], SIDES)}")
    known = dict.fromkeys(case.name for case in dataset.cases)
    sides = {side: tuple(_as_case(str(name), known) for name in content.get(side, [])) for side in SIDES}
    seen: dict[str, str] = {}
    problems = []
    for side, names in sides.items():
        if not names and side != "test":
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


def _as_case(name: str, known: Collection[str]) -> str:
    """A case's name, also where the file's ending is written behind it (`benign_003.png`, `Faces/image_0025.jpg`)."""
    return next((each for each in (name, without_ending(name), case_name(name)) if each in known), name)


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


def guessed_on_two_sides(dataset: AnySet, splits: Sequence[Splits]) -> list[str]:
    """What by a guess is one patient's and a split has on two sides, as one sentence at most; a guess is no error."""
    found: dict[str, str] = {}
    for each in splits:
        first: dict[str, tuple[str, str]] = {}
        for side, names in each.to_dict().items():
            for name in names:
                other, its = first.setdefault(dataset.patient(name), (name, side))
                if its != side and name != other and not dataset.whose.are_said(name, other):
                    found.setdefault(dataset.patient(name), f"{other} in {its} and {name} in {side}")
    if not found:
        return []
    number = counted(len(found), "patient")
    return [f"{number} may be on two sides, by a guess from the names ({listed(found.values(), 3)}); {SETTLE}"]
