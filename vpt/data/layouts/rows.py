"""One labelled image as its layout tells it, and what its name says of its patient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vpt.data.alike_names import below_sides, person_in, stem_of_name
from vpt.readers import Source
from vpt.vocabulary import SIDE_WORDS, Target
from vpt.words import did_you_mean, listed

CALLED_PATIENT = (
    *("patient", "patient_id", "patient id", "patientid", "patient-id", "pid", "subject", "subject_id", "subject id"),
    "subjectid",
)
PATIENT_COLUMNS = (*CALLED_PATIENT, "lesion_id", "group")
"""Names of the column that says whose a case is; a lesion's or a group's images stay together too."""
IMAGE_COLUMNS = (
    *("path", "file", "filename", "image", "image_id", "image_name", "image index", "id_code"),
    *("img_id", "filepath", "image_path", "id"),
)
"""Names of the column that says which image a line of a list is of."""
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "dataset", "phase", "fold")
"""Names of the column that says on which side a case is; of others than the first only where all its cells do."""


def column_key(name: str) -> str:
    """What names of a column are compared by: without capitals, blanks, `_` and `-`, so that `Patient ID`,
    `patient_id` and `PatientID` are one.
    """
    return "".join(char for char in name.casefold() if char not in "_-" and not char.isspace())


def split_column(names: Sequence[str], cells: Callable[[str], Iterable[str]]) -> str:
    """The column of a list, among those of these plain names, that says the sides; "" where none does.

    cells: the name of a column -> what its lines say.
    """
    if SPLIT_COLUMNS[0] in names:
        return SPLIT_COLUMNS[0]
    for name in SPLIT_COLUMNS[1:]:
        words = {word.strip().lower() for word in cells(name)} if name in names else set()
        if len(words) > 1 and words <= SIDE_WORDS.keys():
            return name
    return ""


@dataclass(frozen=True, eq=False)
class Row:
    """One image as its layout tells it; side and patient are empty where nothing says them.

    stem: the name without class, side and last number, "" where it is the name itself; others: what the columns say
    that are looked at for none of these; annotated: of labels, those that somebody has looked for, None for all;
    where: what a sentence about it begins with, the image's file or the line of the CSV.
    """

    where: str
    name: str
    image: Source
    labels: tuple[str, ...]
    side: str = ""
    patient: str = ""
    stem: str = ""
    others: Mapping[str, str] = field(default_factory=dict)
    annotated: tuple[str, ...] | None = None


def stem_of(name: str, label: str) -> str:
    """The name of an image without its frame, visit or slice, or the folder of its patient; "" where it has neither.

    Folders of a class or side at the start do not count, because a patient can have slices of several classes.
    """
    own = below_sides(name, {label})
    if person := person_in(own):
        return person
    stem = stem_of_name(own)
    return "" if stem == own or stem.endswith("/") else stem


def annotation_fault(row: Row, names: Sequence[str], target: Target) -> str:
    """What is wrong with what a row was annotated for, among the classes of these names; "" where nothing is."""
    if row.annotated is None:
        return ""
    if target != "labels":
        return (
            f"`annotated` names {listed(row.annotated)}, but the target is {target}, of which one is always looked "
            "for; set the target to labels, or call the column otherwise"
        )
    if unknown := [label for label in row.annotated if label not in names]:
        meant = did_you_mean(unknown[0], names) or f", which are {listed(names, 20)}"
        return f"`annotated` names {unknown[0]!r}, none of the classes{meant}"
    if undeclared := [label for label in row.labels if label not in row.annotated]:
        return (
            f"has {listed(undeclared)}, but is annotated for {listed(row.annotated)} alone; add it to `annotated`, or "
            "take the label out"
        )
    return ""
