"""A picture of one prediction that nobody has labelled: outlines over three slices, and what they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vpt.files import atomic
from vpt.report.pictures import COLOURS


def write_prediction(
    path: Path,
    images: np.ndarray,
    classes: np.ndarray,
    places: Sequence[int],
    names: Sequence[str],
    title: str,
    aspect: float = 1.0,
) -> None:
    """images (N, rows, columns) in [0, 1], classes likewise, positions in `names`; places: the slices' numbers.

    aspect: a pixel's height by its width.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(3 * len(images) + 0.5, 3.8), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(images)))
    for axes, image, found, place in zip(panels, images, classes, places, strict=True):
        axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect=aspect)
        for label in np.unique(found[found > 0]).tolist():
            colour = COLOURS[(label - 1) % len(COLOURS)]
            axes.contour(found == label, levels=[0.5], colors=colour, linewidths=1.4)
        axes.set_axis_off()
        axes.set_title(f"slice {place}" if len(images) > 1 else "", fontsize=9)
    present = [label for label in np.unique(classes).tolist() if label > 0]
    lines = [Line2D([], [], color=COLOURS[(label - 1) % len(COLOURS)], label=names[label]) for label in present]
    if lines:
        figure.legend(handles=lines, loc="outside lower center", ncols=min(6, len(lines)), fontsize=8, frameon=False)
    figure.suptitle(title if present else f"{title}: nothing found", fontsize=10)
    with atomic(path) as part:
        figure.savefig(part, dpi=110, format="png")
