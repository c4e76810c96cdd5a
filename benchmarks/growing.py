"""Measured growth: points of a form, how they grow, and the picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Sections = Mapping[str, Any]
AXES = {"batch": "images in a batch", "px": "tokens", "depth": "blocks", "slices": "slices of a volume"}
HERE, HERE_HALF, THEIRS = "#1f77b4", "#d62728", "#999999"
COLOURS = {"literal": THEIRS, "ours": HERE, "ours_bf16": HERE_HALF, "predict": HERE, "predict_bf16": HERE_HALF}
SAM_COLOURS = {"original": THEIRS, "ours": HERE, "ours_bf16": HERE_HALF}
Points = tuple[np.ndarray, np.ndarray]  # values, and seconds or MiB


def points(case: Mapping[str, Any], form: str, key: str = "min") -> Points:
    """Of the variants `form@value`; image sizes come as the tokens of patches of 16 pixels."""
    found = {}
    for name, row in case["variants"].items():
        own, _, value = name.partition("@")
        if own == form and row.get(key) is not None:
            size = int(value)
            found[(size // 16) ** 2 + 1 if case["settings"]["grows"] == "px" else size] = row[key]
    return np.array(list(found)), np.array(list(found.values()))


def slope(x: np.ndarray, y: np.ndarray) -> float:
    """The exponent k of y ~ x^k between the last point and the one nearest to a half of it: 1 is linear."""
    half = int(np.abs(x[:-1] - x[-1] / 2).argmin())
    return float(np.log(y[-1] / y[half]) / np.log(x[-1] / x[half]))


def exponent(case: str, form: str, key: str = "min") -> Callable[[Sections], float]:
    def reached(found: Sections) -> float:
        x, y = points(found["growth"][case], form, key)
        if len(x) < 2:
            raise KeyError(key)
        return slope(x, y)

    return reached


def memory_exponent(case: str, form: str) -> Callable[[Sections], float]:
    return exponent(case, form, "peak_mib")


def table(found: Sections) -> str:
    """Every form's points, exponents of the upper half, and the line through all points."""
    lines = ["| form | against | seconds | exponent | peak, MiB | exponent | MiB more per unit |", "|---" * 7 + "|"]
    for name, case in found.get("growth", {}).items():
        for form in dict.fromkeys(key.partition("@")[0] for key in case["variants"]):
            x, seconds = points(case, form)
            at, mib = points(case, form, "peak_mib")
            label = next(row["label"] for key, row in case["variants"].items() if key.startswith(f"{form}@"))
            cells = [
                label.rpartition(", ")[0],
                f"{AXES[name]} {_listed(x)}",
                _listed(seconds),
                f"{slope(x, seconds):.2f}",
            ]
            if len(at) > 1:
                cells += [_listed(mib), f"{slope(at, mib):.2f}", f"{np.polyfit(at, mib, 1)[0]:.3g}"]
            lines.append(f"| {' | '.join(cells + ['-'] * (7 - len(cells)))} |")
    return "\n".join(lines)


def draw(found: Sections, path: Path) -> None:
    """Time above, memory below where measured; left to right batch, tokens, depth, SAM's image, slices of a volume."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    panels = [*_grown(found), *_sam(found)]
    if not panels:
        return
    curves_of = [both for _, _, curves in panels for _, both in curves.values()]
    units = {"s": 0, "MiB above the model": 1}
    units = {unit: k for unit, k in units.items() if any(np.isfinite(both[k][1]).any() for both in curves_of)}
    shape = (len(units), len(panels))
    figure, axes = plt.subplots(*shape, figsize=(3.1 * shape[1], 2.7 * shape[0]), squeeze=False, layout="constrained")
    for column, (title, label, curves) in enumerate(panels):
        for row, (unit, k) in enumerate(units.items()):
            axis = axes[row, column]
            for name, (colour, both) in curves.items():
                x, y = both[k]
                axis.plot(x, y, "o-", color=colour, label=name, markersize=3, linewidth=1.3)
            axis.set_ylim(bottom=0)
            axis.set_xlim(left=0)
            axis.set_xlabel(label, fontsize=8)
            axis.set_ylabel(unit if column == 0 else "", fontsize=8)
            axis.tick_params(labelsize=7)
            axis.spines[["top", "right"]].set_visible(False)
        axes[0, column].set_title(title, fontsize=9)
        axes[0, column].legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


Panel = tuple[str, str, dict[str, tuple[str, tuple[Points, Points]]]]


def _grown(found: Sections) -> list[Panel]:
    titles = {"slices": "prediction of a volume"}
    names = {"literal": "literal, float32", "ours": "here, float32", "ours_bf16": "here, bfloat16"}
    names |= {"predict": "here, float32", "predict_bf16": "here, bfloat16"}
    return [
        (
            titles.get(name, "training step"),
            AXES[name],
            {
                names[form]: (colour, (points(case, form), points(case, form, "peak_mib")))
                for form, colour in COLOURS.items()
                if len(points(case, form)[0])
            },
        )
        for name, case in found.get("growth", {}).items()
    ]


def _sam(found: Sections) -> list[Panel]:
    """SAM's cases are one size each."""
    names = {"original": "original, float32", "ours": "here, float32", "ours_bf16": "here, bfloat16"}
    panels: list[Panel] = []
    for what in ("forward", "step"):
        sizes = {c["settings"]["image"]: c["variants"] for k, c in found.get("sam", {}).items() if k.startswith(what)}
        if len(sizes) < 2:
            continue
        curves = {}
        for form, colour in SAM_COLOURS.items():
            x = np.array(sorted(sizes))
            rows = [sizes[size][form] for size in x]
            both = tuple((x, np.array([_value(row, key) for row in rows])) for key in ("min", "peak_mib"))
            curves[names[form]] = (colour, (both[0], both[1]))
        panels.append((f"SAM ViT-B {what}", "pixels a side", curves))
    return panels


def _value(row: Mapping[str, Any], key: str) -> float:
    return float("nan") if row.get(key) is None else float(row[key])


def _listed(values: np.ndarray) -> str:
    return ", ".join(f"{value:.3g}" if value < 1000 else f"{value:.0f}" for value in values)
