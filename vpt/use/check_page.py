"""`vpt check DATA --html PAGE`: what the check found beside small pictures of the cases."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from vpt.data.cases import Case, SegmentationSet
from vpt.data.findings import Check, Problem
from vpt.data.labelled import Example, LabelledSet
from vpt.data.thumbnails import colours, thumbnail
from vpt.files import write_text
from vpt.progress import Tick, silent
from vpt.report.check_page import Card, check_page
from vpt.use.pages.making import making_of

MOST = 300  # cards on a page; 160 px in JPEG are some 6 KB


def write_check_page(found: Check, page: Path, progress: Tick = silent, command: Sequence[str] = ()) -> None:
    """Write the page of what `vpt.data.check.check_dataset` found: all doubtful cases, and others up to 300 in all.

    command: as `sys.argv` has it.
    """
    dataset = found.dataset
    findings = _by_file(found)
    cases: list[Case | Example] = sorted(
        dataset.cases, key=lambda case: _rank(_findings_of(case, found.root, findings))
    )
    doubtful = sum(bool(_findings_of(case, found.root, findings)) for case in cases)
    shown = cases[: max(MOST, doubtful)]
    cards = []
    for done, case in enumerate(shown, start=1):
        cards.append(_card(case, dataset, found.sides.get(case.name, ""), _findings_of(case, found.root, findings)))
        progress(done, len(shown), case.name)
    said = [(problem.severity, problem.file, problem.text) for problem in found.problems]
    of = colours(dataset.labels) if isinstance(dataset, SegmentationSet) else {}
    legend = {dataset.labels[id]: colour for id, colour in of.items()}
    unshown = len(cases) - len(shown)
    repeat = [making_of("To repeat it", command)]
    write_text(page, check_page(found.name, found.verdict(), found.facts(), said, cards, unshown, legend, repeat))


def _by_file(found: Check) -> dict[str, list[Problem]]:
    files: dict[str, list[Problem]] = defaultdict(list)
    for problem in found.problems:
        files[problem.file].append(problem)
    return files


def _findings_of(case: Case | Example, root: Path, findings: dict[str, list[Problem]]) -> list[Problem]:
    """The findings of a case's own files, by their names as the check shows them."""
    files = case.files if isinstance(case, Case) else tuple(file for file in case.images if isinstance(file, Path))
    shown = (str(file.relative_to(root)) if file.is_relative_to(root) else str(file) for file in files)
    return [problem for name in shown for problem in findings.get(name, ())]


def _rank(problems: Sequence[Problem]) -> int:
    return 0 if any(problem.severity == "error" for problem in problems) else 1 if problems else 2


def _card(case: Case | Example, dataset: SegmentationSet | LabelledSet, side: str, problems: Sequence[Problem]) -> Card:
    label = case.label if isinstance(case, Case) else None
    classes = [dataset.labels[k] for k in case.target] if isinstance(case, Example) else []
    picture = thumbnail(case.images, len(dataset.channels), label, dataset.labels)
    said = ", ".join(filter(None, [side, *classes]))
    return Card(case.name, said, tuple((problem.severity, problem.text) for problem in problems), picture)
