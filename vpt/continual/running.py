"""A protocol, run: every method learns every order of the tasks, and is tested on all of them after each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vpt.continual.kinds import make_learner, tasks_of
from vpt.continual.learner import Learner
from vpt.continual.marks import AnyTask, marks_of_tasks
from vpt.continual.protocol import JOINT, SHOWN, Protocol
from vpt.engine.same_data import keep_marks, require_same_data
from vpt.errors import VptError
from vpt.files import make_folder, read_json, write_json, write_text
from vpt.report.continual_page import MethodRow, continual_page
from vpt.scores.continual import (
    Order,
    average_incremental_accuracy,
    final_interval,
    forgetting,
)
from vpt.sealed import read_sealed, write_sealed
from vpt.use.pages.making import making_of

RESULT = "result.json"
WRITTEN = "continual.json"
USED = ("vpt", "torch", "timm", "numpy")  # what trainings and scores come from


@dataclass(frozen=True)
class Learned:
    """A method, and what it made of each order of the tasks."""

    method: str
    orders: tuple[Order, ...]
    interval: tuple[float, float]

    def mean(self, value: str) -> float:
        return sum(getattr(order, value) for order in self.orders) / len(self.orders)

    @property
    def chosen(self) -> float | None:
        """The mean share of cases whose task was chosen rightly, of masks."""
        return None if self.orders[0].chosen is None else self.mean("chosen_rightly")

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
            "chosen_rightly": self.chosen,
            "seconds": self.mean("seconds"),
            "orders": [{"tasks": order.tasks, "matrix": order.matrix, "final": order.final} for order in self.orders],
        }


def run_protocol(
    protocol: Protocol,
    out: str | Path,
    command: Sequence[str] = (),
    failed: Callable[[str, VptError], None] | None = None,
) -> list[Learned]:
    """Learn and test; what is finished in `out` is kept, so the same call goes on.

    Leaves `continual.json` and `continual.html` of the protocol's methods, and a folder for each method and seed with
    the run of each task. command: as `sys.argv` has it, for the page; failed: is told of a method that cannot go on,
    and the others do; None: that is raised.

    Raises:
        VptError: what is wrong with the protocol, the data or a training; another protocol, or results of other data,
            in the folder.
    """
    out = Path(out)
    protocol.require_usable()
    if JOINT in protocol.learners and len(protocol.data) > 1 and not protocol.of_masks:
        raise VptError(
            f"joint: learns the classes of one data set, found {len(protocol.data)}; leave it out of the methods, or "
            "put their images into one set"
        )
    sequences = {seed: tasks_of(protocol, seed) for seed in protocol.seeds}
    _require_same(protocol, marks_of_tasks(sequences[protocol.seeds[0]]), out)
    patients = {
        _name(protocol, task, case.name): task.dataset.patient(case.name)
        for task in sequences[protocol.seeds[0]]
        for case in task.tested
    }
    found = []
    for method in protocol.learners:
        try:
            orders = tuple(_learned(protocol, method, seed, tasks, out) for seed, tasks in sequences.items())
        except VptError as error:
            if failed is None:
                raise
            failed(method, error)
            continue
        found.append(Learned(method, orders, final_interval(orders, patients)))
        _write(protocol, found, out, command)
    return found


def _name(protocol: Protocol, task: AnyTask, case: str) -> str:
    """A name that no other test case has, whatever the order of the tasks."""
    return case if len(protocol.data) == 1 else f"{task.name}/{case}"


def _require_same(protocol: Protocol, marks: dict[str, str], out: Path) -> None:
    """Write protocol and data, or raise VptError where the folder is of others; more methods may be asked for."""
    source, own = out / "protocol.json", protocol.model_dump(mode="json", exclude={"methods"})
    held = [item for item in out.iterdir() if not item.name.startswith(".")] if out.is_dir() else []
    if held and not source.is_file():
        raise VptError(f"{out}: the folder is not empty, and holds no protocol; choose another --out")
    make_folder(out, "choose another --out")
    if source.is_file() and read_json(source) != own:
        raise VptError(f"{out}: holds another protocol (see {source.name}); choose another --out")
    require_same_data(out, marks)
    write_json(source, own)  # first: without it the folder would be of something else
    keep_marks(out, marks)


def _learned(protocol: Protocol, method: str, seed: int, tasks: list[Any], out: Path) -> Order:
    """What a method scores with one order of the tasks: as its result says where that is there, else learned now."""
    folder = out / f"{method}-{seed}"
    if (folder / RESULT).is_file():
        return _read(folder / RESULT)
    started = time.monotonic()
    learner = make_learner(method, tasks, protocol, seed, folder, out / "cache")
    matrix: list[tuple[float, ...]] = []
    right: dict[str, float] = {}
    for number, task in enumerate(tasks):
        learner.learn(task)
        if method == JOINT and task is not tasks[-1]:
            continue
        each = [_scores(protocol, learner, seen, told=False) for seen in tasks[: number + 1]]
        matrix.append(tuple(sum(one.values()) / len(one) for one in each))
        right = {name: score for one in each for name, score in one.items()}
        print(f"{SHOWN[method]}, seed {seed}, after {task.name}: {', '.join(f'{share:.3f}' for share in matrix[-1])}")
    told = [_scores(protocol, learner, task, told=True) for task in tasks]
    chosen = None
    if learner.chosen is not None:
        by_name = {task.name: task for task in tasks}
        chosen = {_name(protocol, by_name[task], case): is_right for (task, case), is_right in learner.chosen.items()}
    order = Order(
        tasks=tuple(task.name for task in tasks),
        matrix=None if method == JOINT else tuple(matrix),
        right=right,
        told={name: score for one in told for name, score in one.items()},
        of_task={name: number for number, one in enumerate(told) for name in one},
        seconds=time.monotonic() - started,
        chosen=chosen,
    )
    make_folder(folder, "choose another --out")
    classes = {} if protocol.of_masks else {"classes": [task.classes for task in tasks]}
    write_sealed(folder / RESULT, {**asdict(order), **classes})
    return order


def _scores(protocol: Protocol, learner: Learner, task: AnyTask, *, told: bool) -> dict[str, float]:
    """The score of each test case of a task, by its name among all."""
    return {_name(protocol, task, name): score for name, score in learner.scores(task, told=told).items()}


def _read(path: Path) -> Order:
    values = read_sealed(path)
    matrix = values["matrix"]
    return Order(
        tasks=tuple(values["tasks"]),
        matrix=None if matrix is None else tuple(tuple(row) for row in matrix),
        right=values["right"],
        told=values["told"],
        of_task=values["of_task"],
        seconds=values["seconds"],
        chosen=values.get("chosen"),
    )


def _write(protocol: Protocol, found: list[Learned], out: Path, command: Sequence[str]) -> None:
    write_json(
        out / WRITTEN,
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
            each.chosen,
        )
        for each in found
    ]
    title = " and ".join(path.name for path in protocol.data)
    score = "Dice" if protocol.of_masks else "accuracy"
    facts = [making_of("To repeat it", command, {"protocol": f"{out / WRITTEN}, with all settings"}, packages=USED)]
    write_text(out / "continual.html", continual_page(title, rows, score, facts))
