"""An archive to the masks of several tasks on one encoder: scan by scan, a folder and a record for each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from vpt.errors import VptError
from vpt.progress import Tick, silent
from vpt.use.archives.attempts import Failure
from vpt.use.archives.batch import Asked, Outcome, summed_up
from vpt.use.archives.finding import find_archive
from vpt.use.archives.fingerprints import ModelMark
from vpt.use.archives.outputs import is_single
from vpt.use.archives.segmenting import MaskBatch
from vpt.use.bank import Bank
from vpt.use.bank_segmenters import TaskSegmenter, TasksOfAScan


def segment_for_tasks(
    bank: Bank,
    inputs: Sequence[Path],
    out: Path,
    asked: Asked,
    marks: Mapping[str, ModelMark],
    progress: Tick = silent,
) -> dict[str, Outcome]:
    """Of each task the masks of all scans at the inputs, or of this process's part of them, in a folder of its name.

    Whatever is asked of existing answers, failures and records holds for each task by itself; a scan is read once for
    all tasks that prepare it alike.

    Raises:
        VptError: see `segment_archive`; an output that is one file; tasks of different files.
    """
    if is_single(out):
        raise VptError(f"{out}: each of several tasks has masks of its own; give a folder as the output, or merge them")
    shared = TasksOfAScan(bank)
    first = next(iter(shared.members.values())).plan
    found = find_archive(inputs, first.kind, first.channels, out, asked.series, asked.recursive)
    cases = asked.part.of_all(found.cases)
    batches = {task: MaskBatch(TaskSegmenter(shared, task), out / task, asked, marks[task]) for task in shared.members}
    planned = {task: batch.plan(cases, found) for task, batch in batches.items()}
    todo = {task: {case.name for case in plan.todo} for task, plan in planned.items()}
    failed: dict[str, list[Failure]] = {task: [] for task in batches}
    with ExitStack() as stack:
        for task, batch in batches.items():
            batch.begin(planned[task], cases, found)
            stack.enter_context(summed_up(batch.sum_up))
        for done, case in enumerate(cases, 1):
            shared.todo = [task for task in batches if case.name in todo[task]]
            for task in shared.todo:
                failed[task] += batches[task].run([case])
            progress(done, len(cases), case.name)
    return {task: batch.conclude(planned[task], failed[task], found) for task, batch in batches.items()}
