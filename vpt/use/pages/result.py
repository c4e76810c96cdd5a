"""A new mask as a notebook shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vpt.data.plan import Plan
from vpt.errors import VptError
from vpt.palette import colours_of
from vpt.readers.shown import Segmentation, SegmentedImage
from vpt.report.pages import render
from vpt.report.parts import amount
from vpt.use.pages.planes import CaseFiles, show_case
from vpt.words import listed


def show_result(mask: Segmentation | SegmentedImage, name: str, scan: Any, plan: Plan) -> str:
    """Three planes through what was found and the volumes of all labels, of an image it and pixels; HTML without
    scripts.

    Over the scan, or where that can no longer be read, on grey.
    """
    labels: Mapping[int, str] = {label: name for label, name in sorted(mask.labels.items()) if label}
    sizes, unit = (mask.volumes, "ml") if isinstance(mask, Segmentation) else (mask.pixels, "px")
    colours = colours_of(labels)
    try:
        shown = show_case(CaseFiles(name, scan, None, mask), labels, plan)
    except VptError:
        shown = show_case(CaseFiles(name, None, None, mask), labels, plan)
    found = [f"{name} {amount(sizes[name])} {unit}" for name in labels.values() if sizes[name]]
    rows = [(colours[label], name, amount(sizes[name])) for label, name in labels.items()]
    headline = listed(found) or "nothing was found"
    return render("result.html", name=name, headline=headline, panels=shown.panels, rows=rows, unit=unit)
