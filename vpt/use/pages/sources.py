"""Where the cases of a page come from: their data set, and how the model sees them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from vpt.data.cases import Case, SegmentationSet, case_name
from vpt.data.labelled import LabelledSet
from vpt.data.layouts import read_dataset, read_labelled
from vpt.data.layouts.naming import IMAGE
from vpt.data.plan import Plan
from vpt.data.thumbnails import thumbnail
from vpt.errors import VptError
from vpt.report.overlays import as_uri
from vpt.use.evaluation.pairing import pair_masks

if TYPE_CHECKING:
    from vpt.artifact import Artifact


@dataclass(frozen=True)
class Sources:
    """Where the cases of an evaluation come from, as far as it is known: their data set, and the model's plan."""

    dataset: SegmentationSet | LabelledSet | None = None
    plan: Plan | None = None

    def masked_case(self, name: str, reference: str) -> Case | None:
        """The data set's own case: of that reference, or of that name."""
        if not isinstance(self.dataset, SegmentationSet):
            return None
        cases = self.dataset.cases
        by_file = {str(each.label): each for each in cases}
        by_name = {each.name: each for each in cases}
        return by_file.get(reference) or by_name.get(name) or by_name.get(case_name(reference))

    def thumb(self, name: str) -> str:
        """A small picture of a classified case as a data URI; "" where there is none."""
        if not isinstance(self.dataset, LabelledSet):
            return ""
        try:
            picture = thumbnail(self.dataset.case(name).images, len(self.dataset.channels))
        except VptError:
            return ""
        return as_uri(picture, "jpeg") if picture else ""


def sources_of(artifact: Artifact, data: Path | None = None) -> Sources:
    """The data set of a model's training; without it, should it be gone, there are no pictures."""
    known = artifact.config.data
    root = data or known.path
    try:
        if artifact.config.task == "segmentation":
            return Sources(read_dataset(root, known.patients, known.labels), artifact.plan)
        return Sources(read_labelled(root, known.target, known.classes, known.patients, known.only), artifact.plan)
    except VptError:
        return Sources(None, artifact.plan)


def sources_beside(references: Iterable[str]) -> Sources:
    """Of masks that were compared: the data set that the first of the references lies in, if it lies in one."""
    for reference in islice(references, 1):
        for root in _roots(Path(reference)):
            try:
                return Sources(read_dataset(root))
            except VptError:
                continue
        return _scans_beside(Path(reference))
    return Sources()


def _scans_beside(reference: Path) -> Sources:
    """Of masks that lie beside what is no data set, such as those that models predicted: the scans in the folder beside
    them that is called so, paired by name.
    """
    beside = reference.parent.parent
    for folder in sorted(each for each in _folders_in(beside) if each.name.lower() in IMAGE):
        try:
            pairs = pair_masks(reference.parent, folder).pairs
        except VptError:
            continue
        cases = tuple(Case(pair.case, (pair.reference.source,), pair.prediction.source) for pair in pairs)
        return Sources(SegmentationSet(beside, beside.name, (folder.name,), {}, cases))
    return Sources()


def _folders_in(folder: Path) -> list[Path]:
    return [each for each in folder.iterdir() if each.is_dir()] if folder.is_dir() else []


def _roots(reference: Path) -> list[Path]:
    """The folders that may be its data set: what describes itself first, and no other one above that holds no scans,
    which may hold anything.
    """
    inner, outer = [*reference.parents, Path(), Path()][:2]
    described = [root for root in (inner, outer) if (root / "dataset.json").is_file()]
    if described or not outer.is_dir():
        return [*described, *(root for root in (inner,) if root not in described)]
    holds_scans = any(each.name.lower() in IMAGE for each in _folders_in(outer))
    return [inner, outer] if holds_scans else [inner]
