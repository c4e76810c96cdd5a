"""Cases that may be one patient's on two sides of a split: by their names, or by what their DICOM headers say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from vpt.data.patients import SETTLE
from vpt.data.splits import AnySet, Splits
from vpt.words import counted, listed


def parted_examinations(frames: Iterable[tuple[str, str]], splits: Sequence[Splits]) -> list[str]:
    """(case, frame of reference or "") -> one sentence at most about those that are on two sides in any split."""
    parted = on_two_sides(together(frames), splits)
    if not parted:
        return []
    return [
        f"cases of {counted(len(parted), 'DICOM examination')} (frame of reference) are on two sides "
        f"({listed(parted, 3)}); they are one patient's: say so in `patients`, keep them on one side, or give "
        "every series a folder of its own, if they are slices"
    ]


def parted_patients(patients: Iterable[tuple[str, str]], splits: Sequence[Splits]) -> list[str]:
    """(case, mark of its patient or "") -> one sentence at most about those that are on two sides in any split.

    None where all have the same id, as after an anonymisation.
    """
    of = together(patients)
    parted = on_two_sides(of, splits) if len(of) > 1 else []
    if not parted:
        return []
    return [
        f"cases of {counted(len(parted), 'patient')} by their DICOM headers (PatientID) are on two sides "
        f'({listed(parted, 3)}); say whose they are in dataset.json, "patients": {{"CASE": "PATIENT", ...}}, or keep '
        "them on one side"
    ]


def together(marks: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """(case, mark or "") -> the cases of each mark."""
    of: dict[str, list[str]] = {}
    for name, mark in marks:
        if mark:
            of.setdefault(mark, []).append(name)
    return of


def on_two_sides(of: Mapping[str, Sequence[str]], splits: Sequence[Splits]) -> list[str]:
    """Of each mark that a split has on several sides a case of each, in words."""
    parted: dict[str, str] = {}
    for each in splits:
        side = {name: its for its, names in each.to_dict().items() for name in names}
        for mark, names in of.items():
            first = {side[name]: name for name in names if name in side}
            if len(first) > 1:
                parted.setdefault(mark, " and ".join(f"{name} in {its}" for its, name in first.items()))
    return list(parted.values())


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
