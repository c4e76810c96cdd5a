"""Whether the data of a sequence are still those that its first results came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from vpt.continual.mask_tasks import MaskTask
from vpt.continual.tasks import Task
from vpt.data.cases import Case
from vpt.data.labelled import Example
from vpt.engine.same_data import files_of, marks_of_cases

AnyTask = Task | MaskTask


def marks_of_tasks(tasks: Sequence[AnyTask]) -> dict[str, str]:
    """Case -> what changes with its side, with what it shows, and with its files (`vpt.data.file_marks.marks_of`).

    The same in whatever order the tasks are, and whichever of them has which classes.
    """
    several = len({task.path for task in tasks}) > 1
    said: dict[str, str] = {}
    files: dict[str, list[Path]] = {}
    for task in tasks:
        for side, case in _cases(task):
            name = f"{task.name}/{case.name}" if several else case.name
            files[name] = files_of(case)
            said[name] = f"{side} {_shown(task, case)}"
            if not files[name]:  # its pixels are in the one file of all
                files[task.path.name], said[task.path.name] = [task.path], ""
    return marks_of_cases(said, files)


def _cases(task: AnyTask) -> Iterator[tuple[str, Case | Example]]:
    """With the side that each is on."""
    for side, names in task.splits.to_dict().items():
        yield from ((side, task.dataset.case(name)) for name in names)


def _shown(task: AnyTask, case: Case | Example) -> str:
    """The class, or the labels by their ids and those that were annotated."""
    if isinstance(case, Example):
        return task.dataset.labels[case.target[0]]
    return f"{sorted(task.dataset.labels.items())} {None if case.annotated is None else sorted(case.annotated)}"
