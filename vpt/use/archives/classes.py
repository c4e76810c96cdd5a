"""Many scans to probabilities: reading ahead, a few stacks at a time; a scan that fails stops no other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from vpt.progress import Tick, silent
from vpt.use.archives.attempts import Failure, attempt, one_ahead
from vpt.use.archives.masks import never
from vpt.use.classifier import Classifier

AT_ONCE = 32  # images in memory

Tell = Callable[[list[str], np.ndarray, float], None]
"""Names of cases, their probabilities (N, K), and the seconds that each took."""


def classify_cases(
    classifier: Classifier,
    cases: Sequence[tuple[str, Sequence[Any]]],
    progress: Tick = silent,
    force: bool = False,
    *,
    before: Callable[[str], None] | None = None,
    tell: Tell | None = None,
    fail: Callable[[Failure], None] | None = None,
    stop: Callable[[], bool] = never,
) -> tuple[list[str], np.ndarray, list[Failure]]:
    """Names and files of cases -> names of those that could be read, their probabilities (N, K), and the others.

    While the encoder runs, a thread prepares the next case.

    Args:
        force: see `Classifier.classify`.
        before: called with a case's name right before it is read, in the thread that reads.
        tell, fail: called with what was found, a few cases at a time, and with each failure.
        stop: asked before each case; once it says so, no other is begun.
    """
    gathered = Gathered(classifier, tell, fail)
    most = max(1, AT_ONCE // (classifier.plan.slices or 1))

    def prepare(case: tuple[str, Sequence[Any]]) -> np.ndarray:
        if before:
            before(case[0])
        return classifier.prepare(case[1], force=force)

    with closing(one_ahead(prepare, cases)) as stacks:
        for done, ((name, files), prepared) in enumerate(zip(cases, stacks, strict=True), start=1):
            if stop():
                break
            gathered.take(name, attempt(name, name if hasattr(files[0], "shape") else files[0], prepared))
            if len(gathered.waiting) == most:
                gathered.answer()
            progress(done, len(cases), name)
    gathered.answer()
    return gathered.names, np.concatenate(gathered.found), gathered.failures


class Gathered:
    """Stacks that wait for the encoder, and what became of those before."""

    def __init__(self, classifier: Classifier, tell: Tell | None, fail: Callable[[Failure], None] | None):
        self.classifier, self.tell, self.fail = classifier, tell, fail
        self.names: list[str] = []
        self.found: list[np.ndarray] = [np.empty((0, len(classifier.classes)))]
        self.failures: list[Failure] = []
        self.waiting: list[tuple[str, np.ndarray]] = []
        self.since = time.perf_counter()

    def take(self, name: str, stack: np.ndarray | Failure) -> None:
        if not isinstance(stack, Failure):
            self.waiting.append((name, stack))
            return
        self.failures.append(stack)
        if self.fail:
            self.fail(stack)

    def answer(self) -> None:
        """Answer all that waits, together; where that fails, one by one."""
        waiting, self.waiting = self.waiting, []
        if waiting and isinstance(self._answer(waiting), Failure):
            for one in waiting:
                if isinstance(failure := self._answer([one]), Failure):
                    self.take(one[0], failure)

    def _answer(self, waiting: list[tuple[str, np.ndarray]]) -> Failure | None:
        name, stacks = waiting[0][0], [stack for _, stack in waiting]
        probabilities = attempt(name, name, lambda: self.classifier.probabilities(stacks))
        if isinstance(probabilities, Failure):
            return probabilities
        own = [name for name, _ in waiting]
        self.names += own
        self.found.append(probabilities)
        if self.tell:
            self.tell(own, probabilities, (time.perf_counter() - self.since) / len(own))
        self.since = time.perf_counter()
        return None
