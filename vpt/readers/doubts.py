"""What may be wrong with a header that can be read: sentences without the file's name."""

from __future__ import annotations

import numpy as np

from vpt.readers.grid import SHEAR, Grid, by

SMALLEST, LARGEST = 0.01, 30.0  # mm: finer than micro-CT, thicker than any slice
UNITS = {  # of lengths, in mm, as headers write them
    "mm": 1.0,
    "millimeter": 1.0,
    "millimeters": 1.0,
    "millimetre": 1.0,
    "millimetres": 1.0,
    "um": 1e-3,
    "µm": 1e-3,
    "micron": 1e-3,
    "microns": 1e-3,
    "micrometer": 1e-3,
    "micrometers": 1e-3,
    "cm": 10.0,
    "m": 1000.0,
    "meter": 1000.0,
    "meters": 1000.0,
}


def shear(grid: Grid, straight: float = SHEAR, refused: str = "") -> list[str]:
    """straight: the cosine between axes that are taken as straight; refused: who reads no others, in words."""
    lean = grid.leaning
    if lean <= straight:
        return []
    degrees = np.degrees(np.arcsin(min(lean, 1.0)))
    sheared = f"sheared by {degrees:{'.1f' if degrees >= 1 else '.2g'}} degrees"
    return [f"{sheared}{refused}; resample it to straight axes"]


def odd_spacing(grid: Grid) -> list[str]:
    """Voxels of a size that no scanner has; the distance of a lone slice to nothing does not count."""
    sizes = [mm for mm, count in zip(grid.spacing, grid.shape, strict=True) if count > 1]
    if all(SMALLEST <= mm <= LARGEST for mm in sizes):
        return []
    return [
        f"voxels of {by(grid.spacing)} mm, which no scanner has (expected {SMALLEST:g} to {LARGEST:g} mm); "
        "correct the spacing, or its unit, in the header; of a microscope or OCT it may be right"
    ]


def converted(unit: str, factor: float) -> str:
    return f"its header says {unit}, so distances were multiplied by {factor:g} to mm; are they really in {unit}?"
