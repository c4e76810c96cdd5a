"""What reading one case of a data set for segmentation gives, for `vpt check`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from vpt.data.annotated import require_annotated
from vpt.data.cases import Case, SegmentationSet
from vpt.data.doubts.image_and_mask import Beside, beside
from vpt.data.doubts.mask_looks import MaskLook, look_at
from vpt.data.doubts.mask_values import MOST_LABELS
from vpt.data.findings import Problem, problem_of, unforeseen
from vpt.data.label_maps import read_label
from vpt.data.reading import ImageFacts, see
from vpt.data.strata import Held
from vpt.data.values import CaseValues
from vpt.errors import VptError
from vpt.readers import reader_of
from vpt.readers.voxels import counted


@dataclass
class CaseFacts(ImageFacts):
    """What reading a case gave, its image and its label."""

    case: Case
    voxels: dict[int, int] | None = None
    stored: tuple[int, ...] = ()  # values of the label's file
    ml: dict[int, float] = field(default_factory=dict)
    size: int = 0  # voxels of the label map
    look: MaskLook | None = None  # of a mask that was read
    beside: Beside | None = None  # of some cases

    @classmethod
    def of(cls, case: Case) -> CaseFacts:
        """Those of a case of which nothing was read yet."""
        return cls(case, name=case.name, file=str(case.images[0]))


def read_safely(case: Case, dataset: SegmentationSet, near: Mapping[str, Case] | None = None) -> CaseFacts:
    """`_read_case`, in which no error of one file, whatever it is, hides the others.

    near: the cases beside it, where image and mask are compared with each other.
    """
    try:
        facts = _read_case(case, dataset)
        if near is not None and facts.voxels and facts.values:
            facts.beside = seen_beside(case, dataset, near)
        return facts
    except Exception as error:  # of a library: a file can be broken in ways that no reader foresees
        facts = CaseFacts.of(case)
        facts.problems.append(unforeseen(error, facts.file))
        return facts


def _read_case(case: Case, dataset: SegmentationSet) -> CaseFacts:
    """Read a case's image and label; what the loaders refuse becomes a problem."""
    facts = CaseFacts.of(case)
    first = case.images[0]
    try:
        readers = see(facts, case.images, len(dataset.channels), dataset.kind)
        doubts = [(path, text) for path, reader in zip(case.images, readers, strict=True) for text in reader.doubts()]
        if dataset.kind == "images":
            facts.doubts += [(str(path), text) for path, text in doubts]
        else:
            facts.problems += [Problem("warning", str(path), text) for path, text in doubts]
        for channel, (low, high) in zip(dataset.channels, facts.ranges, strict=True):
            if low == high and (dataset.kind == "volumes" or len(set(facts.ranges)) == 1):
                text = f"all {dataset.element}s of {channel} are {low:g}; is the export complete?"
                facts.problems.append(Problem("warning", str(first), text))
    except VptError as error:
        facts.problems.append(problem_of(error))
    if case.label is None:
        return facts
    try:
        label = read_label(case.label, dataset.labels, facts.grid, str(first))
        require_annotated(label, case, dataset.labels)
        told = {problem.text for problem in facts.problems}  # of the scan, whose header its mask often has
        texts = [text for text in reader_of(case.label).label_doubts() if text not in told]
        facts.problems += [Problem("warning", str(case.label), text) for text in texts]
        array, facts.stored = label.counted, label.stored or label.ids
        facts.voxels = {id: count for id, count in counted(array).items() if id != 0}
        facts.ml = {id: count * label.grid.voxel_ml for id, count in facts.voxels.items()}
        facts.size, facts.look = array.size, look_at(case.name, array, facts.voxels)
        if facts.voxels and facts.values and _is_mask(case, len(dataset.channels), facts.values, array):
            text = "the same as its mask, but for what its values are; give the image itself"
            facts.problems.append(Problem("warning", str(first), text))
        if not facts.voxels and dataset.kind == "volumes":  # of images, `_mask_doubts` tells them together
            text = "an empty label, only background; fine if nothing is there, otherwise annotate it"
            facts.problems.append(Problem("warning", str(case.label), text))
    except VptError as error:
        facts.problems.append(problem_of(error))
    return facts


def seen_beside(case: Case, dataset: SegmentationSet, near: Mapping[str, Case]) -> Beside | None:
    """An image beside its mask, and beside those of the cases next to it as far as they can be read.

    Raises VptError where the case itself cannot be.
    """
    image = reader_of(case.images).voxels(len(dataset.channels))
    mask = read_label(case.label, dataset.labels, image.grid, case.name)
    others: dict[str, np.ndarray] = {}
    for where, other in near.items():
        with suppress(VptError):
            others[where] = read_label(other.label, dataset.labels, None, other.name).counted
    return beside(case.name, image.values(), mask.counted, dataset.kind, others)


def _is_mask(case: Case, channels: int, values: CaseValues, labels: np.ndarray) -> bool:
    """Whether an image of few values is constant on each label of its own mask (X, Y, Z), and differs between them."""
    if max(channel.distinct for channel in values.channels) > MOST_LABELS:
        return False
    image = reader_of(case.images).voxels(channels).values()[0]
    pairs = np.unique(np.stack([labels.ravel(), image.ravel()]), axis=1)
    return len(pairs[0]) == len(np.unique(pairs[0])) == len(np.unique(pairs[1]))


def held_in(facts: CaseFacts, dataset: SegmentationSet) -> Held:
    """What a case's label holds, as `read_held` would read it; nothing where the label was not read."""
    if not facts.voxels:
        return Held()
    amount = sum(facts.ml.values()) if dataset.kind == "volumes" else sum(facts.voxels.values()) / facts.size
    return Held(frozenset(facts.voxels), amount)
