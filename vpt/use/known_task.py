"""A model of several tasks that is told which of them its scans are of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vpt.errors import VptError
from vpt.progress import Tick, silent
from vpt.use.by_task import SegmenterByTask
from vpt.use.classifier import Classifier
from vpt.use.segmenter import Segmenter


class KnownTask(Classifier):
    """One task of a classifier, with that task's prompts and among its classes alone."""

    def __init__(self, whole: Classifier, task: str):
        whole.require_task(task)
        names = whole.tasks[task]
        super().__init__(whole.model, whole.forward, whole.plan, names, whole.target, whole.device, whole.batch_size)
        self.whole, self.task = whole, task
        self.places = [whole.classes.index(name) for name in names]

    @property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        return {self.task: self.classes}

    def prepare(self, scan: Any, force: bool = False) -> np.ndarray:
        return self.whole.prepare(scan, force)

    def probabilities(
        self, stacks: Sequence[np.ndarray] | np.ndarray, progress: Tick = silent, task: str | None = None
    ) -> np.ndarray:
        """(N, K) of the task's own K classes."""
        if task is not None:
            self.require_task(task)
        return self.whole.probabilities(stacks, progress, self.task)[:, self.places]


def of_task(model: Segmenter | Classifier, task: str | None) -> Segmenter | Classifier:
    """The model, where a task is named told that its scans are of that one.

    Raises:
        VptError: a task that the model has not learned; a segmenter of one task.
    """
    if task is None:
        return model
    if isinstance(model, SegmenterByTask):
        return model.of_task(task)
    if isinstance(model, Segmenter):
        raise VptError(f"task {task!r}: the model has learned one task alone; leave it out")
    return KnownTask(model, task)
