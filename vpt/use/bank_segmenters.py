"""Tasks of a bank in the place of a segmenter, for archives: one mask for each of them, or one of them all."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from vpt.data.hints import Hints
from vpt.errors import VptError
from vpt.progress import Tick
from vpt.readers import Scan
from vpt.use.bank import Bank, by_sight, of_task
from vpt.use.prepared_scan import Keep, PreparedScan
from vpt.use.segmenter import Segmenter
from vpt.use.side_by_side import segment_together, sight_of
from vpt.words import counted, listed


def require_same_scans(members: dict[str, Segmenter]) -> None:
    """Raise VptError where not all tasks are given the same files."""
    kinds = {name: (task.plan.kind, len(task.plan.channels)) for name, task in members.items()}
    if len(set(kinds.values())) > 1:
        said = listed(f"{name} {kind} of {counted(count, 'channel')}" for name, (kind, count) in kinds.items())
        raise VptError(f"the tasks look at different files: {said}; predict with each group of them by itself")


class TasksOfAScan:
    """What tasks have in common of the scan that they are working on, which they are asked about one after the other.

    todo: those that are asked about it.
    """

    def __init__(self, bank: Bank):
        self.precision = bank.precision
        self.members = bank.segmenters()
        require_same_scans(self.members)
        self.todo: Sequence[str] = tuple(self.members)
        self._scan: Any = None
        self._prepared: dict[Hashable, PreparedScan] = {}
        self._classes: dict[str, np.ndarray] = {}

    def prepare(self, task: str, scan: Scan, force: bool) -> PreparedScan:
        if scan != self._scan:
            self._scan, self._prepared, self._classes = scan, {}, {}
        member, sight = self.members[task], sight_of(self.members[task])
        if sight not in self._prepared:
            self._prepared[sight] = member.prepare(scan, force)
            return self._prepared[sight]
        common = self._prepared[sight]
        return replace(common, warned=common.judged_by(member.plan, force))

    def classes(self, task: str, progress: Tick) -> np.ndarray:
        """What the task's `classes_of` gives; with it those of the others are made that prepare the scan alike.

        Of another whose values do not fit it, they are not asked for: its own `prepare` says so.
        """
        if task not in self._classes:
            sight = sight_of(self.members[task])
            group = [name for name in self.todo if sight_of(self.members[name]) == sight]
            members = [self.members[name] for name in group]
            found = segment_together(members, self._prepared[sight], self.precision, progress)
            self._classes |= zip(group, found, strict=True)
        return self._classes.pop(task)


class TaskSegmenter(Segmenter):
    """One task of a bank, which shares with the others what their scan costs in common."""

    def __init__(self, shared: TasksOfAScan, task: str):
        own = shared.members[task]
        super().__init__(
            own.model,
            own.forward,
            own.plan,
            own.labels,
            own.device,
            own.batch_size,
            own.codes,
            own.mirror,
            own.postprocess,
        )
        self.decision = own.decision
        self.shared, self.task = shared, task

    def prepare(self, scan: Scan, force: bool = False) -> PreparedScan:
        return self.shared.prepare(self.task, scan, force)

    def classes_of(
        self, scan: PreparedScan, hints: np.ndarray | None, progress: Tick, keep: Keep | None = None
    ) -> np.ndarray:
        if keep is not None or hints is not None:  # probabilities and hints are of one task
            return self.shared.members[self.task].classes_of(scan, hints, progress, keep)
        return self.shared.classes(self.task, progress)

    def probabilities_of(
        self, scan: PreparedScan, hints: np.ndarray | None = None, batch: int | None = None
    ) -> Iterator[Tensor]:
        return self.shared.members[self.task].probabilities_of(scan, hints, batch)


@dataclass(frozen=True, eq=False)
class ScanOfTasks(PreparedScan):
    """A scan as each group of tasks of one sight has prepared it, the first group's being its own."""

    groups: tuple[PreparedScan, ...] = ()


class MergedSegmenter(Segmenter):
    """All tasks of a bank in one label map. Where several find something, the one that was added first counts.

    Labels are numbered from 1 on in the order of the tasks, and called as in their training; names that several tasks
    have are preceded by that of the task.
    """

    def __init__(self, bank: Bank):
        self.members = bank.segmenters()
        require_same_scans(self.members)
        self.precision = bank.precision
        first = next(iter(self.members.values()))
        names = [
            (task, label, name) for task, own in self.members.items() for label, name in own.labels.items() if label
        ]
        self.ids = {(task, label): number for number, (task, label, _) in enumerate(names, 1)}
        often = {name for _, _, name in names if sum(name == other for _, _, other in names) > 1}
        called = [f"{task} {name}" if name in often else name for task, _, name in names]
        codes = {
            new: self.members[task].codes[name]
            for new, (task, _, name) in zip(called, names, strict=True)
            if name in self.members[task].codes
        }
        labels = {0: "background", **dict(enumerate(called, 1))}
        super().__init__(first.model, first.forward, first.plan, labels, first.device, first.batch_size, codes)
        self.sights = by_sight(self.members)

    def prepare(self, scan: Scan, force: bool = False) -> ScanOfTasks:
        groups, warned = [], list[str]()
        for first, *others in self.sights:
            with of_task(first):
                common = self.members[first].prepare(scan, force)
            groups.append(common)
            warned += common.warned
            for name in others:
                with of_task(name):
                    warned += common.judged_by(self.members[name].plan, force)
        one = groups[0]
        return ScanOfTasks(
            one.slices, one.grid, one.whole, one.part, one.oriented, one.reader, tuple(warned), groups=tuple(groups)
        )

    def found_in(self, scan: PreparedScan, hints: Hints | None, progress: Tick, keep: Keep | None) -> np.ndarray:
        if keep is not None or hints is not None:
            raise VptError("several tasks in one mask have no common probabilities, boxes or points; ask one of them")
        assert isinstance(scan, ScanOfTasks)
        found: dict[str, np.ndarray] = {}
        for names, prepared in zip(self.sights, scan.groups, strict=True):
            members = [self.members[name] for name in names]
            classes = segment_together(members, prepared, self.precision, progress)
            masks = [member.ids_of(own, prepared) for member, own in zip(members, classes, strict=True)]
            found |= zip(names, masks, strict=True)
        merged = np.zeros(next(iter(found.values())).shape, np.min_scalar_type(max(self.labels)))
        for (task, label), number in reversed(self.ids.items()):
            merged[found[task] == label] = number
        return merged
