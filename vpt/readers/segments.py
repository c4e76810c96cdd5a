"""How a mask is written as a DICOM segmentation: what its labels are called, and by which codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Code = tuple[str, str, str]
"""Value, scheme and meaning of a coded concept: ("10200004", "SCT", "Liver")."""
Form = Literal["own", "dicom-seg", "dicom-seg-labelmap"]
"""What a mask is written as: like its scan, or as a DICOM segmentation, a bit or a number for every voxel."""


@dataclass(frozen=True)
class Naming:
    """names: label id -> name, with the background; codes: name -> code, of those that have one."""

    names: Mapping[int, str]
    codes: Mapping[str, Code] = field(default_factory=dict)
