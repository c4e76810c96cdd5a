"""A picture of one prediction that nobody has labelled: outlines over three slices, and what they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vpt.files import atomic
from vpt.palette import colours_of
from vpt.report.cuts import Letters
from vpt.report.pictures import outline, show_slice, write_letters, write_scale


def write_prediction(
    path: Path,
    images: np.ndarray,
    classes: np.ndarray,
    of: tuple[Sequence[int], int],
    names: Sequence[str],
    title: str,
    aspect: float = 1.0,
    letters: Letters | None = None,
    pixel_mm: float | None = None,
) -> None:
    """images (N, rows, columns) in [0, 1], classes likewise, positions in `names`; of: which slices of how many.

    aspect: a pixel's height by its width; letters: where its sides lie in a patient; pixel_mm: a pixel's width, None
    of images.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(3 * len(images) + 0.5, 3.8), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(images)))
    colours = colours_of(range(1, len(names)))
    places, depth = of
    for axes, image, found, place in zip(panels, images, classes, places, strict=True):
        show_slice(axes, image, aspect, f"slice {place + 1} of {depth}" if depth > 1 else "")
        write_letters(axes, letters)
        write_scale(axes, images.shape[2], pixel_mm)
        for label in np.unique(found[found > 0]).tolist():
            outline(axes, found == label, colours[label], "solid")
    present = [label for label in np.unique(classes).tolist() if label > 0]
    lines = [Line2D([], [], color=colours[label], lw=4, label=names[label]) for label in present]
    if lines:
        figure.legend(handles=lines, loc="outside lower center", ncols=min(6, len(lines)), fontsize=8, frameon=False)
    figure.suptitle(title if present else f"{title}: nothing found", fontsize=10)
    with atomic(path) as part:
        figure.savefig(part, dpi=110, format="png")
