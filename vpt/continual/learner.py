"""Who learns a sequence of tasks, whatever these are of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any


class Learner(ABC):
    """Learns tasks in their order, and answers test cases of all that it has learned.

    chosen: of every test case of the last asking, by its task and name, whether its task was chosen rightly; None where
    no task is chosen.
    """

    chosen: Mapping[tuple[str, str], bool] | None = None

    @abstractmethod
    def learn(self, task: Any) -> None:
        """The next task, from its training cases."""

    @abstractmethod
    def scores(self, task: Any, *, told: bool) -> dict[str, float]:
        """Of each test case of a task by its name, in [0, 1]; told: which task it is of."""
