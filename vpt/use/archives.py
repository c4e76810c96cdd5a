"""Many scans at once: reading ahead and writing behind, what failed, and where what is made of them goes."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vpt.data.cases import Case, find_scans, kind_of
from vpt.data.framing import SLAB
from vpt.errors import VptError
from vpt.files import atomic, make_folder
from vpt.progress import Tick, silent
from vpt.readers import Form, Mask, reader_of
from vpt.use.classifier import Classifier
from vpt.use.segmenter import PreparedScan, Segmenter

Given = TypeVar("Given")
Made = TypeVar("Made")

AT_ONCE = 32  # images in memory


@dataclass(frozen=True)
class Failure:
    """A scan that could not be used, and why; the others are done."""

    name: str
    reason: str


def attempt(name: str, file: object, work: Callable[[], Made]) -> Made | Failure:
    """What `work` makes of the scan `name`, or why it could not, be it out of memory or a device that fails."""
    try:
        return work()
    except VptError as error:
        return Failure(name, str(error))
    except (MemoryError, RuntimeError, OSError) as error:
        said = str(error).partition("\n")[0] or type(error).__name__
        return Failure(name, f"{file}: could not be processed ({said}); the others were")


def one_ahead(make: Callable[[Given], Made], items: Sequence[Given]) -> Generator[Callable[[], Made]]:
    """For every item in order a function, to be called once, that gives or raises what `make` makes of it.

    The item behind it is made meanwhile, in a thread. One that finds no memory beside the one before is tried again,
    alone.
    """
    with ThreadPoolExecutor(1, "vpt-read") as reader:
        coming = [reader.submit(make, item) for item in items[:1]]
        for k, item in enumerate(items):
            ready = coming
            wait(ready)
            if isinstance(ready[0].exception(), MemoryError):
                ready = [reader.submit(make, item)]
                wait(ready)
            coming = [reader.submit(make, item) for item in items[k + 1 : k + 2]]
            yield partial(_taken, ready)


def _taken(ready: list[Future[Made]]) -> Made:
    """The result, of which nothing is kept."""
    return ready.pop().result()


# --- masks ------------------------------------------------------------------------------------------------------------


def segment_cases(
    segmenter: Segmenter,
    cases: Sequence[Case],
    target: Callable[[Case], Path],
    progress: Tick = silent,
    box: Callable[[Case], Any] | None = None,
    form: Form = "own",
    say: Callable[[str, str], None] | None = None,
    force: bool = False,
) -> list[Failure]:
    """Segment every case into the file `target(case)`, each complete or absent; a scan that fails stops no other.

    While the encoder runs, a thread prepares the next scan and another writes the mask before, so that memory holds
    two scans at most. Failures and progress come in the order of the cases, a case's once its mask is written; of deep
    scans how far they are comes as well.
    `box`: where to look in a case, see `Segmenter.segment`; by default nothing is said. `form`: what masks are written
    as; `say` is told the file and what reading it took: what was left out of a folder, resampled, doubted; `force`: see
    `Segmenter.segment`.
    """
    failures: list[Failure] = []

    def settle(done: int, written: Future[None] | Failure) -> None:
        case = cases[done]
        failure = written if isinstance(written, Failure) else attempt(case.name, case.images[0], written.result)
        if failure:
            failures.append(failure)
        progress(done + 1, len(cases), case.name)

    given = [case.scan for case in cases]
    with (
        ThreadPoolExecutor(1, "vpt-write") as writer,
        closing(one_ahead(partial(segmenter.prepare, force=force), given)) as scans,
    ):
        before: Future[None] | Failure | None = None
        for done, (case, scan) in enumerate(zip(cases, scans, strict=True)):
            within = partial(_within, progress, done - 1 if before else 0, len(cases), case.name)
            work = partial(_segment_case, segmenter, case, scan, target, box, form, say, within)
            found = attempt(case.name, case.images[0], work)
            if before:
                settle(done - 1, before)
            before = found if isinstance(found, Failure) else writer.submit(save_labels, *found)
        if before:
            settle(len(cases) - 1, before)
    return failures


def _segment_case(
    segmenter: Segmenter,
    case: Case,
    scan: Callable[[], PreparedScan],
    target: Callable[[Case], Path],
    box: Callable[[Case], Any] | None,
    form: Form,
    say: Callable[[str, str], None] | None,
    progress: Tick,
) -> tuple[Path, Mask]:
    path, place, prepared = target(case), box and box(case), scan()
    if say:
        for text in prepared.reader.doubts():
            say(prepared.reader.name, text)
    return path, segmenter.segment_prepared(prepared, place, form=form, progress=progress)


def _within(progress: Tick, done: int, total: int, name: str, slices: int, depth: int, note: str) -> None:
    """Of a deep scan its slices as well: `done` of `total` scans, and how far the one called `name` is."""
    if slices % SLAB == 0 and slices < depth:
        progress(done, total, f"{name}, slice {slices} of {depth}")


def plan_outputs(
    scans: str | Path,
    out: Path,
    channels: int,
    overwrite: bool,
    skip_existing: bool,
    series: str | None = None,
    form: Form = "own",
) -> tuple[list[Case], Callable[[Case], Path]]:
    """Which scans to do and where their masks go: a folder, or one file for one scan.

    Raises:
        VptError: no scans; masks that are there already, unless a flag allows it; a folder that cannot be written.
    """
    cases = _not_within(out, find_scans(scans, channels, series))
    single = kind_of(out) is not None and not out.is_dir()
    if single and len(cases) > 1:
        raise VptError(f"{out}: one file for {len(cases)} scans; give a folder as the output")

    if out.suffix.lower() == ".csv" and not out.is_dir():
        raise VptError(f"{out}: the model segments, and its answers are masks; give a folder as the output")
    if single:
        _require_mask_name(out, cases[0], form)

    def target(case: Case) -> Path:
        return out if single else mask_file(out, case, form)

    if any(os.path.realpath(target(case)) == os.path.realpath(path) for case in cases for path in case.images):
        raise VptError(f"{out}: the masks would replace the scans themselves; choose another output")
    there = [case for case in cases if target(case).exists()]
    if skip_existing:
        cases = [case for case in cases if case not in there]
    elif there and not overwrite:
        more = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise VptError(
            f"{target(there[0])}: exists already{more}; add --overwrite or --skip-existing, or choose another output"
        )
    folder = out.parent if single else out
    make_folder(folder, "choose another output")
    if not os.access(folder, os.W_OK):
        raise VptError(f"{folder}: not writable; choose another output or ask for the permission")
    return cases, target


def _not_within(out: Path, cases: Sequence[Case]) -> list[Case]:
    """Without the folder of the masks, which may lie among those of the scans and hold DICOM as well."""
    made = [os.path.realpath(out)] if len(cases) > 1 and out.is_dir() else []
    return [case for case in cases if [os.path.realpath(path) for path in case.images] != made]


def _require_mask_name(out: Path, case: Case, form: Form) -> None:
    reader = reader_of(case.images)
    endings = reader.endings_as(form)
    if not out.name.lower().endswith(endings):
        what, name = "an image" if reader.unit == "px" else "a scan", f"NAME{endings[0]}"
        raise VptError(f"{out}: the mask of {what} cannot be written as this; give {name} or a folder as the output")


def mask_file(folder: Path, case: Case, form: Form = "own") -> Path:
    """Where the mask of a case lies among others: a NIfTI, or a PNG if the case is an image."""
    return folder / f"{case.name}{reader_of(case.images).endings_as(form)[0]}"


def save_labels(path: Path, labels: Mask) -> None:
    with atomic(path) as part:
        reader_of(labels).write_mask(part, labels)


# --- probabilities ----------------------------------------------------------------------------------------------------


def classify_cases(
    classifier: Classifier, cases: Sequence[tuple[str, Sequence[Any]]], progress: Tick = silent, force: bool = False
) -> tuple[list[str], np.ndarray, list[Failure]]:
    """Names and files of cases -> names of those that could be read, their probabilities (N, K), and the others.

    While the encoder runs, a thread prepares the next case. force: see `Classifier.classify`.
    """
    names: list[str] = []
    found: list[np.ndarray] = [np.empty((0, len(classifier.classes)))]
    failures: list[Failure] = []
    most = max(1, AT_ONCE // (classifier.plan.slices or 1))
    waiting: list[np.ndarray] = []
    with closing(one_ahead(partial(classifier.prepare, force=force), [files for _, files in cases])) as stacks:
        for done, ((name, files), prepared) in enumerate(zip(cases, stacks, strict=True), start=1):
            stack = attempt(name, files[0], prepared)
            if isinstance(stack, Failure):
                failures.append(stack)
            else:
                waiting.append(stack)
                names.append(name)
            if waiting and (len(waiting) == most or done == len(cases)):
                found.append(classifier.probabilities(waiting))
                waiting = []
            progress(done, len(cases), name)
    return names, np.concatenate(found), failures


def plan_predictions(
    scans: str | Path, out: Path, channels: int, overwrite: bool, series: str | None = None
) -> tuple[list[Case], Path]:
    """What to classify, and the CSV to write: `out` itself, or predictions.csv in the folder `out`.

    Raises:
        VptError: no scans; the name of a mask; a file that is there already, unless `overwrite`; a folder that cannot
            be made.
    """
    cases = list(find_scans(scans, channels, series))
    if kind_of(out) and not out.is_dir():
        raise VptError(f"{out}: the model classifies, and its answer is a table; give FILE.csv or a folder")
    path = out if out.suffix.lower() == ".csv" else out / "predictions.csv"
    if path.exists() and not overwrite:
        raise VptError(f"{path}: exists already; add --overwrite, or choose another output")
    make_folder(path.parent, "choose another output")
    return cases, path
