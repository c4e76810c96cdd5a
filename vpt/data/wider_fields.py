"""Scans that show more around the body than those of the training did, of which the encoder sees other pictures."""

from __future__ import annotations

from vpt.data.cropping import Part
from vpt.data.doubts.values import is_ct
from vpt.data.plan import Plan
from vpt.readers import Grid

SHOWN = 0.9  # of a slice's side: where a tile shows as much, it shows the slice
WIDER = 1.1  # times the longest side of the training's, and of the encoder's image: what is hardly more


def unlike_foreground(plan: Plan, part: Part, whole: Grid) -> str:
    """What shows that the encoder sees the foreground of a scan otherwise than in training; empty where nothing does.

    It holds nearly all of the scan, or is so much larger that it is cut into tiles.
    """
    known = plan.foreground
    if known is None:
        return ""
    left = whole.cropped(part.box)
    if part.share > (1 + known.share) / 2 and _side(left, plan) > WIDER * known.side:
        background = "below -500 HU" if any(map(is_ct, plan.channels)) else "0"
        return (
            f"the box around what is no background holds {part.share:.0%} of the voxels, in the training "
            f"{known.share:.0%} at most, so little is cut off; set what lies around the body to what is background, "
            f"{background}"
        )
    return unlike_slices(plan, left)


def unlike_slices(plan: Plan, left: Grid) -> str:
    """What shows that slices are cut into tiles, though nearly all of the training's were seen whole; left: of a scan
    what the plan's crop leaves.
    """
    if plan.pixel_mm is None or (usual := _usual(plan)) is None:
        return ""
    seen_whole = usual <= WIDER * plan.image_size * plan.pixel_mm
    if (
        not seen_whole
        or _side(left, plan) <= WIDER * usual
        or _side(left, plan) * SHOWN <= plan.image_size * plan.pixel_mm
    ):
        return ""
    rows, columns = _millimetres(left, plan)
    return (
        f"slices of {rows:.4g}x{columns:.4g} mm, nearly all of the training {usual:.4g} mm at most: each is cut into "
        "tiles that show a part of it, which the model has hardly seen; cut the scan to what those of the training show"
    )


def _usual(plan: Plan) -> float | None:
    """The longer side in mm of what was left of nearly all slices of the training."""
    if plan.crop == "none":
        return None if plan.sizes is None else plan.sizes.side[1]
    return None if plan.foreground is None else plan.foreground.side


def _millimetres(grid: Grid, plan: Plan) -> tuple[float, float]:
    """Rows and columns of a slice in the plan's plane."""
    _, turned = grid.turned(plan.orientation)
    rows, columns = (n * mm for n, mm in zip(turned.shape[1:], turned.spacing[1:], strict=True))
    return rows, columns


def _side(grid: Grid, plan: Plan) -> float:
    return max(_millimetres(grid, plan))
