"""The tasks of a sequence: some classes of a data set each, or a data set each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vpt.artifact_tasks import named_by
from vpt.continual.protocol import Protocol
from vpt.data.labelled import Example, LabelledSet
from vpt.data.layouts import read_labelled
from vpt.data.splits import Splits, read_splits
from vpt.errors import VptError
from vpt.words import counted, listed

DEFAULT = 5  # tasks


@dataclass(frozen=True)
class Task:
    """Some classes of a data set, and who of them is tested."""

    name: str
    path: Path
    dataset: LabelledSet
    splits: Splits

    @property
    def classes(self) -> tuple[str, ...]:
        return self.dataset.classes

    @property
    def tested(self) -> list[Example]:
        return [self.dataset.case(name) for name in self.splits.test]

    def labels(self, examples: Sequence[Example]) -> list[str]:
        """The class of each."""
        return [self.classes[example.target[0]] for example in examples]


def make_tasks(protocol: Protocol, seed: int) -> list[Task]:
    """The tasks in the order of that seed.

    Raises:
        VptError: fewer than two tasks; classes that cannot be dealt out; data without test cases, or of other targets.
    """
    order = np.random.default_rng(seed)
    if len(protocol.data) > 1:
        return _of_sites(protocol, order)
    path = protocol.data[0]
    found = read_labelled(path)
    groups = _dealt(found, protocol, order)
    return [_task(f"task {number}", path, group) for number, group in enumerate(groups, start=1)]


def _of_sites(protocol: Protocol, order: np.random.Generator) -> list[Task]:
    return [_task(name, path, None) for name, path in order_of_sites(protocol, order)]


def order_of_sites(protocol: Protocol, order: np.random.Generator) -> list[tuple[str, Path]]:
    """Name and place of each data set, of which each is a task.

    Raises:
        VptError: fewer than two, or two of one name; a number of tasks.
    """
    if protocol.tasks is not None:
        raise VptError("tasks: each of several data sets is a task by itself; leave it out")
    if len(protocol.data) < 2:
        raise VptError(f"{protocol.data[0]}: one task; give two data sets with masks at least")
    numbers = order.permutation(len(protocol.data)) if protocol.shuffle else range(len(protocol.data))
    paths = [protocol.data[number] for number in numbers]
    names = [named_by(path) for path in paths]
    if twice := [name for name in names if names.count(name) > 1]:
        raise VptError(
            f"{paths[0].parent}: two data sets are called {twice[0]}; rename one, tasks are told apart by it"
        )
    return list(zip(names, paths, strict=True))


def _dealt(found: LabelledSet, protocol: Protocol, order: np.random.Generator) -> list[tuple[str, ...]]:
    """The classes of each task."""
    wanted = DEFAULT if protocol.tasks is None else protocol.tasks
    if not isinstance(wanted, int):
        groups = list(wanted)
        named = [name for group in groups for name in group]
        if twice := [name for name in named if named.count(name) > 1]:
            raise VptError(f"tasks: the class {twice[0]!r} is there twice; give each class to one task, once")
        if len(groups) < 2 or min(map(len, groups)) < 2:
            shown = listed(map(list, groups)) or "none"
            raise VptError(f"tasks: found {shown}; expected 2 tasks at least, of 2 classes each at least")
        return groups
    names = list(found.classes)
    if protocol.shuffle:
        names = [names[k] for k in order.permutation(len(names))]
    if wanted < 2 or len(names) < 2 * wanted:
        raise VptError(
            f"{found.root}: {counted(len(names), 'class')} ({listed(names)}) for {counted(wanted, 'task')}; 2 tasks at "
            "least, of 2 classes each at least"
        )
    return [tuple(part.tolist()) for part in np.array_split(names, wanted)]


def _task(name: str, path: Path, only: tuple[str, ...] | None) -> Task:
    found = read_labelled(path, only=only)
    if found.target != "classes" or found.kind != "images":
        raise VptError(f"{path}: {found.kind} with the target {found.target}; a task is of images of one class each")
    splits = read_splits(found)
    if not splits.test:
        raise VptError(f"{path}: {name} has no test case; fix the sides in split.json: train, val and test")
    return Task(name, path, found, splits)
