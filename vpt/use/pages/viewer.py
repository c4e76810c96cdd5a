"""Cases of a page for its viewer: read, packed and put inside, in their order, while there is room."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from vpt.errors import VptError
from vpt.report.inlined import MOST_CASES, InlinedViewer, Inlining
from vpt.use.pages.planes import CaseFiles
from vpt.view.scenes import ViewedCase, make_scene

TRIED = 2 * MOST_CASES  # cases that are read at most


def inline_viewer(cases: Iterable[CaseFiles | VptError], labels: Mapping[int, str]) -> InlinedViewer:
    """cases: those of the page, in order, or why one cannot be shown; labels: id -> name.

    A case without a scan, or that cannot be read any more, is counted among those that are left out.
    """
    inlining, known = Inlining(), list(cases)
    for case in known[:TRIED]:
        if isinstance(case, VptError) or case.scan is None:
            continue
        try:
            scene = make_scene(_viewed(case), labels)
        except VptError:
            continue
        layers = {str(number): layer.data for number, layer in enumerate(scene.layers)}
        inlining.take(scene.to_dict(), {"scan": scene.scan, **layers})
    return InlinedViewer(inlining.scenes, len(known))


def _viewed(case: CaseFiles) -> ViewedCase:
    masks = {"truth": case.truth, "prediction": case.found}
    there = {title: mask for title, mask in masks.items() if mask is not None}
    scan = case.scan if isinstance(case.scan, tuple) else (case.scan,)
    return ViewedCase(case.name, scan, tuple(map(_path, there.values())), tuple(there))


def _path(mask: Path | str) -> Path | str:
    return Path(mask) if isinstance(mask, str) else mask
