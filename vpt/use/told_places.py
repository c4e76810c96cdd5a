"""What a user tells a model of where to look in a scan: a box, points -> hints in voxels of what the model is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vpt.data.hints import Frame, Hints, make_hints
from vpt.errors import VptError
from vpt.use.prepared_scan import PreparedScan
from vpt.vocabulary import Mirror


@dataclass(frozen=True)
class ToldPlaces:
    """What the user gave, not yet looked at: see `Segmenter.segment`."""

    box: Any = None
    points: Any = None
    point_labels: Sequence[int] | None = None
    frame: Frame = "voxel"

    def hints_of(self, scan: PreparedScan, takes_hints: bool, mirror: Mirror) -> Hints | None:
        """In voxels of the prepared part, None where nothing was said.

        takes_hints: whether the model was trained to; mirror: the mirror images that it is asked on. Raises VptError
        where they do not fit the scan or the model.
        """
        if scan.reader.unit == "px" and self.frame == "ras":
            raise VptError("frame 'ras': an image has no millimetres; give columns and rows with frame 'voxel'")
        given = make_hints(self.box, self.points, self.point_labels, self.frame, scan.grid)
        if given is None:
            return None
        if not takes_hints:
            raise VptError("this model takes no box or points; train one with head.kind=sam_decoder, head.hints=true")
        if mirror != "none":
            raise VptError(
                "mirror images (tta) take no box or points, which lie elsewhere in them; leave one of them out"
            )
        hints = given.moved(scan.grid, scan.oriented)
        if scan.part.share < 1 and not hints.lie_in(scan.oriented):
            raise VptError(
                f"{scan.reader.name}: the box or a point lies outside of the scan's foreground, which is all that this "
                "model looks at (plan.crop=foreground); give places inside the body"
            )
        return hints


UNTOLD = ToldPlaces()
