"""Several models that agree in what they answer, as one: the mean of their probabilities."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vpt.artifact import Artifact
from vpt.data.postprocess import agreed
from vpt.data.slices.prepared import PreparedSlices
from vpt.data.slices.slice_stacks import prepare_stack
from vpt.errors import VptError
from vpt.progress import Tick, silent
from vpt.readers import Scan
from vpt.use.classifier import Classifier
from vpt.use.inference import in_smaller_batches, read_scan, require_usual, warn
from vpt.use.planes import empty_volume, seen_along, turned_to
from vpt.use.prepared_scan import Keep, PreparedScan
from vpt.use.segmenter import Segmenter
from vpt.words import listed

SLICED = ("intensity", "pixel_mm", "image_size", "interpolation")  # what of a plan decides the slices of its plane
GRID = ("plane", "pixel_mm", "image_size", "slices")  # what a stack of slices, a box and points lie on


def require_alike(artifacts: Sequence[Artifact]) -> None:
    """Raise VptError unless all have one task and the same labels, and look at the same part of a scan.

    Windows may differ, as those of folds do, and so may planes, pixels and image sizes of segmentations: every model
    sees a scan through its own. But a stack of slices, and a box or points, lie on one grid.
    """
    first, *others = artifacts
    if others and (tasks := next((each for each in artifacts if each.earlier), None)):
        raise VptError(
            f"{tasks.path}: has learned {len(tasks.earlier) + 1} tasks and gives each scan to one of them, so it "
            "cannot be averaged with others; give it alone"
        )
    for other in others:
        mine, theirs = _answers(first), _answers(other)
        if differing := [_against(what, theirs[what], mine[what]) for what in mine if mine[what] != theirs[what]]:
            raise VptError(
                f"{other.path} and {first.path} cannot be averaged: {'; '.join(differing)}; give models that agree in "
                "it, such as folds or seeds of one training"
            )
    for number, other in enumerate(artifacts):
        if same := next((each for each in artifacts[:number] if _is_copy(each, other)), None):
            warn(
                f"{other.path}: the same trained numbers as {same.path}, so that the mean counts them twice, and their "
                "agreement says nothing; give each model once"
            )


def _is_copy(first: Artifact, other: Artifact) -> bool:
    """Whether both hold the same trained tensors, as one model that is given twice does."""
    mine, theirs = first.tensors, other.tensors
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def _answers(artifact: Artifact) -> dict[str, Any]:
    """What models of one ensemble must agree in, by the words for it."""
    config, plan = artifact.config, artifact.plan
    hinted = getattr(config.head, "hints", False)
    on_a_grid = config.task == "classification" or hinted
    return {
        "task": config.task,
        "target": config.data.target,
        "labels": {f"{label} {name}" for label, name in artifact.labels.items()},
        "kind": plan.kind,
        "channels": ", ".join(plan.channels),
        "plan.crop": plan.crop,
        "head.hints": hinted,
        **{f"plan.{name}": getattr(plan, name) for name in GRID if on_a_grid},
    }


def _against(what: str, found: Any, expected: Any) -> str:
    """In words; of sets what only one of them has."""
    if isinstance(found, set):
        only = found - expected, expected - found
        return f"{what} " + " against ".join(listed(sorted(each), 5) or "none" for each in only)
    return f"{what} {found} against {expected}"


def together(models: Sequence[Segmenter | Classifier]) -> Segmenter | Classifier:
    """Models that are alike as one; a single one as it is."""
    segmenters = [model for model in models if isinstance(model, Segmenter)]
    if len(models) == 1:
        return models[0]
    if segmenters:
        return SegmenterEnsemble(segmenters)
    return ClassifierEnsemble([model for model in models if isinstance(model, Classifier)])


class SegmenterEnsemble(Segmenter):
    """Segmenters whose mean probability on the scan's own pixels decides, slice by slice in the plane of the first.

    Of each one in another plane the probabilities of the whole prepared part are held, 4 bytes for each voxel and
    label. What it tells of itself (model, plan, codes) is the first one's. With masks it does what more than half of
    them do.
    """

    def __init__(self, members: Sequence[Segmenter]):
        first = members[0]
        super().__init__(
            first.model,
            first.forward,
            first.plan,
            first.labels,
            first.device,
            first.batch_size,
            first.codes,
            first.mirror,
            agreed([member.postprocess for member in members]),
            next((member.known for member in members if member.known), None),
        )
        self.decision = "dice" if 2 * sum(each.decision == "dice" for each in members) > len(members) else "likeliest"
        self.members = tuple(members)

    @property
    def held(self) -> int:
        return sum(member.held + (member.plan.plane != self.plan.plane) for member in self.members)

    def prepare(self, scan: Scan, force: bool = False) -> PreparedScan:
        prepared = super().prepare(scan, force)
        for member in self.members[1:] if not force else ():
            require_usual(member.plan, prepared.reader.name, prepared.whole, force)
        return prepared

    def classes_of(
        self, scan: PreparedScan, hints: np.ndarray | None, progress: Tick, keep: Keep | None = None
    ) -> np.ndarray:
        def in_batches(batch: int) -> np.ndarray:
            means = self._means(self._each(scan, hints, batch), keep)
            return self._decided(means, scan, progress)

        return in_smaller_batches(scan.reader.name, self.batch_size, in_batches)

    def probabilities_of(
        self, scan: PreparedScan, hints: np.ndarray | None = None, batch: int | None = None
    ) -> Iterator[Tensor]:
        return self._means(self._each(scan, hints, batch), None)

    def _each(self, scan: PreparedScan, hints: np.ndarray | None, batch: int | None) -> Iterator[tuple[Tensor, ...]]:
        """Of each slice in the first one's plane the probabilities of every member."""
        return zip(*(self._of(member, scan, hints, batch) for member in self.members), strict=True)

    def _of(
        self, member: Segmenter, scan: PreparedScan, hints: np.ndarray | None, batch: int | None
    ) -> Iterator[Tensor]:
        seen = self._seen_by(member, scan)
        found = member.probabilities_of(seen, hints, batch and min(batch, member.batch_size))
        if member.plan.plane == self.plan.plane:
            yield from found
            return
        volume = empty_volume(scan, len(self.labels))
        for into, each in zip(seen_along(member.plan, volume, scan), found, strict=True):
            into[...] = each.cpu().numpy()
        for place in volume:
            yield torch.from_numpy(place).to(self.device)

    @torch.inference_mode()
    def _means(self, found: Iterator[tuple[Tensor, ...]], keep: Keep | None) -> Iterator[Tensor]:
        for place, each in enumerate(found):
            first, *others = each
            total = first.clone()
            for other in others:
                total += other
            mean = total / len(each)
            if keep is not None:
                keep(place, mean, each)
            yield mean

    def distance_of(self, scan: PreparedScan) -> float:
        """The mean over the members that kept training cases; NaN where none did. One encoder looks once."""
        seen: dict[Hashable, np.ndarray] = {}
        apart = []
        for member in self.members:
            if (known := member.known) is None:
                continue
            if known.sight not in seen:
                seen[known.sight] = known.features_of(self._seen_by(member, scan))
            apart.append(known.distance(seen[known.sight]))
        return float(np.mean(apart)) if apart else math.nan

    def _seen_by(self, member: Segmenter, scan: PreparedScan) -> PreparedScan:
        if member.plan.plane != self.plan.plane:
            return turned_to(member.plan, scan)
        if all(getattr(member.plan, name) == getattr(self.plan, name) for name in SLICED):
            return scan
        return replace(scan, slices=PreparedSlices.of(scan.slices.voxels, member.plan))


class ClassifierEnsemble(Classifier):
    """Classifiers of one kind of image, whose probabilities are averaged; what it tells of itself is the first's."""

    def __init__(self, members: Sequence[Classifier]):
        first = members[0]
        super().__init__(
            first.model,
            first.forward,
            first.plan,
            first.classes,
            first.target,
            first.device,
            first.batch_size,
            first.temperature,
        )
        self.members = tuple(members)

    def prepare(self, scan: Any, force: bool = False) -> np.ndarray:
        """(M, S, 3, size, size) uint8: the scan as each of M members is given it."""
        reader, voxels, _ = read_scan(self.plan, scan, force)
        for member in self.members[1:] if not force else ():
            require_usual(member.plan, reader.name, voxels, force)
        return np.stack([prepare_stack(voxels, member.plan) for member in self.members])

    def probabilities(
        self, stacks: Sequence[np.ndarray] | np.ndarray, progress: Tick = silent, task: str | None = None
    ) -> np.ndarray:
        """Prepared scans (N, M, S, 3, size, size) -> (N, K)."""
        given = np.asarray(stacks)
        found = [member.probabilities(given[:, k], task=task) for k, member in enumerate(self.members)]
        progress(len(given), len(given), "")
        return np.mean(found, axis=0)
