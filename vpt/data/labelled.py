"""What a data set for classification is: examples with classes, whatever layout they were read from."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from vpt.data.alike_names import below_sides
from vpt.data.cases import Cases
from vpt.data.patients import Patients
from vpt.readers import Kind, Source
from vpt.vocabulary import Target


@dataclass(frozen=True, eq=False)
class Example:
    """An image and what it shows.

    images: one image file, NIfTI file, array of pixels or nibabel image, as `vpt.readers.reader_of` takes them;
    target: positions in the set's `classes`, ascending, exactly one unless the target is `labels`; annotated: of
    labels, the positions of those that somebody has looked for, None for all.
    """

    name: str
    images: tuple[Source, ...]
    target: tuple[int, ...]
    annotated: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class LabelledSet(Cases[Example]):
    """Examples sorted by name, and what their targets mean.

    root: the folder that may hold split.json and dataset.json; source: the folder or file that was read;
    patients: case -> patient, sides: case -> train, val or test, where something says so; stems: case -> its name
    without class, side and last number, see `Patients`; columns: of a list, column -> case -> what else it says;
    left_out: names of the examples of classes that were not asked for, and of masks, which a fixed split may list;
    masks: in class folders, the files that are masks of the images beside them by their names; check: the command
    that lists what is wrong with it.
    """

    root: Path
    name: str
    channels: tuple[str, ...]
    classes: tuple[str, ...]
    target: Target
    cases: tuple[Example, ...]
    patients: dict[str, str] = field(default_factory=dict)
    sides: dict[str, str] = field(default_factory=dict)
    kind: Kind = "images"
    source: Path = Path()
    guess: str = ""
    stems: dict[str, str] = field(default_factory=dict)
    columns: dict[str, dict[str, str]] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()
    masks: tuple[Source, ...] = ()
    check: str = field(default="", compare=False)

    @cached_property
    def whose(self) -> Patients:
        own = {example.name: below_sides(example.name, self.classes) for example in self.cases}
        inside = {name: its for name, its in own.items() if its != name}
        return Patients(own, self.patients, self.stems, inside)

    @property
    def labels(self) -> dict[int, str]:
        return dict(enumerate(self.classes))

    @property
    def is_partly_annotated(self) -> bool:
        """Whether some example was not looked at for every label."""
        return any(example.annotated is not None for example in self.cases)
