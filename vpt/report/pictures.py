"""Pictures of a run: how its training goes, and masks beside their references."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from vpt.files import atomic
from vpt.palette import LABELS, colours_of
from vpt.report.cuts import Letters
from vpt.report.overlays import bar_length

STYLES = {"reference": "solid", "prediction": "dashed"}


def write_progress(path: Path, rows: Sequence[dict[str, float]], shown: dict[str, str], score: str, title: str) -> None:
    """`progress.png`: loss, validation scores in the labels' colours, learning rate.

    shown: key -> name; score: the key that chooses.
    """
    from matplotlib.figure import Figure
    from matplotlib.patheffects import Normal, Stroke
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 7), layout="constrained")
    above, below, rate = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1.2])
    epochs = [row["epoch"] for row in rows]
    above.plot(epochs, [row["loss"] for row in rows], color="black", marker="." if len(rows) < 60 else None)
    above.set(ylabel="training loss", title=title)
    scored = [row for row in rows if score in row]
    at = [row["epoch"] for row in scored]
    casing = [Stroke(linewidth=3.2, foreground="0.35"), Normal()]  # light colours are seen on white
    labels = [key for key in shown if key != score]
    told = len(labels) <= len(LABELS)  # of more, colours say nothing
    for key, colour in zip(labels, cycle(LABELS)):
        values = [row.get(key, np.nan) for row in scored]
        below.plot(at, values, color=colour, label=shown[key] if told else None, path_effects=casing)
    name = shown.get(score, "mean Dice") + ("" if told else f"; thin: each of {len(labels)} labels")
    below.plot(at, [row[score] for row in scored], color="black", lw=2, label=name)
    if scored:
        best = max(scored, key=lambda row: row[score])
        below.scatter(best["epoch"], best[score], s=60, facecolors="none", edgecolors="black", zorder=3)
        late = best["epoch"] - epochs[0] > (epochs[-1] - epochs[0]) / 2  # then it is written to the left
        place: dict[str, Any] = {"xytext": (-8 if late else 8, -16), "textcoords": "offset points"}
        place["ha"] = "right" if late else "left"
        place["bbox"] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1}
        below.annotate(f"best {best[score]:.3f}", (best["epoch"], best[score]), **place)
        longest = max([len(name), *(len(shown[key]) for key in labels if told)])
        names = below.legend(loc="lower right", ncols=max(1, min(4, len(shown) + 1, 88 // (longest + 5))))
        names.set_in_layout(False)  # however long, the axes keep their places
    else:
        below.text(0.5, 0.5, "nothing validates", transform=below.transAxes, ha="center")
    rate.plot(epochs, [row.get("lr", np.nan) for row in rows], color="black", lw=1)
    rate.set(xlabel="epoch", ylabel="learning rate")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    rate.xaxis.set_major_locator(MaxNLocator(integer=True))
    ylabel = "validation Dice at full size" if score == "dice" else "validation scores"
    below.set(ylabel=ylabel, ylim=(0, 1))
    for axes in (above, below, rate):
        axes.grid(alpha=0.3)
    with atomic(path) as part:
        figure.savefig(part, dpi=110, format="png")


def write_preview(
    path: Path,
    image: np.ndarray,
    prediction: np.ndarray,
    reference: np.ndarray,
    labels: Sequence[str],
    title: str,
    aspect: float = 1.0,
    letters: Letters | None = None,
    of: tuple[Sequence[int], int] | None = None,
    pixel_mm: float | None = None,
) -> None:
    """Three slices, or an image beside itself alone: outlines of the reference, solid, and of the prediction, dashed.

    image: (slices, rows, columns) or (slices, rows, columns, 3) in [0, 1]; prediction, reference: (slices, rows,
    columns), positions in `labels`; aspect: a pixel's height by its width; letters: where its sides lie in a
    patient; of: which slices of how many these are, None where they are all; pixel_mm: a pixel's width, None of images.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    shown = list(range(len(image))) if of else slices_to_show(reference if reference.any() else prediction)
    numbers, depth = of or (range(len(image)), len(image))
    figure = Figure(figsize=(9, 3.6) if len(image) > 1 else (9, 4.6), layout="constrained")
    colours = colours_of(range(1, len(labels)))
    panels = list(figure.subplots(1, 3 if len(image) > 1 else 2))
    if len(image) == 1:
        show_slice(panels.pop(0), image[0], aspect, "image")
    for axes, k in zip(panels, shown, strict=True):
        show_slice(
            axes, image[k], aspect, f"slice {numbers[k] + 1} of {depth}" if depth > 1 else "reference and prediction"
        )
        write_letters(axes, letters)
        write_scale(axes, image.shape[2], pixel_mm)
        for ids, whose in ((reference[k], "reference"), (prediction[k], "prediction")):
            for label in np.unique(ids[ids > 0]):
                outline(axes, ids == label, colours[int(label)], STYLES[whose])
    present = [int(label) for label in np.unique((prediction[shown], reference[shown])) if label > 0]
    handles = [Line2D([], [], color=colours[k], lw=4, label=labels[k]) for k in present]
    handles += [Line2D([], [], color="grey", ls=style, label=whose) for whose, style in STYLES.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(8, len(handles)), fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10)
    with atomic(path) as part:
        figure.savefig(part, dpi=110, format="png")


def read_png(path: Path) -> np.ndarray:
    """A picture that was written here: (rows, columns, 3) uint8."""
    import matplotlib.image

    pixels: np.ndarray = (matplotlib.image.imread(path)[..., :3] * 255).round().astype(np.uint8)
    return pixels


def outline(axes: Any, mask: np.ndarray, colour: str, style: str) -> None:
    """A line of that colour over a dark one, seen on bright and on dark pixels."""
    axes.contour(mask, levels=[0.5], colors="black", linewidths=2.4, alpha=0.5)
    axes.contour(mask, levels=[0.5], colors=colour, linewidths=1.3, linestyles=style)


def write_letters(axes: Any, letters: Letters | None) -> None:
    """Letters at the top, the right, the bottom, the left."""
    if letters is None:
        return
    from matplotlib.patheffects import withStroke

    top, right = (0.5, 0.98, "center", "top"), (0.98, 0.5, "right", "center")
    bottom, left = (0.5, 0.02, "center", "bottom"), (0.02, 0.5, "left", "center")
    for letter, (x, y, across, up) in zip(letters, (top, right, bottom, left), strict=True):
        edge = [withStroke(linewidth=2, foreground="black")]
        axes.text(x, y, letter, transform=axes.transAxes, ha=across, va=up, size=9, color="white", path_effects=edge)


def write_scale(axes: Any, columns: int, pixel_mm: float | None) -> None:
    """A bar of a round length at the lower left; none where pixels have no mm."""
    if pixel_mm is None:
        return
    from matplotlib.patheffects import withStroke

    length, edge = bar_length(columns * pixel_mm), [withStroke(linewidth=3, foreground="black")]
    start, place = 0.03 * columns, axes.get_xaxis_transform()
    axes.plot(
        [start, start + length / pixel_mm], [0.03, 0.03], transform=place, color="white", lw=1.6, path_effects=edge
    )
    axes.text(start, 0.05, f"{length:g} mm", transform=place, va="bottom", size=7, color="white", path_effects=edge)


def show_slice(axes: Any, image: np.ndarray, aspect: float, title: str) -> None:
    """(rows, columns) or (rows, columns, 3) in [0, 1]; aspect: a pixel's height by its width."""
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect=aspect)
    axes.set_axis_off()
    axes.set_title(title, fontsize=9)


def slices_to_show(mask: np.ndarray) -> list[int]:
    """Three slices through the labelled part, or through the scan where there is none; the only one there is."""
    if len(mask) == 1:
        return [0]
    filled = np.flatnonzero(mask.any(axis=(1, 2)))
    span = filled if len(filled) else np.arange(len(mask))
    return [int(span[round(share * (len(span) - 1))]) for share in (0.25, 0.5, 0.75)]
