"""Tasks learned one after another: the score of each after each (accuracy, or Dice), and what is made of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vpt.scores.bootstrap import bootstrap

Matrix = Sequence[Sequence[float]]
"""Row i: after task i, the mean score of the test cases of each of the tasks 0 to i."""


def average_accuracy(matrix: Matrix) -> list[float]:
    """After each task the mean over those that were learned by then."""
    return [float(np.mean(row)) for row in matrix]


def average_incremental_accuracy(matrix: Matrix) -> float:
    """The mean of `average_accuracy` over all tasks (Rebuffi et al., CVPR 2017)."""
    return float(np.mean(average_accuracy(matrix)))


def forgetting(matrix: Matrix) -> float:
    """How far each task but the last fell, from its best accuracy before the last task to that after it: the mean.

    Chaudhry et al., ECCV 2018. Below 0 where old tasks gained; NaN of a single task.
    """
    last = len(matrix) - 1
    fallen = [max(matrix[i][j] for i in range(j, last)) - matrix[last][j] for j in range(last)]
    return float(np.mean(fallen)) if fallen else math.nan


def mask_score(found: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray]) -> float:
    """Label -> where it is, bool: the mean Dice of the labels that are found or there, 1 where none is either.

    So a label of another task that is found where it is not lowers the score as one that is missed does.
    """
    empty = np.zeros((), bool)
    dice = []
    for name in found.keys() | truth.keys():
        own, other = found.get(name, empty), truth.get(name, empty)
        if both := int(own.sum()) + int(other.sum()):
            dice.append(2 * int((own & other).sum()) / both)
    return float(np.mean(dice)) if dice else 1.0


@dataclass(frozen=True)
class Order:
    """What one method made of one order of the tasks.

    tasks: their names; matrix: None of a method that sees all tasks at once; right: of every test case, by its name,
    its score after the last task (of classes 1 or 0), and told: that where its task is told; of_task: the number of its
    task; chosen: whether its task was chosen rightly, of masks.
    """

    tasks: tuple[str, ...]
    matrix: tuple[tuple[float, ...], ...] | None
    right: Mapping[str, float]
    told: Mapping[str, float]
    of_task: Mapping[str, int]
    seconds: float = 0.0
    chosen: Mapping[str, bool] | None = None

    @property
    def final(self) -> float:
        """The mean over the tasks of their score after the last one."""
        return mean_over_tasks(self.right, self.of_task)

    @property
    def final_told(self) -> float:
        """`final`, each case told its task."""
        return mean_over_tasks(self.told, self.of_task)

    @property
    def chosen_rightly(self) -> float | None:
        """The mean over the tasks of the share of cases whose task was chosen rightly."""
        return None if self.chosen is None else mean_over_tasks(self.chosen, self.of_task)


def mean_over_tasks(right: Mapping[str, float], of_task: Mapping[str, int]) -> float:
    tasks = sorted(set(of_task.values()))
    return float(np.mean([np.mean([right[name] for name in right if of_task[name] == task]) for task in tasks]))


def final_interval(orders: Sequence[Order], groups: Mapping[str, str]) -> tuple[float, float]:
    """The interval of the mean of `final` over several orders of the same cases, whose patients are drawn again.

    groups: case -> patient.
    """
    names = sorted(orders[0].right)
    each = [
        (np.array([order.right[name] for name in names], float), np.array([order.of_task[name] for name in names]))
        for order in orders
    ]

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        finals = []
        for right, of_task in each:
            held = [of_task == task for task in np.unique(of_task)]
            with np.errstate(invalid="ignore"):
                shares = [(weights[own].T @ right[own]) / weights[own].sum(0) for own in held]
            finals.append(np.nanmean(shares, 0))
        return {"final": np.mean(finals, 0)}

    return bootstrap(statistic, len(names), [groups[name] for name in names])["final"]
