"""nnU-Net's regions, labels that overlap: read as the parts that `regions_class_order` makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vpt.data.label_values import BACKGROUND, IGNORE
from vpt.errors import VptError
from vpt.words import listed

ORDER = "regions_class_order"
REST = "{} (rest)"  # what later regions leave of one


def parts_of(regions: Mapping[str, Sequence[int]], order: Any, source: Path) -> list[tuple[int, str]]:
    """Regions, values by name in the file's order -> (value, part): every value is of the last region that has it.

    order: the value that each region has in nnU-Net's masks, which must be the lowest that is left to it. Raises
    VptError where it is not, and where a region is left nothing.
    """
    named = {name: values for name, values in regions.items() if name not in (BACKGROUND, IGNORE)}
    if not isinstance(order, list) or len(order) != len(named) or not all(type(value) is int for value in order):
        raise VptError(f"{source}: `{ORDER}` {order!r}, expected a whole number for each of {listed(named)}")
    last = {value: name for name, values in named.items() for value in values}
    left = {name: sorted(value for value, its in last.items() if its == name) for name in named}
    if empty := [name for name in named if not left[name]]:
        raise VptError(f"{source}: later regions leave nothing of {empty[0]}; put the larger region first, or drop it")
    for (name, values), value in zip(left.items(), order, strict=True):
        if values[0] != value:
            raise VptError(
                f"{source}: `{ORDER}` writes {name} as {value}, but of its values {listed(values)} are left to it; "
                f"write {values[0]} there"
            )
    said = {name: name if set(values) == set(named[name]) else REST.format(name) for name, values in left.items()}
    others = [(value, name) for name, values in regions.items() if name not in named for value in values]
    return others + [(value, said[name]) for value, name in last.items()]


def regions_in_words(content: Mapping[str, Any], labels: Mapping[int, str]) -> str:
    """That the labels of this dataset.json were regions, and what became of them; "" where they were not."""
    if not content.get(ORDER):
        return ""
    parts = ", ".join(f"{value} {name}" for value, name in labels.items() if value)
    return (
        f"regions that overlap are read as parts that do not, in the order of `{ORDER}`: {parts}; scores are of these "
        "parts, a region is their union"
    )
