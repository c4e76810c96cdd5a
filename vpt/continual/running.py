"""A protocol, run: every method learns every order of the tasks, and is tested on all of them after each."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vpt.continual.learners import make_learner
from vpt.continual.protocol import JOINT, SHOWN, Protocol
from vpt.continual.tasks import Task, make_tasks
from vpt.data.labelled import Example
from vpt.errors import VptError
from vpt.files import make_folder, read_json, write_json, write_text
from vpt.report.continual_page import MethodRow, continual_page
from vpt.scores.continual import (
    Order,
    average_incremental_accuracy,
    final_interval,
    forgetting,
)

RESULT = "result.json"


@dataclass(frozen=True)
class Learned:
    """A method, and what it made of each order of the tasks."""

    method: str
    orders: tuple[Order, ...]
    interval: tuple[float, float]

    def mean(self, value: str) -> float:
        return sum(getattr(order, value) for order in self.orders) / len(self.orders)

    def of_matrix(self, score: Any) -> float | None:
        """The mean of a score of the matrix over the orders; None of who sees all tasks at once."""
        found = [score(order.matrix) for order in self.orders if order.matrix is not None]
        return sum(found) / len(found) if found else None

    def to_dict(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "final": self.mean("final"),
            "final_interval": self.interval,
            "final_told": self.mean("final_told"),
            "average_incremental": self.of_matrix(average_incremental_accuracy),
            "forgetting": self.of_matrix(forgetting),
            "seconds": self.mean("seconds"),
            "orders": [{"tasks": order.tasks, "matrix": order.matrix, "final": order.final} for order in self.orders],
        }


def run_protocol(protocol: Protocol, out: str | Path) -> list[Learned]:
    """Learn and test; what is finished in `out` is kept, so the same call goes on.

    Leaves `continual.json` and `continual.html` of the protocol's methods, and a folder for each method and seed with
    the run of each task.

    Raises:
        VptError: what is wrong with the protocol, the data or a training; another protocol in the folder.
    """
    out = Path(out)
    if JOINT in protocol.learners and len(protocol.data) > 1:
        raise VptError(
            f"joint: learns the classes of one data set, found {len(protocol.data)}; leave it out of the methods, or "
            "put their images into one set"
        )
    sequences = {seed: make_tasks(protocol, seed) for seed in protocol.seeds}
    make_folder(out, "choose another --out")
    _require_same(protocol, out)
    patients = {
        _name(protocol, task, example): task.dataset.patient(example.name)
        for task in sequences[protocol.seeds[0]]
        for example in task.tested
    }
    found = []
    for method in protocol.learners:
        orders = tuple(_learned(protocol, method, seed, tasks, out) for seed, tasks in sequences.items())
        found.append(Learned(method, orders, final_interval(orders, patients)))
        _write(protocol, found, out)
    return found


def _name(protocol: Protocol, task: Task, example: Example) -> str:
    """A name that no other test case has, whatever the order of the tasks."""
    return example.name if len(protocol.data) == 1 else f"{task.name}/{example.name}"


def _require_same(protocol: Protocol, out: Path) -> None:
    """Write the protocol, or raise VptError where the folder is of another one; more methods may be asked for."""
    source, own = out / "protocol.json", protocol.model_dump(mode="json", exclude={"methods"})
    if source.is_file() and read_json(source) != own:
        raise VptError(f"{out}: holds another protocol (see {source.name}); choose another --out")
    write_json(source, own)


def _learned(protocol: Protocol, method: str, seed: int, tasks: list[Task], out: Path) -> Order:
    folder = out / f"{method}-{seed}"
    if (folder / RESULT).is_file():
        return _read(folder / RESULT)
    started = time.monotonic()
    learner, matrix = make_learner(method, tasks, protocol, seed, folder, out / "cache"), list[tuple[float, ...]]()
    right: dict[str, bool] = {}
    for number, task in enumerate(tasks):
        learner.learn(task)
        if method == JOINT and task is not tasks[-1]:
            continue
        each = [_right(protocol, learner.answers(seen, told=False), seen) for seen in tasks[: number + 1]]
        matrix.append(tuple(sum(one.values()) / len(one) for one in each))
        right = {name: is_right for one in each for name, is_right in one.items()}
        print(f"{SHOWN[method]}, seed {seed}, after {task.name}: {', '.join(f'{share:.3f}' for share in matrix[-1])}")
    told = [_right(protocol, learner.answers(task, told=True), task) for task in tasks]
    order = Order(
        tasks=tuple(task.name for task in tasks),
        matrix=None if method == JOINT else tuple(matrix),
        right=right,
        told={name: is_right for one in told for name, is_right in one.items()},
        of_task={name: number for number, one in enumerate(told) for name in one},
        seconds=time.monotonic() - started,
    )
    make_folder(folder, "choose another --out")
    write_json(folder / RESULT, {**asdict(order), "classes": [task.classes for task in tasks]})
    return order


def _right(protocol: Protocol, answers: list[str], task: Task) -> dict[str, bool]:
    """Of each test case of a task, by its name, whether the answer is its class."""
    names = [_name(protocol, task, example) for example in task.tested]
    return {name: answer == truth for name, answer, truth in zip(names, answers, task.labels(task.tested), strict=True)}


def _read(path: Path) -> Order:
    values = read_json(path)
    matrix = values["matrix"]
    return Order(
        tasks=tuple(values["tasks"]),
        matrix=None if matrix is None else tuple(tuple(row) for row in matrix),
        right=values["right"],
        told=values["told"],
        of_task=values["of_task"],
        seconds=values["seconds"],
    )


def _write(protocol: Protocol, found: list[Learned], out: Path) -> None:
    write_json(
        out / "continual.json",
        {"protocol": protocol.model_dump(mode="json"), "methods": [each.to_dict() for each in found]},
    )
    rows = [
        MethodRow(
            SHOWN[each.method],
            each.orders,
            each.mean("final"),
            each.interval,
            each.mean("final_told"),
            each.of_matrix(average_incremental_accuracy),
            each.of_matrix(forgetting),
            each.mean("seconds"),
        )
        for each in found
    ]
    title = " and ".join(path.name for path in protocol.data)
    write_text(out / "continual.html", continual_page(title, rows))
