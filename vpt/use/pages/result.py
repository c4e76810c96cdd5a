"""A new mask as a notebook shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vpt.data.plan import Plan
from vpt.errors import VptError
from vpt.palette import colours_of
from vpt.readers.shown import Segmentation
from vpt.report.pages import render
from vpt.report.parts import amount
from vpt.use.pages.planes import CaseFiles, show_case
from vpt.words import listed


def show_result(mask: Segmentation, name: str, scan: Any, plan: Plan) -> str:
    """Three planes through what was found and the volumes of all labels; HTML without scripts.

    Over the scan, or where that can no longer be read, on grey.
    """
    labels: Mapping[int, str] = {label: name for label, name in sorted(mask.labels.items()) if label}
    volumes, colours = mask.volumes, colours_of(labels)
    try:
        shown = show_case(CaseFiles(name, scan, None, mask), labels, plan)
    except VptError:
        shown = show_case(CaseFiles(name, None, None, mask), labels, plan)
    found = [f"{name} {amount(volumes[name])} ml" for name in labels.values() if volumes[name]]
    rows = [(colours[label], name, amount(volumes[name])) for label, name in labels.items()]
    headline = listed(found) or "nothing was found"
    return render("result.html", name=name, headline=headline, panels=shown.panels, rows=rows)
