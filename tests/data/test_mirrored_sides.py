"""Names that tell sides apart, where training takes mirror images."""

from __future__ import annotations

from typing import Any

import pytest
from plans import plan_with

from vpt.data.doubts.mirrored_sides import mirror_doubts

KIDNEYS = ("background", "Kidney_left", "Kidney_right", "liver")
HIPPOCAMPUS = ("background", "Anterior", "Posterior")
PICTURES = {"kind": "images", "neighbours": False, "pixel_mm": None}


@pytest.mark.parametrize(
    ("names", "mirror", "plan", "instead"),
    [
        (KIDNEYS, "horizontal", {}, "none"),
        (KIDNEYS, "both", {}, "vertical"),
        (KIDNEYS, "horizontal", PICTURES, "none"),
        (KIDNEYS, "horizontal", {"plane": "sagittal", "planes": "all"}, "none"),
        (HIPPOCAMPUS, "vertical", {}, "none"),  # rows of an axial slice go from front to back
        (HIPPOCAMPUS, "both", {}, "horizontal"),
        (HIPPOCAMPUS, "horizontal", {"plane": "sagittal"}, "none"),
        (("OS", "OD"), "horizontal", PICTURES, "none"),
        (("rib_l_1", "rib_l_2", "rib_r_2"), "horizontal", {}, "none"),
    ],
)
def test_sides_that_mirror_images_exchange_are_named_with_what_else_could_be_set(
    names: tuple[str, ...], mirror: Any, plan: dict[str, Any], instead: str
) -> None:
    (said,) = mirror_doubts(names, mirror, plan_with(**plan))

    assert said.startswith(f"train.mirror={mirror} exchanges the sides of {names[-3 if len(names) > 3 else -2]!r} and ")
    assert said.endswith(f"set train.mirror={instead}")


@pytest.mark.parametrize(
    ("names", "mirror", "plan"),
    [
        (KIDNEYS, "none", {}),
        (KIDNEYS, "vertical", {}),
        (KIDNEYS, "both", {"plane": "sagittal"}),  # its slices lie in the plane between the two
        (HIPPOCAMPUS, "both", PICTURES),  # nobody says which way is front
        (HIPPOCAMPUS, "horizontal", {}),
        (("left atrium", "right ventricle", "L3", "T3"), "both", {}),
    ],
)
def test_sides_that_stay_apart_are_no_matter(names: tuple[str, ...], mirror: Any, plan: dict[str, Any]) -> None:
    assert mirror_doubts(names, mirror, plan_with(**plan)) == []
