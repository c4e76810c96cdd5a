"""Data sets with masks as tasks, and what a case's masks are by the names of their labels."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vpt.continual.protocol import Protocol
from vpt.continual.tasks import order_of_sites
from vpt.data.cases import Case, SegmentationSet
from vpt.data.label_maps import read_label
from vpt.data.layouts import read_dataset
from vpt.data.splits import Splits, read_splits
from vpt.errors import VptError, VptWarning
from vpt.readers import Grid
from vpt.words import counted


@dataclass(frozen=True)
class MaskTask:
    """A data set with masks, and who of it is tested."""

    name: str
    path: Path
    dataset: SegmentationSet
    splits: Splits

    @property
    def files(self) -> str:
        """What is read of a case."""
        return f"{self.dataset.kind} of {counted(len(self.dataset.channels), 'channel')}"

    @property
    def tested(self) -> list[Case]:
        return [self.dataset.case(name) for name in self.splits.test]


def make_mask_tasks(protocol: Protocol, seed: int) -> list[MaskTask]:
    """The data sets in the order of that seed.

    Raises:
        VptError: fewer than two; two of one name; one without test cases; files of several kinds.
    """
    tasks = [_task(name, path) for name, path in order_of_sites(protocol, np.random.default_rng(seed))]
    first = tasks[0]
    for other in tasks[1:]:
        if first.files != other.files:
            raise VptError(
                f"{other.path} has {other.files}, {first.path} {first.files}; a sequence is of files of one kind and "
                "number of channels, so leave one of them out"
            )
    return tasks


def _task(name: str, path: Path) -> MaskTask:
    dataset = read_dataset(path, None, None)
    splits = read_splits(dataset)
    if not splits.test:
        raise VptError(f"{path}: {name} has no test case; fix the sides in split.json: train, val and test")
    return MaskTask(name, path, dataset, splits)


@contextmanager
def of_any_task() -> Iterator[None]:
    """Scans of one task are prepared as another's inside: that their values are unlike is not warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VptWarning)
        yield


def true_masks(task: MaskTask, case: Case, grid: Grid) -> dict[str, np.ndarray]:
    """Label -> where it is in a case, bool; what is to be ignored is background."""
    return by_name(read_label(case.label, list(task.dataset.labels), grid, case.name).counted, task.dataset.labels)


def by_name(ids: np.ndarray, labels: dict[int, str]) -> dict[str, np.ndarray]:
    """Ids -> label -> where it is, bool, the background left out."""
    return {name: ids == label for label, name in labels.items() if label}
