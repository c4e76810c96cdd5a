"""Lesions as a table: what was found, missed and made up, and recall by size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from vpt.report.blocks import Block
from vpt.report.group_blocks import range_of, shown
from vpt.scores.bootstrap import LEVEL
from vpt.scores.lesions import LesionSummary, SizeBin
from vpt.scores.segmentation import SegmentationScores


def lesion_blocks(scores: SegmentationScores) -> Iterator[Block]:
    if scores.lesions:
        named = [(scores.labels[label], found) for label, found in scores.lesions.items()]
        yield lesion_block(named, scores.settings.unit, scores.settings.lesion_overlap)


def lesion_block(named: Sequence[tuple[str, LesionSummary]], unit: str, overlap: float) -> Block:
    """named: labels by name with their lesions; unit: of distances, mm or px; overlap: the IoU of a match."""
    head = ["lesions", "found", "missed", "false", "recall", f"{LEVEL:.0%} interval", "precision", "F1", "Dice"]
    rows = [[name, *_cells(found)] for name, found in named]
    size, neighbours = ("ml", 26) if unit == "mm" else ("px", 8)
    notes = [
        *(
            f"{name}, found by size: {_by_size(found, size)}; Dice of those found {shown(found.scores['Dice_found'])}"
            for name, found in named
            if any(each.lesions for each in found.sizes)
        ),
        f"lesions: {neighbours}-neighbour components, one to one at an IoU of {overlap:g} or more; "
        "Dice: mean over found, missed (0) and false (0)",
    ]
    return Block("", head, rows, notes)


def _cells(found: LesionSummary) -> list[str]:
    counts = [str(number) for number in (found.found, found.missed, found.false)]
    recall, *others = (shown(found.scores[score]) for score in ("recall", "precision", "F1", "Dice"))
    return [*counts, recall, range_of(found.intervals["recall"]), *others]


def _by_size(found: LesionSummary, unit: str) -> str:
    return ", ".join(f"{_bounds(each)} {unit}: {each.found} of {each.lesions}" for each in found.sizes if each.lesions)


def _bounds(size: SizeBin) -> str:
    if not size.low:
        return f"under {size.high:g}"
    return f"{size.low:g} and more" if math.isinf(size.high) else f"{size.low:g} to {size.high:g}"
