"""What `vpt check` asks of the images of any data set, whether it has masks or classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vpt.data.doubts.negatives import Seen, negatives
from vpt.data.doubts.one_patient import parted_examinations, parted_patients
from vpt.data.doubts.unlike import unlike_others
from vpt.data.findings import Problem
from vpt.data.patients import Patients
from vpt.data.reading import ImageFacts
from vpt.data.splits import Splits
from vpt.readers import Kind


def unlike(facts: Sequence[ImageFacts], channels: Sequence[str], kind: Kind) -> Iterator[Problem]:
    """Values that do not fit those of the others."""
    doubts = list(unlike_others([(each.file, each.values) for each in facts if each.values], channels, kind))
    seen = [Seen(each.file, each.values, each.steps) for each in facts if each.values and each.steps is not None]
    doubts += negatives(seen, kind, (text for _, text in doubts))
    for file, text in doubts:
        yield Problem("warning", file, text)


def parted(facts: Sequence[ImageFacts], whose: Patients, splits: Sequence[Splits], source: str) -> Iterator[Problem]:
    """Images of one examination, or of one patient by their headers, on two sides. source: of the sides."""
    frames = [(each.name, each.grid.frame) for each in facts if each.grid]
    patients = [(each.name, each.patient) for each in facts if not whose.are_said(each.name)]
    for text in (*parted_examinations(frames, splits), *parted_patients(patients, splits)):
        yield Problem("warning", source, text)
