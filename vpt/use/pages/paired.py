"""`report.html` of two runs, or of two folders of masks, that were compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from vpt.errors import VptError
from vpt.files import write_text
from vpt.progress import Tick, silent
from vpt.report.own_results import PAGE, require_own_page
from vpt.report.paired import MOST, PairedClasses, PairedFiles, PairedReport
from vpt.report.paired_page import PairedCard, PairedThumb, paired_page
from vpt.scores.paired import CasePair
from vpt.use.evaluation.label_folders import mask_at
from vpt.use.pages.making import making_of, masks_sha256, to_view
from vpt.use.pages.planes import CaseFiles, show_twice
from vpt.use.pages.sources import Sources, sources_beside, sources_of
from vpt.use.pages.viewer import inline_viewer, over_scan
from vpt.view.scenes import ViewedCase


def write_paired_page(
    folder: Path,
    report: PairedReport,
    run: Path | None = None,
    data: Path | None = None,
    progress: Tick = silent,
    viewer: bool = False,
    command: Sequence[str] = (),
) -> Path:
    """Write the page of a comparison into a folder -> its path. run: the first, where two runs were compared, for its
    data set and its plan; data: where that data set lies now; viewer: the volumes
    are inside the page, those that differ most first; command: that made it.

    Raises:
        VptError: a page that cannot be written, a viewer of what is classified.
    """
    if viewer and report.classes:
        raise VptError(f"{folder}: its cases are classified, and the viewer shows masks; leave --viewer out")
    sources = _of_run(run, data) if run else sources_beside(each.reference for each in report.files.values())
    worst = report.found.cases[:MOST]
    facts = [making_of("To repeat it", command, _hashes(report), _artifacts(report) if run else ())]
    if report.classes:
        thumbs = [_thumb(case, report.classes, sources) for case in worst]
        page = paired_page(report, [], thumbs, facts)
    else:
        cards = []
        for done, case in enumerate((case for case in worst if case.name in report.files), start=1):
            cards.append(_card(case, report.files[case.name], report.labels, sources))
            progress(done, len(worst), case.name)
        inlined = inline_viewer(_viewed(report, sources), report.labels) if viewer else None
        page = paired_page(report, cards, facts=facts, viewer=inlined, to_view=to_view(command))
    require_own_page(folder / PAGE)
    write_text(folder / PAGE, page)
    return folder / PAGE


def _thumb(case: CasePair, classes: PairedClasses, sources: Sources) -> PairedThumb:
    return PairedThumb(case, sources.thumb(case.name), *classes.answers[case.name])


def _viewed(report: PairedReport, sources: Sources) -> Iterator[ViewedCase | VptError]:
    """A and B over the scan, between which the largest difference is gone to, and the truth."""
    for case in report.found.cases:
        if case.name in report.files:
            files = report.files[case.name]
            known = sources.masked_case(case.name, files.reference)
            scan, truth = (known.scan, known.label) if known else (None, None)
            yield over_scan(case.name, scan, {"A": files.first, "B": files.second, "truth": truth})


def _hashes(report: PairedReport) -> dict[str, str]:
    """Digests of the masks of both, and of the truth."""
    files = report.files.values()
    return {
        "masks of A": masks_sha256([each.first for each in files]),
        "masks of B": masks_sha256([each.second for each in files]),
        "truth": masks_sha256([each.reference for each in files]),
    }


def _artifacts(report: PairedReport) -> list[Path]:
    from vpt.artifact import find_artifact

    return [find_artifact(run) for run in (report.first, report.second)]


def _of_run(run: Path, data: Path | None) -> Sources:
    from vpt.artifact import read_artifact

    return sources_of(read_artifact(run), data)


def _card(case: CasePair, files: PairedFiles, labels: Mapping[int, str], sources: Sources) -> PairedCard:
    """With pictures where the files are there, else with a note why there are none."""
    known = sources.masked_case(case.name, files.reference)
    scan, truth = (known.scan, known.label) if known else (None, mask_at(Path(files.reference), labels))
    first, second = (mask_at(Path(each), labels) for each in (files.first, files.second))
    try:
        shown = show_twice(CaseFiles(case.name, scan, truth, first), second, labels, sources.plan)
    except VptError as error:
        return PairedCard(case, note=f"no picture: {error}")
    return PairedCard(case, shown.first, shown.second, shown.difference, shown.empty)
