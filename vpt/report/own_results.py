"""Files that are called as those of an evaluation, but that somebody else wrote: these are not replaced."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vpt.errors import VptError
from vpt.files import holds_file, read_json, write_text
from vpt.scores.trust import COLUMNS

SUMMARY, CASES, EVALUATION, QUALITY = "summary.json", "cases.csv", "evaluation.md", "quality.csv"
RESULTS = (SUMMARY, CASES, EVALUATION)
PICTURES = ("confusion.png", "reliability.png")
COMPARISON = ("comparison.json", "comparison.csv", "comparison.md")
PAGE = "report.html"
EVALUATED = (PAGE, SUMMARY, EVALUATION, QUALITY, *PICTURES, CASES)  # the last says whose the pictures are
BEGUN = ".vpt-evaluation"  # in a folder while masks are written there and scored, and until all results are there
MADE = b"<p>Made by vpt "  # in every page
SCORED = (b'<p class="kind">Evaluation</p>', b'<p class="kind">Comparison</p>')  # in those of scores
HEADERS = (b"case,label,name,", b"name,reference,prediction,correct,")  # of our cases.csv: of masks, of classes
HOW = re.compile(rb"\n## How\n\n\* [\d,]+ cases?[ ,]")  # in our evaluation.md


def require_own(folder: Path, *names: str) -> None:
    """Raises VptError where an evaluation would replace a file of one of these names that is not of one.

    nnU-Net writes a `summary.json` beside its masks, a list of a data set's cases may be called `cases.csv`, and what
    other programs or people write of results `report.html` or `evaluation.md`. Those of earlier versions are ours.
    """
    for path in (folder / name for name in names):
        if holds_file(path) and not OURS[path.name](path):
            raise VptError(
                f"{path}: not of `vpt evaluate`, which would replace it; give another folder for the scores (--out), "
                "or move it"
            )


def require_own_page(page: Path) -> None:
    """Raises VptError where a page of somebody else lies in the place of one of ours."""
    if holds_file(page) and not _is_our_page(page):
        raise VptError(f"{page}: not of vpt, which would replace it; move it, or choose another place")


@contextmanager
def marked(folder: Path, *, to_save: bool = False) -> Iterator[Callable[[], None]]:
    """A mark in a folder while an evaluation writes masks there; it stays where that is broken off, see `holds_own`.

    to_save: its results will be saved there (`saving`), and the mark stays until they are. What is yielded is called
    before a mask is written: those of an earlier one are removed before the first, and stay where there is none.
    """
    mark = folder / BEGUN
    begun, written = holds_file(mark), False
    write_text(mark, "")

    def writing() -> None:
        nonlocal written
        if to_save and not written:
            _drop(folder, EVALUATED)
        written = True

    try:
        yield writing
    except BaseException:
        if not (begun or written):
            mark.unlink()
        raise
    if not to_save:
        mark.unlink(missing_ok=True)


@contextmanager
def saving(folder: Path, *names: str, without: Iterable[str] = ()) -> Iterator[None]:
    """While results are written that are called so: what an earlier evaluation left of them, and its page, is removed
    before the first, so that files of two never lie side by side; the mark of `marked` stays until all are there.
    without: what such results never have, and an earlier evaluation may.

    Raises:
        VptError: a file of such a name is not of an evaluation.
    """
    require_own(folder, *names)
    mark = folder / BEGUN
    write_text(mark, "")
    _drop(folder, [name for name in (*EVALUATED, *COMPARISON) if name in (*names, *without, PAGE)])
    yield
    mark.unlink(missing_ok=True)


def holds_own(folder: Path) -> bool:
    """Whether the masks in a folder are those of an evaluation, which ended or was broken off."""
    return holds_file(folder / CASES) or holds_file(folder / BEGUN)


def _drop(folder: Path, names: Iterable[str]) -> None:
    """Remove what an earlier evaluation left; what somebody else called so stays, and pages of anything else do."""
    for path in (folder / name for name in names):
        if holds_file(path) and (_is_of_scores if path.name == PAGE else OURS[path.name])(path):
            path.unlink()


def _has(*keys: str) -> Callable[[Path], bool]:
    """Whether a file is a JSON object with one of these keys."""

    def found(path: Path) -> bool:
        try:
            content = read_json(path)
        except VptError:
            return False
        return isinstance(content, dict) and not content.keys().isdisjoint(keys)

    return found


def _begins(*starts: bytes) -> Callable[[Path], bool]:
    """Whether the first line of a file begins with one of these."""

    def found(path: Path) -> bool:
        with path.open("rb") as file:
            return file.readline().startswith(starts)

    return found


def _is_our_page(path: Path) -> bool:
    return MADE in path.read_bytes()


def _is_of_scores(path: Path) -> bool:
    """Whether a page is one of an evaluation or a comparison: others, of a run or of predictions, lie there as well."""
    page = path.read_bytes()
    return MADE in page and any(kind in page for kind in SCORED)


def _is_our_picture(path: Path) -> bool:
    """A picture says nothing of who drew it: ours lie beside our `cases.csv`."""
    cases = path.with_name(CASES)
    return holds_file(cases) and OURS[CASES](cases)


OURS: dict[str, Callable[[Path], bool]] = {
    SUMMARY: _has("settings", "counts"),
    CASES: _begins(*HEADERS),
    EVALUATION: lambda path: HOW.search(path.read_bytes()) is not None,
    QUALITY: _begins(",".join(COLUMNS).encode()),
    PAGE: _is_our_page,
    **dict.fromkeys(PICTURES, _is_our_picture),
    **dict(zip(COMPARISON, (_has("differences"), _begins(b"case,A "), _begins(b"# A: ")), strict=True)),
}
