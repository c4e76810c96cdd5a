"""Every case of a data set read once, several at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np

from vpt.data.doubts.likeness import digest_of, steps_of
from vpt.data.findings import Problem
from vpt.data.values import CaseValues, values_of
from vpt.machine.available import cores
from vpt.parallel import in_processes
from vpt.progress import Tick
from vpt.readers import Grid, Kind, Reader, Source, import_library, reader_of

AT_ONCE: dict[Kind, int] = {"images": 8, "volumes": 2}  # of volumes each may take gigabytes


class Named(Protocol):
    @property
    def name(self) -> str: ...


Case = TypeVar("Case", bound=Named)
Facts = TypeVar("Facts")


@dataclass(kw_only=True)
class ImageFacts:
    """What reading one image gave: what could not be read stays None or empty.

    name: of its case; file: that a problem is told of.
    """

    name: str
    file: str
    grid: Grid | None = None
    values: CaseValues | None = None
    digest: str = ""
    patient: str = ""  # by the file's header, a mark
    steps: np.ndarray | None = None
    problems: list[Problem] = field(default_factory=list)
    doubts: list[tuple[str, str]] = field(default_factory=list)  # of pictures, to be told together

    @property
    def ranges(self) -> list[tuple[float, float]]:
        """The lowest and the highest value of each channel."""
        return [(channel.low, channel.high) for channel in self.values.channels] if self.values else []


def see(facts: ImageFacts, images: Sequence[Source], channels: int, kind: Kind) -> list[Reader]:
    """Read an image, of one file or of one for every channel, into the facts -> a reader for each file.

    Raises VptError for what the readers refuse.
    """
    reader = reader_of(images)
    voxels = reader.voxels(channels)
    image, facts.grid = voxels.values(), voxels.grid
    facts.values = values_of(voxels)
    facts.steps = steps_of(image, kind)
    facts.digest, facts.patient = digest_of(image), reader.of_patient()
    return [reader] if len(images) == 1 else [reader_of(source) for source in images]


def read_each(read: Callable[[Case], Facts], cases: Sequence[Case], kind: Kind, progress: Tick) -> list[Facts]:
    """read(case) of every case, in their order; progress: called after each with (done, total, name)."""
    import_library(kind)  # once, and not in every copy of this process
    found: list[Facts] = []
    for case, facts in zip(cases, in_processes(read, cases, cores(AT_ONCE[kind])), strict=True):
        found.append(facts)
        progress(len(found), len(cases), case.name)
    return found
