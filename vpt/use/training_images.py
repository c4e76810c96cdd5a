"""Some of the images that a run was trained on, as its encoder is given them: drawn, and read one at a time."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import Tensor

from vpt.artifact import Artifact, find_artifact, read_artifact
from vpt.data.layouts import read_dataset, read_labelled
from vpt.errors import VptError
from vpt.files import read_json
from vpt.readers import Scan
from vpt.use.classifier import Classifier
from vpt.use.segmenter import Segmenter
from vpt.use.watched import first_slice, slice_image, stack_image

SEED = 0


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """Images of training cases: of each case one, of a volume the middle slice, or where it is segmented one drawn.

    Of an image larger than the encoder's it is the middle square. names: of the cases; of: so many there are; scans:
    their files; slices: of each image that was read the number of its slice, None where it is an image.
    """

    answers: Classifier | Segmenter
    names: tuple[str, ...]
    of: int
    scans: tuple[Scan, ...]
    slices: dict[int, int | None] = field(default_factory=dict)

    @cached_property
    def _draws(self) -> list[float]:
        generator = random.Random(SEED)
        return [generator.random() for _ in self.names]

    def read(self, number: int) -> Tensor:
        """(1, C, S, S) in [0, 1]."""
        scan = self.scans[number]
        if isinstance(self.answers, Classifier):
            self.slices[number], image = stack_image(self.answers, scan, force=True)
            return image
        prepared = self.answers.prepare(scan, force=True)
        place = int(self._draws[number] * len(prepared.slices))
        self.slices[number] = first_slice(prepared) + place if prepared.part.shape[0] > 1 else None
        return slice_image(self.answers, prepared, place, np.zeros(prepared.slices.shape[2:], bool))

    def each(self) -> Iterator[Tensor]:
        """All of them in order, (1, C, S, S) in [0, 1], one at a time."""
        for number in range(len(self.names)):
            yield self.read(number)

    def where(self, number: int) -> str:
        """What an image is called: its case, and of a volume the slice."""
        place = self.slices.get(number)
        return self.names[number] if place is None else f"{self.names[number]}, slice {place}"


def training_images(run: str | Path, answers: Classifier | Segmenter, count: int) -> TrainingImages:
    """At most `count` training cases of a run, drawn with the seed 0, the same whenever asked.

    Raises:
        VptError: an artifact without its run's splits.json beside it; a data set that is not there, or has no longer
            the training cases; no training case.
    """
    artifact = read_artifact(find_artifact(Path(run)))
    source = artifact.path.parent / "splits.json"
    if not source.is_file():
        raise VptError(
            f"{artifact.path}: no splits.json beside it, so its training images are not known; give the run's folder, "
            "or leave the search out with --images 0"
        )
    names = sorted(read_json(source)["train"])
    if not names:
        raise VptError(f"{source}: no training case, so there are no patches to search")
    chosen = sorted(random.Random(SEED).sample(names, min(count, len(names))))
    return TrainingImages(answers, tuple(chosen), len(names), tuple(_scans(artifact, chosen)))


def _scans(artifact: Artifact, names: Sequence[str]) -> list[Scan]:
    known = artifact.config.data
    if not known.path.exists():
        raise VptError(
            f"{known.path}: the run's data set is not there, so its training images cannot be searched; put it there, "
            "or leave the search out with --images 0"
        )
    cases: dict[str, Scan]
    if artifact.config.task == "segmentation":
        read = read_dataset(known.path, known.patients, known.labels)
        cases = {case.name: case.scan for case in read.cases}
    else:
        labelled = read_labelled(known.path, known.target, known.classes, known.patients, known.only)
        cases = {case.name: case.images for case in labelled.cases}
    if gone := [name for name in names if name not in cases]:
        raise VptError(f"{known.path}: has no case {gone[0]} any more, which the run was trained on")
    return [cases[name] for name in names]
