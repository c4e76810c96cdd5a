"""Columns of a list that nothing reads, and that may say who is tested, or whose a case is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from vpt.data.doubts.one_patient import on_two_sides, together
from vpt.data.layouts.naming import CASES
from vpt.data.layouts.rows import PATIENT_COLUMNS, SPLIT_COLUMNS
from vpt.data.layouts.sides import side_of_word
from vpt.data.splits import AnySet, Splits, drawn
from vpt.words import agreeing, counted, listed

YES, NO = {"1", "1.0", "true", "yes"}, {"0", "0.0", "false", "no"}
PERSON = {"patient", "patientname", "subject", "person", "participant", "volunteer", "donor", "mrn", "pid"}
VISIT = {"case", "study", "exam", "examination", "accession", "series"}  # of one patient, where an id stands behind
SEEN = {"video", "clip", "slide", "wsi"}  # of which many images are, likewise
IDS, NUMBERS = {"id", "uid"}, {"number", "no"}  # `series_number` counts those of each patient
NAMES = IDS | NUMBERS | {"name", "code", "key", "identifier"}  # behind a person; `patient_age` is nobody's name
BESIDE_SIDE = {"is", "in", "for", "use", "used", "set", "split", "data", "flag"}  # `pcr_test` is a measure
UIDS = {"studyinstanceuid", "seriesinstanceuid", "accessionnumber", "studyid", "caseid", "examid"}


def unread_columns(dataset: AnySet, splits: Sequence[Splits]) -> list[str]:
    """Sentences of columns that may say the sides, where these are drawn, or patients, where nothing says them."""
    found = list(_of_sides(dataset.columns, len(dataset.cases))) if drawn(dataset) else []
    if not dataset.patients:
        found += _of_patients(dataset.columns, splits)
    return found


def _of_sides(columns: Mapping[str, Mapping[str, str]], cases: int) -> Iterator[str]:
    for name, cells in columns.items():
        if said := said_sides(name, cells, cases):
            yield (
                f"the column {name} says {said} cases and is not read, so that the sides are drawn; if it means the "
                f"sides, call it {SPLIT_COLUMNS[0]}, with train, val and test in it"
            )


def said_sides(name: str, cells: Mapping[str, str], cases: int) -> str:
    """How many cases a column has on each side, in words; "" where it does not say a side of all cases."""
    sides = Counter(_sides_in(name, cells.values()))
    if len(cells) < cases or len(sides) < 2 or "" in sides:
        return ""
    return listed(f"{side} of {count}" for side, count in sorted(sides.items()))


def _sides_in(name: str, cells: Iterable[str]) -> list[str]:
    """What each cell says: a side (`PublicTest`), or yes and no in a column that is called as one (`is_test`)."""
    plain = [cell.strip().casefold() for cell in cells]
    words = [word for word in CASES.split(name) if word not in BESIDE_SIDE]
    asked = side_of_word(words[0]) if len(words) == 1 and name != "valid" else ""  # which is good for use
    if asked and {*plain} <= YES | NO:
        return [asked if cell in YES else f"not {asked}" for cell in plain]
    return [_side(cell) for cell in cells]


def _side(words: str) -> str:
    return next(filter(None, map(side_of_word, CASES.split(words.strip()))), "")


def _of_patients(columns: Mapping[str, Mapping[str, str]], splits: Sequence[Splits]) -> Iterator[str]:
    for name, cells in columns.items():
        if not may_name_patients(name):
            continue
        if parted := on_two_sides(together((case, cell.strip()) for case, cell in cells.items()), splits):
            are = agreeing(len(parted), "are")
            yield (
                f"{counted(len(parted), 'value')} of the column {name}, which is not read, {are} on two sides "
                f"({listed(parted, 3)}); if what shares one is one patient's, call the column {PATIENT_COLUMNS[0]}"
            )


def may_name_patients(column: str) -> bool:
    """Whether a column of this name may say whose a case is, or of which visit."""
    words = {*CASES.split(column)}
    numbered = bool(words & {"case", "accession"} and words & NUMBERS)
    person = bool(words & PERSON and words <= PERSON | NAMES)
    return person or bool(words & UIDS) or bool(words & (VISIT | SEEN) and words & IDS) or numbered
