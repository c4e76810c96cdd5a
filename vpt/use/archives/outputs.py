"""Where answers go: a folder of masks or one mask, a table; and what may not be replaced."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from vpt.data.cases import Case, kind_of
from vpt.errors import VptError
from vpt.files import clear_parts, make_folder, real
from vpt.readers import Form, reader_of
from vpt.use.archives.masks import mask_file
from vpt.words import listed

TABLES = (".csv", ".json")
STREAM = Path("-")
NO_FOLDERS = {
    *(".txt", ".tsv", ".xlsx", ".xls", ".html", ".md", ".pdf"),
    *(".npy", ".mat", ".h5", ".mgz", ".mgh", ".bz2", ".xz", ".gz", ".zip", ".tar"),
}


def is_single(out: Path) -> bool:
    """Whether answers go into one file."""
    return not out.is_dir() and (kind_of(out) is not None or out == STREAM or out.suffix.lower() in TABLES)


def plan_outputs(
    cases: Sequence[Case], out: Path, overwrite: bool, skip_existing: bool, form: Form = "own"
) -> tuple[list[Case], Callable[[Case], Path]]:
    """Which scans to do and where their masks go: a folder, or one file for one scan.

    Raises:
        VptError: masks that are there already, unless a flag allows it; a folder that cannot be written.
    """
    if out == STREAM or (out.suffix.lower() in TABLES and not out.is_dir()):
        raise VptError(f"{out}: the model segments, and its answers are masks; give a folder as the output")
    single = is_single(out)
    if single and len(cases) > 1:
        raise VptError(f"{out}: one file for {len(cases)} scans; give a folder as the output")
    if single and cases:
        _require_mask_name(out, cases[0], form)

    def target(case: Case) -> Path:
        return out if single else mask_file(out, case, form)

    require_own_places(
        {case.name: [target(case)] for case in cases}, [path for case in cases for path in case.images], out
    )
    there = [case for case in cases if target(case).exists()]
    if skip_existing:
        cases = [case for case in cases if case not in there]
    elif there and not overwrite:
        more = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        flags = "--overwrite or --skip-existing" if single else "--overwrite, --skip-existing or --continue"
        raise VptError(f"{target(there[0])}: exists already{more}; add {flags}, or choose another output")
    _require_folder_name(out, "NAME.nii.gz, NAME.png")
    require_writable(out.parent if single else out)
    return list(cases), target


def require_own_places(
    answers: Mapping[str, Sequence[Path]], given: Iterable[Path], out: Path, what: str = "the scans"
) -> None:
    """Refuse answers that would replace a scan, whether or not it is one of those to be done, or each other.

    answers: of each case the files that will be written; given: the scans that lie where they are taken from; what: in
    words what these are.
    """
    written: dict[Path, str] = {}
    for name, files in answers.items():
        for file in map(real, files):
            if (other := written.setdefault(file, name)) != name:
                raise VptError(
                    f"{out}: {file.name} would be written for {other} and for {name}; rename one of them, or choose "
                    "another output for it"
                )
    taken = {place for path in given for place in _places(path)}
    if lost := sorted(taken & written.keys()):
        raise VptError(
            f"{out}: the masks would replace {what} themselves ({listed((path.name for path in lost), 3)}); choose "
            "another output"
        )


def _places(path: Path) -> set[Path]:
    """Where a scan and the files beside it lie that it is read from."""
    try:
        return {real(part) for part in (path, *reader_of(path).files())}
    except (VptError, OSError, ValueError):  # of a damaged header; reading the scan says why
        return {real(path)}


def _require_folder_name(out: Path, files: str) -> None:
    """Refuse a new folder that is called as a file that nothing writes; files: what may be named."""
    if not (out.is_dir() or is_single(out)) and out.suffix.lower() in NO_FOLDERS:
        raise VptError(f"{out}: no answer is written as {out.suffix}; give {files} or the name of a folder")


def require_writable(folder: Path) -> None:
    make_folder(folder, "choose another output")
    if not os.access(folder, os.W_OK):
        raise VptError(f"{folder}: not writable; choose another output or ask for the permission")
    clear_parts(folder)


def _require_mask_name(out: Path, case: Case, form: Form) -> None:
    reader = reader_of(case.images)
    endings = reader.endings_as(form)
    if not out.name.lower().endswith(endings):
        what, name = "an image" if reader.unit == "px" else "a scan", f"NAME{endings[0]}"
        raise VptError(f"{out}: the mask of {what} cannot be written as this; give {name} or a folder as the output")


def plan_predictions(out: Path, overwrite: bool) -> Path:
    """The table to write: `out` itself (FILE.csv, FILE.json, - for standard output), or predictions.csv in a folder.

    Raises:
        VptError: the name of a mask; a file that is there already, unless `overwrite`; a folder that cannot be made.
    """
    if kind_of(out) and not out.is_dir():
        raise VptError(f"{out}: the model classifies, and its answer is a table; give FILE.csv or a folder")
    if out == STREAM:
        return out
    path = out if is_single(out) else out / "predictions.csv"
    if path.exists() and not overwrite:
        flags = "--overwrite" if is_single(out) else "--overwrite or --continue"
        raise VptError(f"{path}: exists already; add {flags}, or choose another output")
    _require_folder_name(out, "FILE.csv, FILE.json")
    require_writable(path.parent)
    return path
