"""Cases of a page for its viewer: read, packed and put inside, in their order, while there is room."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vpt.errors import VptError
from vpt.report.inlined import MOST_CASES, InlinedViewer, Inlining
from vpt.use.pages.planes import CaseFiles
from vpt.view.scenes import ViewedCase, make_scene

TRIED = 2 * MOST_CASES  # cases that are read at most


def inline_viewer(cases: Iterable[ViewedCase | VptError], labels: Mapping[int, str]) -> InlinedViewer:
    """cases: those of the page, in order, or why one cannot be shown; labels: id -> name.

    A case without a scan, or that cannot be read any more, is counted among those that are left out.
    """
    inlining, known, without = Inlining(), list(cases), 0
    for case in known[:TRIED]:
        try:
            scene = _scene_of(case, labels)
        except VptError:
            without += 1
            continue
        layers = {str(number): layer.data for number, layer in enumerate(scene.layers)}
        inlining.take(scene.to_dict(), {"scan": scene.scan, **layers})
    return InlinedViewer(inlining.scenes, len(known), without)


def _scene_of(case: ViewedCase | VptError, labels: Mapping[int, str]) -> Any:
    if isinstance(case, VptError):
        raise case
    return make_scene(case, labels)


def viewed(files: CaseFiles) -> ViewedCase | VptError:
    """Truth and prediction over their scan."""
    return over_scan(files.name, files.scan, {"truth": files.truth, "prediction": files.found})


def over_scan(name: str, scan: Any, masks: Mapping[str, Any]) -> ViewedCase | VptError:
    """Masks by title, some of which may be None, over a scan; the largest difference is that of the first two."""
    if scan is None:
        return VptError(f"{name}: its scan is not known")
    there = {title: mask for title, mask in masks.items() if mask is not None}
    return ViewedCase(
        name, scan if isinstance(scan, tuple) else (scan,), tuple(map(_path, there.values())), tuple(there)
    )


def _path(mask: Any) -> Any:
    return Path(mask) if isinstance(mask, str) else mask
