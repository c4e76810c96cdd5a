"""Files that are called as those of an evaluation, but that somebody else wrote: these are not replaced."""

from __future__ import annotations

from pathlib import Path

from vpt.errors import VptError
from vpt.files import holds_file, read_json
from vpt.scores.trust import COLUMNS

SUMMARY, CASES, QUALITY = "summary.json", "cases.csv", "quality.csv"
OURS = {"settings", "counts"}  # keys of our summary.json
HEADERS = (b"case,label,name,", b"name,reference,prediction,correct,")  # of our cases.csv: of masks, of classes


def require_own_results(folder: Path) -> None:
    """Raises VptError where an evaluation would replace what is not of one.

    nnU-Net writes a `summary.json` beside its masks, and a list of a data set's cases may be called `cases.csv`.
    """
    if holds_file(folder / SUMMARY) and not _is_our_summary(folder / SUMMARY):
        raise _other(folder / SUMMARY)
    if holds_file(folder / CASES) and not _begins(folder / CASES, *HEADERS):
        raise _other(folder / CASES)


def drop_quality(folder: Path) -> None:
    """Remove the `quality.csv` of an evaluation that one without it replaces; another's of that name stays."""
    if holds_file(folder / QUALITY) and _begins(folder / QUALITY, ",".join(COLUMNS).encode()):
        (folder / QUALITY).unlink()


def _is_our_summary(path: Path) -> bool:
    try:
        found = read_json(path)
    except VptError:
        return False
    return isinstance(found, dict) and not OURS.isdisjoint(found)


def _begins(path: Path, *headers: bytes) -> bool:
    with path.open("rb") as file:
        return file.readline().startswith(headers)


def _other(path: Path) -> VptError:
    return VptError(
        f"{path}: not of `vpt evaluate`, which would replace it; give another folder for the scores (--out), or move it"
    )
