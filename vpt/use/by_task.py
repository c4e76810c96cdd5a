"""Several tasks that were learned one after another, each with prompts and a head of its own: a scan is told its task.

The task of a scan is the one to whose training cases it is nearest, by the features of the encoder without any prompts;
or the one that a user names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Self

import numpy as np

from vpt.artifact_tasks import common_ids, common_labels
from vpt.data.hints import Frame
from vpt.data.plan import Plan
from vpt.errors import VptError
from vpt.progress import Tick, silent
from vpt.readers import Form, Mask, Scan
from vpt.scores.trust import Quality
from vpt.use.prepared_scan import Keep, PreparedScan
from vpt.use.segmenter import Segmenter
from vpt.use.told_places import UNTOLD, ToldPlaces
from vpt.words import did_you_mean, listed


@dataclass(frozen=True, eq=False)
class ScanOfTask(PreparedScan):
    """A scan as its task has prepared it. distances: to the training cases of each task that takes it, none if told."""

    distances: Mapping[str, float] | None = None


class SegmenterByTask(Segmenter):
    """Scans -> label maps of the one task that each is for.

    Labels keep their ids from task to task; a new one whose id another name has gets the smallest that is free, so that
    nothing is renumbered. A label that several tasks have is one label.

    Args:
        members: task -> its segmenter, in the order in which they were learned; told: the task of all scans.
    """

    def __init__(self, members: Mapping[str, Segmenter], told: str | None = None):
        *_, last = members.values()
        self.members = dict(members)
        self.told = told
        labels = {task: member.labels for task, member in members.items()}
        self.ids = common_ids(labels)
        codes = {name: code for member in members.values() for name, code in member.codes.items()}
        steps = {
            self.ids[task][label]: done
            for task, member in members.items()
            for label, done in member.postprocess.items()
        }
        super().__init__(
            last.model,
            last.forward,
            last.plan,
            common_labels(labels),
            last.device,
            last.batch_size,
            codes,
            postprocess=steps,
            known=None if told is None else members[told].known,
        )

    @property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """Task -> its labels, in the order in which they were learned."""
        return {
            task: tuple(name for label, name in member.labels.items() if label) for task, member in self.members.items()
        }

    def of_task(self, task: str) -> Self:
        """For scans that are all of one task, which is then not chosen."""
        if task not in self.members:
            raise VptError(
                f"task {task!r}: the model has learned the tasks {listed(self.members, 20)}"
                f"{did_you_mean(task, self.members)}"
            )
        return type(self)(self.members, task)

    def segment(
        self,
        scan: Scan,
        *,
        task: str | None = None,
        box: Any = None,
        points: Any = None,
        point_labels: Any = None,
        frame: Frame = "voxel",
        form: Form = "own",
        force: bool = False,
    ) -> Mask | list[Mask]:
        """As `Segmenter.segment`; task: the scan's, or that of all scans of a list.

        Where it is not told, each scan's is chosen by its features.
        """
        of = self if task is None else self.of_task(task)
        return Segmenter.segment(
            of, scan, box=box, points=points, point_labels=point_labels, frame=frame, form=form, force=force
        )

    def task_of(self, scan: Scan, *, force: bool = False) -> tuple[str, dict[str, float]]:
        """The task that a scan is for, and its distance to the training cases of each, 1 where that is usual there."""
        found = type(self)(self.members).prepare(scan, force)
        return found.task, dict(found.distances or {})

    def prepare(self, scan: Scan, force: bool = False) -> ScanOfTask:
        """The scan as it is prepared for the nearest of those tasks that do not refuse it.

        Raises:
            VptError: a scan that all tasks refuse; a task that kept no training cases, where none was told.
        """
        if self.told is not None:
            return _of(self.members[self.told].prepare(scan, force), self.told, None)
        if without := [task for task, member in self.members.items() if member.known is None]:
            raise VptError(
                f"{listed(without)}: kept no training cases, so no scan's task can be chosen; say which one it is, or "
                "take best.safetensors of a run that is at its end"
            )
        nearest: ScanOfTask | None = None  # of the others nothing is held: a volume is large
        distances: dict[str, float] = {}
        refused: dict[str, VptError] = {}
        for task, member in self.members.items():
            try:
                own = member.sliced(scan, force)
            except VptError as error:
                refused[task] = error
                continue
            distances[task] = member.distance_of(own)
            if nearest is None or distances[task] < distances[nearest.task]:
                nearest = _of(own, task, distances)
        if nearest is None:
            raise VptError("; ".join(f"{task}: {error}" for task, error in refused.items()))
        return _of(self.members[nearest.task].field_told(nearest), nearest.task, distances)

    def labels_of(
        self, scan: PreparedScan, told: ToldPlaces = UNTOLD, progress: Tick = silent, keep: Keep | None = None
    ) -> np.ndarray:
        """keep: is told of the classes of the scan's own task, as `answering` has them."""
        found = self.answering(scan).labels_of(scan, told, progress, keep)
        return self._renamed(_task_of(scan), found)

    def answering(self, scan: PreparedScan) -> Segmenter:
        return self.members[_task_of(scan)]

    def plan_for(self, scan: PreparedScan) -> Plan:
        return self.members[_task_of(scan)].plan

    def judged(self, scan: PreparedScan) -> tuple[np.ndarray, Quality]:
        task = _task_of(scan)
        found, quality = self.members[task].judged(scan)
        return self._renamed(task, found), quality

    def distance_of(self, scan: PreparedScan) -> float:
        return self.members[_task_of(scan)].distance_of(scan)

    def classes_of(self, *_: Any, **__: Any) -> NoReturn:
        self._refuse()

    def probabilities_of(self, *_: Any, **__: Any) -> NoReturn:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise VptError(
            f"the model has learned {listed(self.members, 10)}, which have no probabilities or classes in common; give "
            f"a run that learned one of them alone, or in Python segmenter.members[{next(iter(self.members))!r}]"
        )

    def _renamed(self, task: str, found: np.ndarray) -> np.ndarray:
        """Ids of a task -> those of the model, in the type that holds all of them."""
        named = np.zeros(found.shape, np.min_scalar_type(max(self.labels)))
        for own, common in self.ids[task].items():
            named[found == own] = common
        return named


def _of(scan: PreparedScan, task: str, distances: Mapping[str, float] | None) -> ScanOfTask:
    return ScanOfTask(
        scan.slices, scan.grid, scan.whole, scan.part, scan.oriented, scan.reader, scan.warned, task, distances
    )


def _task_of(scan: PreparedScan) -> str:
    assert isinstance(scan, ScanOfTask)
    return scan.task
